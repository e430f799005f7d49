"""The operations whose uses of a parameter are known, by the name that PyTorch calls them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sharedgrad.tracing import elementwise, normalizations, products, recurrent, windows
from sharedgrad.tracing.joint import Joint
from sharedgrad.tracing.site import Site, Use

Rule = Callable[[Site], list[Use] | None]  # None: not in this form

OPERATIONS: Mapping[str, Rule] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), windows.convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), windows.transposed),
    "linear": products.linear,
    **dict.fromkeys(("matmul", "__matmul__", "__rmatmul__", "mm", "mv"), products.matmul),
    "addmm": products.addmm,
    "embedding": products.embedding,
    "layer_norm": normalizations.layer,
    "rms_norm": normalizations.root_mean_square,
    "group_norm": normalizations.group,
    "batch_norm": normalizations.batch,
    "instance_norm": normalizations.instance,
    **dict.fromkeys(("add", "__radd__", "add_", "__iadd__"), elementwise.added),
    **dict.fromkeys(("sub", "sub_", "__isub__"), elementwise.subtracted),
    **dict.fromkeys(("mul", "__rmul__"), elementwise.multiplied),
    **dict.fromkeys(("div", "true_divide"), elementwise.divided),
    **dict.fromkeys(("expand", "expand_as"), elementwise.expanded),
    "repeat": elementwise.repeated,
}

# Operations with several outputs, whose uses need the gradients at all of them.
JOINT: Mapping[str, Callable[[Site], Joint]] = {
    **dict.fromkeys(recurrent.MODULES, recurrent.module),
    **dict.fromkeys(recurrent.CELLS, recurrent.cell),
}
