"""ONNX Runtime with the same nets: our networks written as ONNX graphs. Imported only where it is wanted."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

import sharedgrad as sg
from benchmarks import nets
from benchmarks.timing import Call

OPSET = 17
FLOAT = onnx.TensorProto.FLOAT


def window(layer: Any) -> dict[str, list[int]]:
    """A window's attributes; padding is all that comes before, then all that comes after."""
    g = layer.geometry
    before, after = zip(*g.padding, strict=True)
    return {"kernel_shape": [*g.kernel], "strides": [*g.stride], "dilations": [*g.dilation], "pads": [*before, *after]}


# a layer's operator, its attributes; parameters are inputs in the layer's own order
OPERATORS: dict[type[sg.Layer], Callable[[Any], tuple[str, dict[str, Any]]]] = {
    sg.Conv2d: lambda layer: ("Conv", {**window(layer), "group": layer.groups}),
    sg.MaxPool2d: lambda layer: ("MaxPool", window(layer)),
    sg.Linear: lambda layer: ("Gemm", {"transB": 1}),
    sg.ReLU: lambda layer: ("Relu", {}),
    sg.Sigmoid: lambda layer: ("Sigmoid", {}),
    sg.Flatten: lambda layer: ("Flatten", {}),
}


def model(net: sg.Network, batch: int) -> onnx.ModelProto:
    """The network for one batch size, checked by ``onnx``."""
    operations, weights = [], []
    for node in net:
        operator, attributes = OPERATORS[type(node.layer)](node.layer)
        parameters = {f"{node.name}.{name}": p.value for name, p in node.layer.parameters().items()}
        weights += [numpy_helper.from_array(np.array(value), name) for name, value in parameters.items()]
        operations.append(helper.make_node(operator, [*node.inputs, *parameters], [node.name], **attributes))
    ((name, shape),) = net.inputs.items()
    ends = (
        [helper.make_tensor_value_info(name, FLOAT, [batch, *shape])],
        [helper.make_tensor_value_info(operations[-1].output[0], FLOAT, [batch, weights[-1].dims[0]])],
    )
    graph = helper.make_graph(operations, "net", *ends, weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made


def inference(name: str, batch: int, threads: int) -> Call:
    """A call that gives the scores of a batch, on so many threads, which spin as ONNX Runtime likes it.

    Raises:
        ValueError: It gives other scores than sharedgrad.
    """
    net, (x, _) = nets.build(name), nets.data(name, batch)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model(net, batch).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    run = partial(session.run, None, {session.get_inputs()[0].name: x})
    if not np.allclose(run()[0], net.predict(x), rtol=1e-4, atol=1e-4):
        raise ValueError(f"{name} gives other scores in ONNX Runtime than in sharedgrad")
    return run
