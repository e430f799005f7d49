"""Optimizers and learning-rate schedules, in order of growing complexity.

``optimizer.step(gradients)`` replaces each parameter's value; a shared parameter has one gradient (the sum over
its uses), one state and one update.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import cos, inf, nan, pi
from numbers import Real
from typing import Any, ClassVar

import numpy as np

from sharedgrad import kernels
from sharedgrad.errors import CheckpointError, ConfigError, ShapeError
from sharedgrad.gradients import Gradients
from sharedgrad.parameter import Array, Parameter, Weight


class Optimizer(ABC):
    """Turns gradients into new values.

    Args:
        parameters: What to train; each shared parameter counts once, a view of one as the whole.
        lr: Learning rate; may be set anew between steps.

    Attributes:
        names: What each parameter's state is called: its name in the network whose ``parameters()`` were given, else
            its own. Where several parameters have one name, a number follows it.
        state: The arrays that each parameter's next step depends on, under the names in ``state_names``.
    """

    state_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, parameters: Iterable[Weight], lr: float) -> None:
        names: Mapping[Parameter, str] = getattr(parameters, "names", {})
        given = list(parameters)
        if not given or not all(isinstance(p, Weight) for p in given):
            got = type(given[0]).__name__ if given else "none"
            raise ConfigError(type(self).__name__, f"expected parameters, got {got}", "pass net.parameters()")
        self.parameters = list(dict.fromkeys(p.base for p in given))
        self.names = _distinct({p: names.get(p, p.name) for p in self.parameters})
        self.lr = lr
        self.state: dict[Parameter, dict[str, Array]] = {p: {} for p in self.parameters}

    @property
    def lr(self) -> float:
        """Learning rate.

        Raises:
            ConfigError: It is set to something else than a number of at least 0.
        """
        return self._lr

    @lr.setter
    def lr(self, rate: float) -> None:
        self._lr = _number("lr", rate, 0)

    def step(self, gradients: Gradients) -> None:
        """Update every parameter that has a gradient.

        Raises:
            ConfigError: These are no gradients, or of another network.
        """
        pairs = gradients.pairs(self.parameters) if isinstance(gradients, Gradients) else []
        if not pairs:
            got = "those of other parameters" if isinstance(gradients, Gradients) else type(gradients).__name__
            where, problem = f"{type(self).__name__}.step", f"expected gradients of its parameters, got {got}"
            raise ConfigError(where, problem, "make the optimizer with the network's parameters()")
        for parameter, gradient in pairs:
            if gradient.shape != parameter.shape:
                problem = f"expected a gradient of shape {parameter.shape}, got {gradient.shape}"
                raise ShapeError(parameter.name, problem)
        used = [p for p, _ in pairs]
        new = self._new([p.value for p in used], [g for _, g in pairs], [self.state[p] for p in used])
        for parameter, value in zip(used, new, strict=True):
            parameter.replace(value)

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rate of each group of parameters; one, but for :class:`Combined`."""
        return (self.lr,)

    def trainer(self, parameter: Parameter) -> tuple[Optimizer, float]:
        """What updates a parameter, and at which learning rate."""
        return self, self.lr

    @abstractmethod
    def _new(self, values: list[Array], gradients: list[Array], states: list[dict[str, Array]]) -> list[Array]:
        """New values for all these parameters; their states are brought up to date."""

    def state_dict(self) -> dict[str, Array]:
        """Everything that the next step depends on besides values and gradients, for a checkpoint."""
        return {f"{self.names[p]}/{key}": np.array(a) for p, arrays in self.state.items() for key, a in arrays.items()}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Go on from a checkpoint.

        Raises:
            CheckpointError: It belongs to other parameters or to another optimizer.
        """
        by_name = {name: p for p, name in self.names.items()}
        loaded: dict[Parameter, dict[str, Array]] = {p: {} for p in self.parameters}
        for key, array in state.items():
            name, _, kind = key.rpartition("/")
            if name not in by_name or array.shape not in (by_name[name].shape, ()):
                raise CheckpointError("optimizer state", f"{key} of shape {array.shape} does not fit this network")
            loaded[by_name[name]][kind] = np.array(array)
        for parameter, arrays in loaded.items():
            if arrays and set(arrays) != set(self.state_names):
                expected = ", ".join(self.state_names) or "nothing"
                problem = f"expected {expected} of {self.names[parameter]}, got {', '.join(arrays)}"
                raise CheckpointError("optimizer state", f"does not fit {type(self).__name__}: {problem}")
        self.state = loaded


class SGD(Optimizer):
    """Stochastic gradient descent.

        g ← gradient + weight_decay · w
        v ← momentum · v + g
        w ← w − lr · v            (Nesterov: w − lr · (g + momentum · v))

    Without momentum v is g. (Sutskever et al. 2013 for Nesterov's form.)

    Args:
        parameters: What to train, e.g. ``net.parameters()``; a view counts as the whole Parameter.
        lr: Learning rate, at least 0.
        momentum: Share of the velocity that is kept, from 0 to below 1.
        nesterov: Whether to look ahead; needs momentum.
        weight_decay: Factor on the weight that is added to its gradient, at least 0.

    Raises:
        ConfigError: An argument is out of its range, or there are no parameters.
    """

    state_names = ("momentum",)

    def __init__(
        self,
        parameters: Iterable[Weight],
        lr: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr)
        self.momentum = _number("momentum", momentum, 0, 1)
        self.weight_decay = _number("weight_decay", weight_decay, 0)
        self.nesterov = nesterov
        if nesterov and not momentum:
            raise ConfigError("SGD: nesterov", "needs a momentum above 0, got 0", "set momentum=0.9")

    def _new(self, values: list[Array], gradients: list[Array], states: list[dict[str, Array]]) -> list[Array]:
        velocities = _kept("momentum", states, values) if self.momentum else []
        new, velocities = kernels.of(values[0]).sgd(
            values, gradients, velocities, self.lr, self.momentum, self.nesterov, self.weight_decay
        )
        for state, velocity in zip(states, velocities, strict=False):  # without momentum there are none
            state["momentum"] = velocity
        return new


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, arXiv:1412.6980).

        m ← β₁ m + (1 − β₁) g        v ← β₂ v + (1 − β₂) g²
        w ← w − lr · m̂ / (√v̂ + ε)        m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ)

    Args:
        parameters: What to train, e.g. ``net.parameters()``; a view counts as the whole Parameter.
        lr: Learning rate, at least 0.
        betas: (β₁, β₂), each from 0 to below 1.
        eps: ε, at least 0.
        weight_decay: Factor on the weight that is added to its gradient (L2), at least 0; :class:`AdamW` decouples it.

    Raises:
        ConfigError: An argument is out of its range, or there are no parameters.
    """

    state_names = ("mean", "square", "steps")
    decoupled = False

    def __init__(
        self,
        parameters: Iterable[Weight],
        lr: float = 1e-3,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr)
        if not isinstance(betas, Sequence) or len(betas) != 2:
            raise ConfigError("betas", f"expected a pair (β₁, β₂), got {betas!r}")
        self.betas = (_number("betas", betas[0], 0, 1), _number("betas", betas[1], 0, 1))
        self.eps, self.weight_decay = _number("eps", eps, 0), _number("weight_decay", weight_decay, 0)

    def _new(self, values: list[Array], gradients: list[Array], states: list[dict[str, Array]]) -> list[Array]:
        # each parameter's own: others may have had gradients more often
        steps = [1 + int(state.get("steps", 0)) for state in states]
        new, means, squares = kernels.of(values[0]).adam(
            values,
            gradients,
            _kept("mean", states, values),
            _kept("square", states, values),
            steps,
            self.lr,
            self.betas,
            self.eps,
            self.weight_decay,
            self.decoupled,
        )
        for state, mean, square, t in zip(states, means, squares, steps, strict=True):
            state.update(mean=mean, square=square, steps=np.asarray(t, np.int64))
        return new


class AdamW(Adam):
    """Adam with decoupled weight decay: w ← w − lr · weight_decay · w besides (Loshchilov & Hutter 2019)."""

    decoupled = True

    def __init__(
        self,
        parameters: Iterable[Weight],
        lr: float = 1e-3,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(parameters, lr, betas, eps, weight_decay)


class Combined(Optimizer):
    """Groups of parameters, each with an optimizer and so a learning rate and weight decay of its own.

    A parameter that none of them holds stays as it is (frozen). ``lr`` is a factor on the rates of all of them, 1 to
    begin with; a schedule changes it.

    >>> from sharedgrad import Linear, Network
    >>> net = Network([Linear(4, 3), Linear(3, 2)])
    >>> body, head = net["0"].parameters().values(), net["1"].parameters().values()
    >>> Combined(SGD(body, lr=0.001), SGD(head, lr=0.1)).lr
    1.0

    Args:
        optimizers: One for each group.

    Raises:
        ConfigError: None is given, or a parameter is in two groups.
    """

    def __init__(self, *optimizers: Optimizer) -> None:
        if not optimizers or not all(isinstance(optimizer, Optimizer) for optimizer in optimizers):
            raise ConfigError("Combined", "expected optimizers, one for each group of parameters")
        self.optimizers = optimizers
        super().__init__([p for optimizer in optimizers for p in optimizer.parameters], 1.0)
        if len(self.parameters) != sum(len(optimizer.parameters) for optimizer in optimizers):
            raise ConfigError("Combined", "a parameter is in two groups", "give each to one optimizer")

    @property
    def rates(self) -> tuple[float, ...]:
        """Those of the groups, in their order."""
        return tuple(optimizer.lr * self.lr for optimizer in self.optimizers)

    def trainer(self, parameter: Parameter) -> tuple[Optimizer, float]:
        """The optimizer of its group, and that group's rate; of a frozen parameter this one."""
        owners = (pair for pair in zip(self.optimizers, self.rates, strict=True) if parameter in pair[0].parameters)
        return next(owners, (self, self.lr))

    def step(self, gradients: Gradients) -> None:
        """Update every parameter that has a gradient, by its own optimizer."""
        present = [o for o in self.optimizers if isinstance(gradients, Gradients) and gradients.pairs(o.parameters)]
        if not present:
            super().step(gradients)  # says what is wrong
        for optimizer in present:
            with self.scaled(optimizer):
                optimizer.step(gradients)

    @contextmanager
    def scaled(self, optimizer: Optimizer) -> Iterator[None]:
        """Within this, the group's optimizer has its rate times ``lr``."""
        own = optimizer.lr
        optimizer.lr = own * self.lr
        try:
            yield
        finally:
            optimizer.lr = own

    def _new(self, values: list[Array], gradients: list[Array], states: list[dict[str, Array]]) -> list[Array]:
        raise NotImplementedError  # each group's own optimizer does

    def state_dict(self) -> dict[str, Array]:
        """Those of all groups."""
        return {key: array for optimizer in self.optimizers for key, array in optimizer.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Go on from a checkpoint; errors as for one optimizer."""
        owners = {p.name: optimizer for optimizer in self.optimizers for p in optimizer.parameters}
        parts: dict[Optimizer, dict[str, Array]] = {optimizer: {} for optimizer in self.optimizers}
        for key, array in state.items():
            parts[owners.get(key.rpartition("/")[0], self.optimizers[0])][key] = array
        for optimizer, part in parts.items():
            optimizer.load_state_dict(part)


# ---- schedules: how far training has come (0 to 1) -> factor on the learning rate

Schedule = Callable[[float], float]


def constant(progress: float) -> float:
    """1 throughout."""
    return 1.0


def step(progress: float) -> float:
    """1, then 0.1 after half of training and 0.01 after three quarters."""
    return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01


def cosine(progress: float) -> float:
    """From 1 down to 0 along half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983)."""
    return 0.5 * (1 + cos(pi * min(progress, 1.0)))


def one_cycle(progress: float) -> float:
    """From 1/25 up to 1 over the first 30 %, then down to 1/1000, along cosines (Smith 2018, arXiv:1708.07120)."""
    if progress < 0.3:
        return 1 / 25 + (1 - 1 / 25) * (1 - cosine(progress / 0.3))
    return 1 / 1000 + (1 - 1 / 1000) * cosine((progress - 0.3) / 0.7)


SCHEDULES: dict[str, Schedule] = {
    "constant": constant,
    "step": step,
    "cosine": cosine,
    "one-cycle": one_cycle,
}


def _kept(name: str, states: list[dict[str, Array]], values: list[Array]) -> list[Array]:
    """One array of each state; zeros before the first step."""
    return [state[name] if state else np.zeros_like(w) for state, w in zip(states, values, strict=True)]


def _distinct(names: Mapping[Parameter, str]) -> dict[Parameter, str]:
    """The same, and a number behind every name that has been before."""
    found: dict[str, Parameter] = {}
    for parameter, name in names.items():
        called, count = name, 1
        while called in found:
            count += 1
            called = f"{name} ({count})"
        found[called] = parameter
    return {parameter: name for name, parameter in found.items()}


def _number(name: str, value: Any, least: float, below: float = inf) -> float:
    number = float(value) if isinstance(value, Real) else nan
    if not least <= number < below:
        limit = "" if below == inf else f" and below {below:g}"
        raise ConfigError(name, f"expected a number of at least {least:g}{limit}, got {value!r}")
    return number
