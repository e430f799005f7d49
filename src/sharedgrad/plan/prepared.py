"""Kernels of convolutions in the order in which passes read them, for passes that see the same weights again."""

from __future__ import annotations

from math import prod
from weakref import WeakKeyDictionary

from sharedgrad.geometry import Geometry
from sharedgrad.kernels.native import program as ops
from sharedgrad.kernels.native.maps import Map
from sharedgrad.kernels.native.program import Builder
from sharedgrad.kernels.native.recycled import empty
from sharedgrad.parameter import Array, Parameter

_Key = tuple[str, int, tuple[int, ...]]  # type, lanes, numbers of the operation
_known: WeakKeyDictionary[Parameter, dict[_Key, Prepared]] = WeakKeyDictionary()


class Prepared:
    """One kernel (F, C, *K), prepared for outputs of so many cells; made again when the parameter has another value.

    Args:
        builder: As for the program that reads it.
        y: Its outputs.
        geometry: How the kernel slides.
        shape: The kernel's.
    """

    def __init__(self, builder: Builder, y: Map, geometry: Geometry, shape: tuple[int, ...]) -> None:
        own = Builder(1, builder.dtype)
        self.size = ops.prepared_size(builder, shape, geometry)
        maps = own.array(self.size), own.array(prod(shape))
        own.emit("prepare_kernel", maps, *ops.window(geometry), *shape[:2], y.height, y.width)
        self._program = own.build()
        self._made: tuple[int, Array] | None = None  # from which version of the parameter

    @classmethod
    def of(cls, weight: Parameter, builder: Builder, y: Map, geometry: Geometry) -> Prepared:
        """The one for this weight, which programs for other numbers of samples share."""
        key = builder.dtype.char, builder.lanes, (y.height, y.width, *ops.window(geometry))
        mine = _known.setdefault(weight, {})
        if key not in mine:
            mine[key] = cls(builder, y, geometry, weight.shape)
        return mine[key]

    def of_value(self, weight: Parameter) -> Array:
        """Prepared numbers that belong to the parameter's value now; nobody writes over them."""
        made = self._made
        if made is None or made[0] != weight.version:
            version, value = weight.version, weight.value
            to = empty((self.size,), value.dtype)
            self._program.run(None, [to, value])
            self._made = made = version, to
        return made[1]
