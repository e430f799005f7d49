"""One backward pass: what arrived at each call, what each parameter was given, and how they compare."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import torch

from sharedgrad.errors import ConfigError, UncertifiedWarning
from sharedgrad.tracing.answers import KeptWeight, Other, TracedWeight, settled
from sharedgrad.tracing.certify import TOLERANCE
from sharedgrad.tracing.graph import leading_to
from sharedgrad.tracing.joint import Gathered, Joint, PartUse
from sharedgrad.tracing.settings import Settings
from sharedgrad.tracing.site import Use
from sharedgrad.tracing.weights import Held, TensorWeight
from sharedgrad.uses import SharedWeight, Uses
from sharedgrad.view import Cast


class Arrived(NamedTuple):
    """A use of a parameter, and the gradient that arrived at its call's output."""

    number: int
    operation: str
    use: Use | PartUse
    delta: Held | Gathered
    type: str

    def uses(self) -> Uses:
        """The uses of this call."""
        uses = self.use.build(self.delta.get())
        uses.node = f"{self.operation} {self.number}"
        return uses


class Pass(Mapping[str, TracedWeight | KeptWeight]):
    """One backward pass: name -> parameter, for every parameter that was given a gradient and has a use.

    Args:
        number: Its number in the block.
        settings: What the trace was asked to do.

    Attributes:
        mixing: What made samples depend on one another in the forward pass; empty if nothing did, as far as was seen.
    """

    def __init__(self, number: int, settings: Settings, mixing: tuple[str, ...] = ()) -> None:
        self.number, self.mixing, self._settings = number, mixing, settings
        self._arrived: dict[str, list[Arrived]] = {}
        self._unknown: dict[str, set[str]] = {}
        self._deposits: dict[str, torch.Tensor] = {}
        self._nodes: dict[str, tuple[str, ...]] = {}
        self._made: dict[str, TracedWeight | KeptWeight] = {}
        self._gathered: dict[int, Gathered] = {}  # by the number of the call
        self._kept: dict[str, float] = {}  # ‖G‖ of parameters without a use, where nothing else is kept

    # ---- while it runs

    def arrived(self, number: int, operation: str, use: Use, delta: torch.Tensor) -> None:
        """A gradient has arrived at a call's output."""
        held = Arrived(number, operation, use, Held(delta), str(delta.dtype).removeprefix("torch."))
        self._arrived.setdefault(use.seen.weight.name, []).append(held)

    def gathered(self, number: int, joint: Joint, outputs: int, output: int, delta: torch.Tensor) -> None:
        """A gradient has arrived at one of several outputs of a call."""
        if number not in self._gathered:
            self._gathered[number] = together = Gathered(joint, outputs)
            for use in joint.uses:
                held = Arrived(number, use.part, use, together, joint.type)
                self._arrived.setdefault(use.seen.weight.name, []).append(held)
        self._gathered[number].add(output, delta)

    def gather(self) -> None:
        """All gradients have arrived: what calls with several outputs need is computed now, before weights change."""
        for together in self._gathered.values():
            with suppress(ConfigError):  # what has been overwritten is told to who asks
                together.get()
        self._gathered.clear()

    def passed(self, operation: str, name: str) -> None:
        """A gradient has passed through an operation whose uses are not known."""
        self._unknown.setdefault(name, set()).add(operation)

    def deposited(self, weight: TensorWeight, gradient: torch.Tensor) -> None:
        """The pass's own gradient of a parameter is complete."""
        before = self._deposits.get(weight.name)
        gradient = _own(gradient)
        self._deposits[weight.name] = gradient if before is None else before + gradient
        if self._settings.in_passing:
            self._settle(weight.name, again=before is not None)

    def finished(self, roots: list[Any], weights: Mapping[str, TensorWeight]) -> None:
        """The pass is over: find what leads to the parameters whose uses do not explain them, as far as is known."""
        kept = self._settings.in_passing
        self._deposits = {name: self._deposits[name] for name in weights if name in self._deposits}
        names = [n for n in self._deposits if not kept or n not in self._made or not self._made[n].certified]
        self._nodes = leading_to(roots, {name: weights[name].tensor for name in names}) if names else {}

    def _settle(self, name: str, again: bool) -> None:
        """Certify a parameter, answer what was asked, and let the factors go."""
        calls, gradient = self._calls(name), self._deposits[name]
        if again:  # recomputed in parts inside the pass: what was answered before was about one part alone
            before = self._made.pop(name, None)
            norm = self._kept.get(name, 0.0) if before is None else before.certificate.norm
            self._kept[name] = norm + float(gradient.double().norm())
            self.passed("several parts of one pass", name)
        elif calls:
            types, seed = self._types(name), 2**20 * self.number + len(self._made)
            made = self._made[name] = settled(SharedWeight(calls), gradient, types, self._settings, seed)
            if self._settings.callback is not None:
                self._made[name] = KeptWeight(made, made.certificate, {})
                self._settings.callback(made)
        else:
            self._kept[name] = float(gradient.double().norm())
        self._deposits[name] = self._deposits[name].new_zeros(())  # the model's own .grad has the numbers
        self._arrived.pop(name, None)

    # ---- afterwards

    def _calls(self, name: str) -> list[Uses]:
        return [a.uses() for a in sorted(self._arrived.get(name, []), key=lambda a: a.number)]

    def _types(self, name: str) -> list[str]:
        own = str(self._deposits[name].dtype).removeprefix("torch.")
        calls = self._arrived.get(name, [])
        casts = {step.dtype for a in calls for step in a.use.seen.view.steps if isinstance(step, Cast)}
        found = {own, *casts, *(a.type for a in calls)}
        return [t for t in found if t in TOLERANCE]

    def __getitem__(self, name: str) -> TracedWeight | KeptWeight:
        """One parameter by its name; warns if its uses do not add up."""
        return told(self.weight(name))

    def weight(self, name: str) -> TracedWeight | KeptWeight:
        """The same without a word, for what says by itself whether it is certified."""
        if name not in self._made:
            if name not in self._deposits:
                known = ", ".join(self._deposits) or "none"
                raise KeyError(f"{name} was given no gradient in this pass; there are {known}")
            calls = [] if self._settings.in_passing else self._calls(name)
            if not calls:
                problem = f"no use of it was seen; its gradient came through {', '.join(self.operations(name))}"
                raise ConfigError(f"trace of {name}", problem, "see t.other")
            self._made[name] = TracedWeight(calls, self._deposits[name], self._types(name))
        return self._made[name]

    def __contains__(self, name: Any) -> bool:
        return name in self._deposits and bool(name in self._made or self._arrived.get(name))

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._deposits if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @property
    def partial(self) -> bool:
        """Whether some samples alone were looked at."""
        return self._settings.samples is not None

    @property
    def names(self) -> tuple[str, ...]:
        """All parameters that were given a gradient, also those without a known use."""
        return tuple(self._deposits)

    def certified(self, name: str) -> bool:
        """Whether this parameter's uses add up to what the pass deposited; also where it has no known use."""
        return self.weight(name).certified if name in self else False

    def operations(self, name: str) -> tuple[str, ...]:
        """What the unexplained part of a gradient came through."""
        known = sorted(self._unknown.get(name, ()))
        return tuple(known) or self._nodes.get(name, ()) or ("an operation that the trace could not see",)

    @property
    def other(self) -> dict[str, Other]:
        """Name -> the part of the gradient that no use explains, where there is one, and what it comes from."""
        return {name: self._other(name) for name in self._deposits if not self.certified(name)}

    def _other(self, name: str) -> Other:
        operations = self.operations(name)
        if self._settings.in_passing:
            made = self._made.get(name)
            norm = self._kept[name] if made is None else made.residual * made.certificate.length
            return Other(None, operations, norm)
        rest = self._deposits[name]
        if self._arrived.get(name):
            weight = self.weight(name)
            assert isinstance(weight, TracedWeight)
            rest = rest - torch.as_tensor(weight.gradient, dtype=rest.dtype, device=rest.device)
        return Other(rest, operations, float(rest.double().norm()))


def told(weight: Any) -> Any:
    """A parameter to hand out: warn its reader if its uses do not add up."""
    if not weight.certified:
        came = f"the uses of {weight.name} do not add up to its gradient ({weight.certificate})"
        warnings.warn(f"{came}; see t.other", UncertifiedWarning, stacklevel=3)
    return weight


def _own(gradient: torch.Tensor) -> torch.Tensor:
    """A gradient that nobody writes into: autograd copies what somebody else holds before it adds to it."""
    if gradient.is_sparse:
        return gradient.detach().to_dense()
    return gradient.detach().clone() if gradient.requires_grad else gradient
