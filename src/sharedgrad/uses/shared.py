"""One shared weight with all its calls: every question about the sum that its gradient is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import nan, prod, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sharedgrad import kernels
from sharedgrad.errors import ConfigError
from sharedgrad.geometry import text
from sharedgrad.parameter import Array
from sharedgrad.uses import parts, written
from sharedgrad.uses.arrays import concatenated, copied, given, matching, resolution, stacked
from sharedgrad.uses.base import By, Uses
from sharedgrad.uses.gram import all_lookups, group_products, group_squares, sparse_sums
from sharedgrad.uses.lookup import Lookup, Rows, refuse_tables
from sharedgrad.uses.terms import Terms

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ZERO = "zero up to rounding"


@dataclass(frozen=True)
class Coherence:
    """‖G‖² / Σ‖S_k‖²: 1 as of random directions, up to ``count`` where all agree, below 1 where they cancel.

    Attributes:
        value: The coherence; NaN where it is undefined.
        count: The number of parts.
        reason: Why it is undefined, else empty.
    """

    value: float
    count: int
    reason: str


@dataclass(frozen=True)
class Cancellation:
    """1 − ‖G‖ / Σ‖S_k‖: 0 where all parts point the same way, 1 where they cancel.

    Attributes:
        value: The cancellation; NaN where all parts are zero.
        count: The number of parts.
        random: What as many random directions of one length would give: 1 − 1/√count.
    """

    value: float
    count: int
    random: float


class Part(NamedTuple):
    """One part of the gradient among the largest.

    Attributes:
        call: The call that it belongs to; None where the calls are added.
        use: The index on each axis that is kept apart: what ``contribution(call, **use)`` takes where all are.
        value: Its share or norm.
    """

    call: int | None
    use: dict[str, tuple[int, ...]]
    value: float


class SharedWeight:
    """All uses of one weight, in all its calls.

    ``by`` names the axes that are kept apart, one name or several: those of the uses ("sample", "position", "time",
    "token" …) and "call". What is not named is added, the calls too. An axis that is named must be in every call; its
    lengths may differ only if "call" is kept apart too: the result is then a list, one array for each call. Axes stand
    in the results in the order of the first call's, "call" before them.

    Args:
        calls: The uses in each call, in forward order; all of one weight.

    Attributes:
        calls: The same.
        weight: The weight: its name, shape, type and value.
    """

    def __init__(self, calls: Sequence[Uses]) -> None:
        if not calls:
            raise ConfigError("SharedWeight", "expected the uses of at least one call, got none")
        tensor = next((call.tensor for call in calls if call.tensor is not None), None)
        self.calls = tuple(calls if tensor is None else [call.as_tensors(tensor) for call in calls])
        self.weight, self._like = calls[0].weight, next((call.like for call in calls if call.like is not None), None)
        for call in calls:
            if call.weight is not self.weight:
                raise ConfigError("SharedWeight", "expected uses of one weight, got some of others")

    @property
    def name(self) -> str:
        """The weight's name."""
        return self.weight.name

    @property
    def shape(self) -> tuple[int, ...]:
        """The weight's shape."""
        return tuple(self.weight.shape)

    @property
    def axes(self) -> dict[str, tuple[int, ...]]:
        """The axes that all calls share: name -> lengths, where they have the same."""
        first, *others = self.calls
        return {n: s for n, s in first.axes.items() if all(call.axes.get(n) == s for call in others)}

    @property
    def count(self) -> int:
        """The number of uses in all calls."""
        return sum(call.count for call in self.calls)

    # ---- sums

    @property
    def gradient(self) -> Array:
        """The sum over all uses of all calls, in the weight's shape."""
        return self._give(copied(self._gradient))

    @cached_property
    def _gradient(self) -> Array:
        return self._sum(self.calls, ())

    def sum(self, by: By = ()) -> Any:
        """Partial sums: one for each index of what ``by`` names, over everything else.

        Returns:
            Array (lengths of what is kept apart, then the weight's shape); or a list of them (see the class).

        Raises:
            ConfigError: There is no such axis, or the sums are tables that were looked up and would take more than
                the memory limit.
        """
        names, groups, apart = self._by(by)
        if not names and not apart:
            return self.gradient
        if any(isinstance(call, Lookup) for call in self.calls):
            number = sum(prod(calls[0].lengths(names)) for calls in groups)
            refuse_tables(self.name, number, self.shape, self._gradient.itemsize)
        return self._answer([self._sum(calls, names) for calls in groups], apart)

    def rows(self, by: By = ()) -> Rows:
        """Partial sums of a table whose rows are looked up, sparse: what each adds to the rows that it reads.

        Returns:
            The groups numbered in the order of what is kept apart, "call" first; rows of the table as the calls see it.

        Raises:
            ConfigError: A call is no lookup, or sees the table in another way; or there is no such axis.
        """
        names, groups, _ = self._by(by, same=True)
        if not all_lookups(self.calls):
            problem = "sums are sparse by row only where all calls look rows up in one view of the weight"
            raise ConfigError(f"uses of {self.name}", problem, "ask for sum(by)")
        found, number = [sparse_sums(calls, names) for calls in groups], prod(self.calls[0].lengths(names))
        group = np.concatenate([rows.group + i * number for i, rows in enumerate(found)])
        values = concatenated([rows.values for rows in found])
        return Rows(group, np.concatenate([rows.row for rows in found]), self._give(values))

    def _sum(self, calls: Sequence[Uses], names: Sequence[str]) -> Array:
        total = None
        for call in calls:
            part = call.own(call.totals(names), len(call.axis_numbers(names)))
            total = part if total is None else total + part
        assert total is not None
        return total

    # ---- sizes and directions

    def norm(self, by: By = ()) -> Any:
        """‖S_k‖ of each partial sum S_k, in float64; the uses of all calls in it are added before the norm is taken."""
        names, groups, apart = self._by(by)
        if not names and not apart:
            return sqrt(self._square)
        return self._answer([np.sqrt(self._squares(calls, names)) for calls in groups], apart)

    def share(self, by: By) -> Any:
        """⟨S_k, G⟩ / ‖G‖² of each partial sum: its share in the gradient G. Shares add to 1.

        They may be negative or above 1. Where G is zero up to rounding they are NaN (see ``zero_up_to_rounding``).
        """
        names, groups, apart = self._by(by)
        found = []
        for calls in groups:
            total = sum(call.grouped(self._projected(call), names).sum(axis=1) for call in calls)
            value = np.full(len(total), nan) if self.zero_up_to_rounding else total / self._square
            found.append(value.reshape(calls[0].lengths(names)))
        return self._answer(found, apart)

    def inner(self, by: By) -> Array:
        """⟨S_k, S_l⟩ between all pairs of partial sums, in float64.

        Returns:
            Array (lengths of what is kept apart, the same again).

        Raises:
            ConfigError: An axis has other lengths in other calls.
        """
        names, groups, apart = self._by(by, same=True)
        rows: list[list[Array]] = []
        for i, a in enumerate(groups):
            rows.append([before[i].T for before in rows] + [group_products(a, b, names) for b in groups[i:]])
        lengths = (*([len(groups)] if apart else []), *self.calls[0].lengths(names))
        return self._give(np.block(rows).reshape((*lengths, *lengths)))

    def coherence(self, by: By | None = None) -> Coherence:
        """‖G‖² / Σ‖S_k‖² over the partial sums S_k; of all single uses, if no axis is given."""
        squares = self._all_squares(by)
        zero = self.zero_up_to_rounding
        return Coherence(nan if zero else self._square / squares.sum(), squares.size, ZERO if zero else "")

    def cancellation(self, by: By | None = None) -> Cancellation:
        """1 − ‖G‖ / Σ‖S_k‖ over the partial sums S_k; of all single uses, if no axis is given."""
        squares = self._all_squares(by)
        length = np.sqrt(squares).sum()
        value = 1 - sqrt(self._square) / length if length > 0 else nan
        return Cancellation(float(value), squares.size, 1 - 1 / sqrt(max(squares.size, 1)))

    @cached_property
    def zero_up_to_rounding(self) -> bool:
        """Whether ‖G‖ ≤ 16·eps·Σ‖g_u‖: the uses cancel, and what is left is rounding. Shares are undefined then."""
        length = sum(float(np.sqrt(call.squared()).sum()) for call in self.calls)
        return sqrt(self._square) <= 16 * resolution(self._gradient) * length

    @property
    def undefined(self) -> str:
        """Why shares and coherence are undefined: "zero up to rounding"; empty where they are defined."""
        return ZERO if self.zero_up_to_rounding else ""

    @cached_property
    def _square(self) -> float:
        """‖G‖²."""
        row = self._gradient.reshape(-1)
        return float(kernels.of(row).row_dots(row, row))

    def _squares(self, calls: Sequence[Uses], names: Sequence[str]) -> Array:
        return np.maximum(group_squares(calls, names), 0).reshape(calls[0].lengths(names))

    def _all_squares(self, by: By | None) -> Array:
        """‖S_k‖² of all partial sums in one row."""
        if by is None:
            return np.concatenate([call.squared().reshape(-1) for call in self.calls])
        names, groups, _ = self._by(by)
        return np.concatenate([self._squares(calls, names).reshape(-1) for calls in groups])

    def _projected(self, call: Uses) -> Array:
        return call.projected(matching(call.view.uncast.apply(self._gradient), call.factor))

    # ---- single uses and elements

    def contribution(self, call: int = 0, **use: int | Sequence[int]) -> Array:
        """The contribution of one use of one call, in the weight's shape."""
        return self.calls[self._call(call)].contribution(**use)

    def factors(self, call: int = 0, **use: int | Sequence[int]) -> tuple[Array, ...]:
        """The factors of one use of one call."""
        return self.calls[self._call(call)].factors(**use)

    def products(self, *element: int) -> Terms:
        """What one element of the gradient is the sum of: the factors of every use in every call, and their products.

        With several calls, a factor's array holds those of all calls one after the other, flat.
        """
        flat = self.calls[0].element(element)
        return parts.joined([call.terms_at(flat) for call in self.calls])

    def entry(self, *element: int) -> SharedWeight:
        """The same questions about one element of the weight."""
        flat = self.calls[0].element(element)
        weight = parts.PartOfWeight(self.weight, element)
        return SharedWeight([parts.element_of(call, flat, weight) for call in self.calls])

    def filter(self, index: int) -> SharedWeight:
        """The same questions about one index of the weight's first axis: a filter, an output, a row of a table."""
        if not self.shape or not isinstance(index, int | np.integer) or not -self.shape[0] <= index < self.shape[0]:
            raise ConfigError(f"uses of {self.name}", f"no index {index!r} on the first axis of shape {self.shape}")
        index = int(index) % self.shape[0]
        weight = parts.PartOfWeight(self.weight, (index,))
        return SharedWeight([parts.first_axis_of(call, index, weight) for call in self.calls])

    def top(self, n: int = 10, by: By | None = None, key: str = "share", sign: int = 1) -> list[Part]:
        """The n largest parts of the gradient.

        Args:
            n: How many, if there are as many.
            by: What is kept apart; every single use of every call, if nothing is given.
            key: "share" or "norm".
            sign: 1 for the largest values first, −1 for the smallest (the most negative shares), 0 for the largest
                absolute values.

        Raises:
            ConfigError: An argument makes no sense, or shares are undefined because G is zero up to rounding.
        """
        if key not in ("share", "norm") or sign not in (-1, 0, 1):
            got = f"key={key!r}, sign={sign!r}"
            raise ConfigError("top", f"expected key='share' or 'norm' and sign=1, 0 or -1, got {got}")
        if not isinstance(n, int | np.integer) or n < 0:
            raise ConfigError("top", f"expected how many parts, got {n!r}", "top(10)")
        if key == "share" and self.zero_up_to_rounding:
            raise ConfigError(f"uses of {self.name}", f"shares are undefined: the gradient is {ZERO}", "use key='norm'")
        chosen = ("call", *self.calls[0].axes) if by is None else by
        names, _, apart = self._by(chosen)
        found = self.share(chosen) if key == "share" else self.norm(chosen)
        flat = np.concatenate([np.asarray(a).reshape(-1) for a in found]) if apart else np.asarray(found).reshape(-1)
        order = np.argsort(-(np.abs(flat) if sign == 0 else sign * flat), kind="stable")[:n]
        return [self._part(int(i), names, apart, float(flat[i])) for i in order]

    def _part(self, number: int, names: Sequence[str], apart: bool, value: float) -> Part:
        """The part with this number among all, calls one after the other."""
        call = 0
        while apart and number >= (size := prod(self.calls[call].lengths(names))):
            number, call = number - size, call + 1
        uses = self.calls[call]
        index = iter(int(i) for i in np.unravel_index(number, uses.lengths(names)))
        use = {name: tuple(next(index) for _ in uses.axes[name]) for name in names}
        return Part(call if apart else None, use, value)

    def plot(
        self,
        by: str | None = None,
        samples: int | Sequence[int] = 6,
        *,
        images: Any = None,
        labels: Sequence[Any] | None = None,
    ) -> Figure:
        """Draw shares in the gradient, red where they go with it, blue where they go against it.

        An axis of rank 2 is drawn as a map for each sample, all on one symmetrical scale; one of rank 1 (time steps,
        tokens) as curves; "call" and "sample" as bars. Of one filter: ``weight.filter(i).plot()``.

        Args:
            by: The axis; if not given, the first that tells no samples apart, else "call", else "sample".
            samples: How many samples, of those with the largest shares of either sign; or which; 0 for all together.
            images: The input images (N, C, H, W) or (N, H, W) to lay the maps over.
            labels: What each sample is, for the titles (N,).

        Returns:
            A matplotlib figure; ``.savefig(path)`` writes it.

        Raises:
            ConfigError: An argument makes no sense, or shares are undefined because G is zero up to rounding.
            MissingDependencyError: matplotlib is not installed.
        """
        from sharedgrad.uses.plot import draw

        return draw(self, by, samples, images, labels)

    # ---- what is asked, and how it is answered

    def _call(self, call: int) -> int:
        if not isinstance(call, int | np.integer) or not 0 <= call < len(self.calls):
            raise ConfigError(f"uses of {self.name}", f"expected call=0 to {len(self.calls) - 1}, got call={call!r}")
        return int(call)

    def _by(self, by: By, same: bool = False) -> tuple[tuple[str, ...], list[Sequence[Uses]], bool]:
        """The axes to keep apart, in the first call's order; calls that are added; whether they are kept apart."""
        if not isinstance(by, str | Iterable):
            raise ConfigError(f"uses of {self.name}", f"expected names of axes, got {by!r}", 'e.g. by="sample"')
        asked = (by,) if isinstance(by, str) else tuple(by)
        names = self.calls[0].ordered([name for name in asked if name != "call"])
        for number, call in enumerate(self.calls):
            for name in names:
                if name not in call.axes:
                    known = ", ".join(["call", *self.axes])
                    problem = f"call {number} ({call.described()}) has no axis {name!r}"
                    raise ConfigError(f"uses of {self.name}", problem, f"choose from {known}")
                if call.axes[name] != self.calls[0].axes[name] and (same or "call" not in asked):
                    lengths = " and ".join(text(c.axes[name]) for c in (self.calls[0], call))
                    fix = "" if same else "keep the calls apart too: by=('call', …)"
                    raise ConfigError(f"uses of {self.name}", f"axis {name!r} differs between calls: {lengths}", fix)
        apart = "call" in asked
        return names, [[call] for call in self.calls] if apart else [self.calls], apart

    def _answer(self, found: list[Any], apart: bool) -> Any:
        """One array; or one for all calls where they have one shape, else a list of them."""
        if not apart:
            return self._give(found[0])
        if len({tuple(a.shape) for a in found}) > 1:
            return [self._give(a) for a in found]
        return self._give(stacked(found))

    def _give(self, array: Any) -> Any:
        factors = [getattr(call, name) for call in self.calls for name in call.arrays]
        own = not any(isinstance(f, np.ndarray) and np.may_share_memory(array, f) for f in factors)
        return given(array, self._like, own)

    def __repr__(self) -> str:
        calls = "" if len(self.calls) == 1 else f"{len(self.calls)} calls, "
        described = " + ".join(call.described() for call in self.calls)
        return f"SharedWeight({self.name} {text(self.shape)}: {calls}{described})"

    def __str__(self) -> str:
        """The sum written out, where it is short enough to read."""
        return written.terms(self) if 0 < self.count * prod(self.shape) <= written.MOST else repr(self)
