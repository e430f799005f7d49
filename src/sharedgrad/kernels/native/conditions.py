"""What must hold of an operation's maps and numbers: the vocabulary of the table in ``operations.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sharedgrad.kernels.native import _native
from sharedgrad.kernels.native.maps import Map
from sharedgrad.kernels.native.windows import Window


class Operands:
    """The maps and numbers of one operation, by name.

    Args:
        itemsize: Bytes of a number.
        maps: Those that are there.
        numbers: The operation's own, but those of a window.
        window: All zeros where there is none.

    Attributes:
        vector: How many numbers a vector holds.
    """

    def __init__(self, itemsize: int, maps: dict[str, Map], numbers: dict[str, int], window: Window) -> None:
        self.itemsize, self.maps, self.numbers, self.window = itemsize, maps, numbers, window
        self.vector: int = _native.lanes(itemsize)

    def __getitem__(self, name: str) -> Map:
        return self.maps[name]

    def there(self, *names: str) -> list[Map]:
        """Those of these maps that are not missing."""
        return [self.maps[name] for name in names if name in self.maps]


Test = Callable[[Operands], bool]
Count = Callable[[Operands], int]


class Condition(NamedTuple):
    """What must hold, and what to say where it does not."""

    otherwise: str
    holds: Test


def where(otherwise: str) -> Callable[[Test], Condition]:
    """Makes a test a condition."""
    return lambda test: Condition(otherwise, test)


def _listed(*names: str) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


# ---- maps that belong together


def same_channels(a: Map, b: Map) -> bool:
    """Whether they hold the same channels of the same samples in the same order, of other cells perhaps."""
    order = a.lanes == b.lanes and a.by_channel == b.by_channel
    return order and a.samples == b.samples and a.channels == b.channels


def is_cell(m: Map) -> bool:
    """Whether it is (N, C), samples side by side."""
    return m.bare and m.height * m.width == 1 and not m.by_channel


def is_vector(m: Map) -> bool:
    """Whether it is a plain array (N, C)."""
    return m.plain and is_cell(m)


def alike(first: str, *others: str) -> Condition:
    """Cell by cell and lane by lane these belong together, if they are there; their margins may differ."""

    @where(f"{_listed(first, *others)} are not alike")
    def holds(o: Operands) -> bool:
        m = o[first]
        return all(same_channels(m, other) and m.shape == other.shape for other in o.there(*others))

    return holds


def vectors(a: str, b: str) -> Condition:
    """Plain vectors of as many samples."""

    @where(f"{a} and {b} are not vectors of as many samples")
    def holds(o: Operands) -> bool:
        return is_vector(o[a]) and is_vector(o[b]) and o[a].samples == o[b].samples

    return holds


def vector_of(vector: str, name: str) -> Condition:
    """A plain vector (N, C) beside a map of C channels."""

    @where(f"{vector} is no vector of {name}'s channels")
    def holds(o: Operands) -> bool:
        v, m = o[vector], o[name]
        return is_vector(v) and (v.samples, v.channels) == (m.samples, m.channels)

    return holds


def vector(name: str) -> Condition:
    """Plain vectors."""
    return Condition(f"{name} is no vector", lambda o: is_vector(o[name]))


def in_blocks(name: str) -> Condition:
    """A map in blocks."""
    return Condition(f"{name} does not lie in blocks", lambda o: not o[name].plain)


def by_samples(name: str) -> Condition:
    """A map in blocks whose lanes are samples."""
    return Condition(f"{name}'s lanes are no samples", lambda o: not o[name].plain and not o[name].by_channel)


def factors(name: str, of: str) -> Condition:
    """A factor for each sample of a map, and for those that fill up its last lanes."""

    @where(f"{name} are not a factor for each sample of {of}")
    def holds(o: Operands) -> bool:
        m = o[of]
        return is_vector(o[name]) and not m.by_channel and o[name].size >= m.padded_samples

    return holds


# ---- how many numbers


def channels(name: str) -> Count:
    """As many as a map has channels."""
    return lambda o: o[name].channels


def samples(name: str) -> Count:
    """As many as a map has samples."""
    return lambda o: o[name].samples


def product(y: str, x: str) -> Count:
    """A dense layer's weight (O, I)."""
    return lambda o: o[y].channels * o[x].channels


def kernel(small: str, big: str) -> Count:
    """A convolution's (F, C/groups, *K)."""
    return lambda o: o.window.kernel_size(o[small], o[big])


def per_sample(count: Count, name: str) -> Count:
    """As many, for each of a map's samples if the number ``by_sample`` says so."""
    return lambda o: count(o) * (o[name].samples if o.numbers["by_sample"] else 1)


def doubles(count: Count) -> Count:
    """As many in float64, in memory of the program's type."""
    return lambda o: count(o) * (8 // o.itemsize)


def holds(names: str, count: Count) -> Condition:
    """Each of these maps is missing, or a plain row of so many numbers."""
    those = names.split()

    @where(f"{_listed(*those)} should have another size")
    def fits(o: Operands) -> bool:
        return all(m.bare and m.size == count(o) for m in o.there(*those))

    return fits


def shapes(**maps: str) -> Condition:
    """Plain arrays (N, C, H, W), if they are there; a letter stands for the same size wherever it stands."""

    @where(f"{_listed(*maps)} have other shapes")
    def fits(o: Operands) -> bool:
        sizes: dict[str, int] = {}
        for name, m in o.maps.items():
            for letter, size in zip(maps.get(name, "").split(), (m.samples, *m.shape), strict=False):
                expected = int(letter) if letter.isdecimal() else sizes.setdefault(letter, size)
                if size != expected or not m.plain:
                    return False
        return True

    return fits


def settings(count: int, at: str = "at") -> Condition:
    """So many numbers in float64 among the settings, from where the number ``at`` says."""

    @where(f"there are no {count} settings from {at} on")
    def fits(o: Operands) -> bool:
        m, first = o["settings"], o.numbers[at]
        return m.plain and first >= 0 and (first + count) * 8 <= m.size * o.itemsize

    return fits


def gradients(dw: str, db: str, count: Count, of: str) -> tuple[Condition, ...]:
    """A weight's gradient and its bias's, perhaps by sample."""
    some = Condition(f"{dw} is the gradient of nothing", lambda o: count(o) > 0)
    return some, holds(dw, per_sample(count, of)), holds(db, per_sample(channels(of), of))


# ---- windows


def slides(small: str, big: str) -> Condition:
    """Windows over ``big`` give ``small``, and reach no further than big's margins."""
    return Condition(_windows(small, big), lambda o: o.window.slides(o[small], o[big]))


def convolves(small: str, big: str) -> Condition:
    """The same for convolutions; those of plain arrays have no ReLU behind them."""

    def holds(o: Operands) -> bool:
        return o.window.convolves(o[small], o[big]) and not (o[big].plain and o.numbers.get("relu"))

    return Condition(_windows(small, big), holds)


def slides_back(dx: str, dy: str) -> Condition:
    """Windows over dx have given dy, whose margins are as wide as the way back reads; plain arrays are gone back to
    alone: nothing is added to, and no ReLU is behind them."""

    def holds(o: Operands) -> bool:
        alone = not o.numbers["add"] and "relu_output" not in o.maps
        return o.window.slides_back(o[dx], o[dy]) and (alone or not o[dx].plain)

    return Condition(_windows(dx, dy), holds)


def pools(small: str, big: str) -> Condition:
    """Channel by channel; a window may reach beyond the map: what is not there is left out."""

    @where(_windows(small, big))
    def fits(o: Operands) -> bool:
        return same_channels(o[small], o[big]) and o.window.slides(o[small], o[big], margins_made=True)

    return fits


def in_halves(small: str, big: str) -> Condition:
    """``small`` has one cell for each window of 2×2 cells of ``big``."""

    @where(f"{small} has another cell than one for each 2×2 of {big}")
    def fits(o: Operands) -> bool:
        a, b = o[small], o[big]
        return same_channels(a, b) and (a.height, a.width) == (b.height // 2, b.width // 2)

    return fits


def slides_pooled(small: str, big: str) -> tuple[Condition, ...]:
    """Windows over ``big`` give the cells that are pooled to ``small``, whose lanes all are samples."""

    @where(_windows(small, big))
    def fits(o: Operands) -> bool:
        m = o[small]
        return o.window.slides(Map(m.samples, m.lanes, m.channels, 2 * m.height, 2 * m.width), o[big])

    return by_samples(small), fits


def _windows(*names: str) -> str:
    return f"the windows do not fit {_listed(*names)}"
