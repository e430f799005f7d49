"""Networks: directed acyclic graphs of named layers, run forward onto a tape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from sharedgrad import configuration, kernels, names
from sharedgrad.compilation import Compilation, compilation
from sharedgrad.errors import ConfigError, ShapeError
from sharedgrad.geometry import text, whole
from sharedgrad.graph import InputShape, Layers, Node, index_inputs, input_shapes, read_nodes
from sharedgrad.inputs import explained, no_samples, refuse_channels_last
from sharedgrad.layers.context import Context
from sharedgrad.layers.layer import Layer, Shape
from sharedgrad.parameter import Array, Buffer, Parameter, Parameters, Revision, Weight, first_names, indices, numbers
from sharedgrad.replay import Pass, run
from sharedgrad.tape import Structure, Tape
from sharedgrad.view import View

if TYPE_CHECKING:
    from sharedgrad.plan import Recording
    from sharedgrad.plan.route import Route

_ROUTES = 8  # compiled ways that a network keeps, one for each number of samples, mode and the like

_REVISION, _SHAPE = attrgetter("layer.revision"), attrgetter("shape")

_ELSEWHERE = {
    "fit": "sg.fit(net, (x, y), epochs=10) trains it",
    "compile": "sg.fit(net, (x, y), loss=…, optimizer=…) takes what is compiled elsewhere",
    "evaluate": "sg.evaluate(net, x, y)",
    "summary": "print(sg.summarize(net))",
    "save": 'sg.save(net, "net.safetensors")',
    "load": 'net = sg.load("net.safetensors")',
    "backward": "y, tape = net.forward(x), then tape.backward(upstream)",
    "zero_grad": "gradients are values, nothing has to be reset",
    "train": "net.forward(x) is in training mode; sg.fit(net, (x, y)) trains it",
    "eval": "net.predict(x) is in evaluation mode",
    "layers": "[node.layer for node in net], or net[name]",
}


class Network:
    """A graph of layers.

    Args:
        layers: A list of layers, each reading the one before (named "0", "1", … as in ``nn.Sequential``, or by
            pairs ``(name, layer)``); or for any graph a mapping ``name -> layer`` (reads the entry before) or
            ``name -> (layer, *names that it reads)``. The same layer or Parameter may stand in several places:
            then it is shared.
        input_shape: Shape of one sample, without the sample axis; or name -> shape (or None, where unknown) for
            several inputs. With it, shapes are checked at once and a single sample may be passed without a
            sample axis. The one input is called "input".
        outputs: The name or names of the output nodes; the last layer if None.
        seed: Seeds the first weights and all randomness in forward passes.
        dtype: "float32" or "float64": what everything inside is computed in.

    Raises:
        ConfigError: Names are missing, double or circular.
        ShapeError: A layer does not fit to the one before; says which, what it expected and what came.
    """

    def __init__(
        self,
        layers: Layers,
        input_shape: InputShape = None,
        outputs: str | Sequence[str] | None = None,
        seed: int = 0,
        dtype: str | type | np.dtype[Any] = "float32",
    ) -> None:
        self.dtype = _float_type(dtype)
        self.seed, self.step = whole(seed, "seed", 0), 0
        self.inputs = input_shapes(input_shape)
        self.nodes, last = read_nodes(layers, self.inputs)
        self.outputs = [last] if outputs is None else outputs
        self._index_inputs = index_inputs(self.nodes, self.inputs)
        self._adopt_parameters()
        for buffer in self._named_buffers().values():
            buffer.cast(self.dtype)
        if all(shape is not None for shape in self.inputs.values()):
            self.shapes()

    @property
    def outputs(self) -> list[str]:
        """Names of the output nodes. Set anew, they hold from the next forward pass on.

        Raises:
            ConfigError: There is no node of a name, or none is named.
        """
        return list(self._outputs)

    @outputs.setter
    def outputs(self, names: str | Sequence[str]) -> None:
        chosen, known = [names] if isinstance(names, str) else list(names), [node.name for node in self.nodes]
        for name in chosen or [""]:
            if name not in known:
                raise ConfigError("outputs", f"there is no node {name!r}", f"choose from {', '.join(known)}")
        self._outputs = chosen
        self._known: Structure | None = None

    # ---- parameters

    def _adopt_parameters(self) -> None:
        """Name, cast and initialize every parameter; a shared one takes its first name, rather than one of a view."""
        for node in self.nodes:
            if not node.layer.name:
                node.layer.name = node.name
        first = first_names(self._named_parameters())
        drawn = {parameter.drawn_as for parameter in first}  # elsewhere, where layers come from other networks
        for parameter, name in first.items():
            parameter.name = name
            parameter.cast(self.dtype)
            parameter.initialize(self.seed, f"another {name}" if name in drawn else name)

    def _named_parameters(self) -> dict[str, Weight]:
        """All names, aliases included; read from the layers each time, because they may be tied at any time."""
        return {f"{n.name}.{attribute}": p for n in self.nodes for attribute, p in n.layer.parameters().items()}

    def _named_buffers(self) -> dict[str, Buffer]:
        return {f"{n.name}.{attribute}": b for n in self.nodes for attribute, b in n.layer.buffers().items()}

    def parameters(self) -> Parameters:
        """Each parameter once, however often it is shared: a list, which knows the names that they have here."""
        named = self._named_parameters()
        first = first_names(named)
        return Parameters({weight.base: first[weight.base] for weight in named.values()})

    def parameter(self, name: str) -> Weight:
        """The parameter of that name, e.g. ``"0.weight"``; a view where one is tied."""
        named = self._named_parameters()
        if name not in named:
            raise ConfigError("parameter", f"there is no {name!r}", f"choose from {', '.join(named)}")
        return named[name]

    def _items(self) -> dict[str, Weight | Buffer]:
        return {**self._named_parameters(), **self._named_buffers()}

    def aliases(self) -> dict[str, str]:
        """Other names of shared parameters and buffers: alias -> first name.

        A view is said in words behind it: ``{"decoder.weight": "encoder.weight (transposed)"}``.
        """
        return {alias: name if view.identity else f"{name} ({view})" for alias, (name, view) in self.shared().items()}

    def shared(self) -> dict[str, tuple[str, View]]:
        """Alias -> first name, and the view through which the alias shows it."""
        return names.shared(self._items())

    def state_dict(self) -> dict[str, Array]:
        """Every parameter and buffer under every name it has, as PyTorch's ``state_dict`` of the same network.

        Under a view's name stands what the view shows.
        Into PyTorch: ``module.load_state_dict({k: torch.tensor(v) for k, v in net.state_dict().items()})``.
        """
        return {name: np.array(item.value) for name, item in self._items().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over all values from name -> array; PyTorch tensors will do. All or nothing.

        Of the names of a shared parameter one is enough.

        Raises:
            CheckpointError: Names are missing or unknown, a shape differs, or two names of one shared parameter
                carry different values.
        """
        for item, array in names.values(self._items(), state).items():
            if isinstance(item, Parameter):
                item.value = array
            else:
                item.replace(array)

    # ---- shapes

    def shapes(self, *input_shapes: Shape) -> dict[str, Shape]:
        """Every input's and node's shape without the sample axis, from the inputs' shapes (default: declared ones)."""
        given: Sequence[Shape | None] = input_shapes or tuple(self.inputs.values())
        if len(given) != len(self.inputs) or not all(shape is None or isinstance(shape, Iterable) for shape in given):
            problem = f"expected a shape for each of {', '.join(self.inputs)}, got {', '.join(map(str, given))}"
            raise ConfigError("network", problem, "e.g. (channels, height, width)")
        if any(shape is None for shape in given):
            raise ConfigError("network", "its input shape is not known", "pass input_shape=(channels, height, width)")
        shapes: dict[str, Shape] = {
            name: tuple(shape) for name, shape in zip(self.inputs, given, strict=True) if shape is not None
        }
        for node in self.nodes:
            try:
                shapes[node.name] = node.layer.output_shape(*(shapes[source] for source in node.inputs))
            except ShapeError as error:
                fix = error.fix or f"its input comes from {' and '.join(map(repr, node.inputs))}"
                raise ShapeError(error.where, error.problem, fix) from None
            except ConfigError:
                raise
            except ValueError as error:
                if "to unpack" not in str(error):
                    raise ConfigError(node.layer.label, str(error)) from error
                count = f"{len(node.inputs)} input{'s' * (len(node.inputs) > 1)} ({', '.join(node.inputs)})"
                raise ConfigError(node.layer.label, f"got {count}, which it does not take") from None
        return shapes

    def compilation(self, *input_shapes: Shape, samples: int = 64) -> Compilation:
        """What of this network runs as compiled programs, and why the rest does not.

        Args:
            input_shapes: Shape of one sample for each input; by default those that the network declares.
            samples: Size of the batch; it decides in few cases, where maps are very large.

        >>> from sharedgrad import Conv2d, Network, Softmax
        >>> print(Network([Conv2d(1, 2, 3), Softmax()], (1, 5, 5)).compilation().in_python)
        {'1': 'no compiled operation for this layer'}
        """
        return compilation(self.nodes, self.shapes(*input_shapes), whole(samples, "compilation: samples"))

    # ---- forward

    def forward(self, *inputs: ArrayLike, training: bool = True, **named: ArrayLike) -> tuple[Any, Tape]:
        """Run forward and keep what backward needs.

        Args:
            inputs: One array (N, *sample shape) for each input, in order; or by name.
            training: Training mode (dropout drops, batch norm uses and tracks the batch) or evaluation mode.
            named: Inputs by name.

        Returns:
            The output, or name -> output if there are several, and the tape.

        Raises:
            ShapeError: An input does not fit.
        """
        arrays, batched = self.incoming(inputs, named)
        structure, context = self.structure(), Context(training, self.seed, self.step)
        origin = Pass(arrays, training, self.seed, self.step, {b: b.value for b in structure.buffers})
        outputs, done = self._compute(structure, arrays, context, record=True)
        tape = Tape(structure, origin, done, self._shapes_of(structure, arrays), self.dtype, batched)
        if training:
            context.commit()
            self.step += 1
        return self._outgoing(outputs, batched), tape

    def predict(self, *inputs: ArrayLike, batch_size: int = 256, **named: ArrayLike) -> Any:
        """The output in evaluation mode, batch by batch, without a tape."""
        batch_size = whole(batch_size, "predict: batch_size")
        arrays, batched = self.incoming(inputs, named, kept=False)
        structure, samples = self.structure(), len(next(iter(arrays.values())))
        if samples <= batch_size:
            return self._outgoing(self._evaluated(structure, arrays), batched)
        starts = range(0, samples, batch_size)
        chunks = ({name: array[i : i + batch_size] for name, array in arrays.items()} for i in starts)
        parts = [self._evaluated(structure, chunk) for chunk in chunks]
        return self._outgoing({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, batched)

    def _evaluated(self, structure: Structure, arrays: dict[str, Array]) -> dict[str, Array]:
        if kernels.programs() and (plan := self.route(structure, arrays, False, record=False).whole):
            return plan.evaluate(arrays)
        copies = {name: np.array(array) for name, array in arrays.items()}  # layers in Python may write to theirs
        return self._compute(structure, copies, Context(False, self.seed, self.step), record=False)[0]

    def _compute(
        self, structure: Structure, arrays: dict[str, Array], context: Context, record: bool
    ) -> tuple[dict[str, Array], Sequence[Recording | tuple[Node, Any]]]:
        """The outputs, and what going backward needs: compiled as far as that can be."""
        route = self.route(structure, arrays, context.training, record) if kernels.programs() else None
        if route is not None:
            return route.forward(arrays, context)
        self._shapes_of(structure, arrays)
        values, records = run(self.nodes, arrays, context)
        return {name: np.array(values[name]) for name in structure.outputs}, records

    def route(self, structure: Structure, arrays: Mapping[str, Array], training: bool, record: bool) -> Route:
        """The compiled way for arrays of these shapes, worked out when it is first needed."""
        key = (training, record, *map(_SHAPE, arrays.values()))
        route: Route | None = structure.routes.get(key)
        if route is None:
            from sharedgrad.plan.route import Route

            shapes, samples = self._shapes_of(structure, arrays), len(next(iter(arrays.values())))
            route = Route(self.nodes, shapes, structure.outputs, samples, self.dtype, training, record)
            newest = list(structure.routes.items())[1 - _ROUTES :]
            structure.routes = dict([*newest, (key, route)])  # replaced at once: other threads may be reading it
        return route

    def structure(self) -> Structure:
        """What is known of the graph, worked out anew when an attribute of a layer has been set.

        Raises:
            ConfigError: A layer that two networks hold has one type, that of the network which was made last.
        """
        known, latest = self._known, Revision.latest
        if known is not None and known.seen == latest:
            return known
        revisions, dtype = list(map(_REVISION, self.nodes)), self.dtype
        if known is None or known.revisions != revisions:
            known = self._known = Structure(self.nodes, self.outputs, list(self.inputs), revisions)
        for held in known.typed:
            if held.dtype is not dtype and held.dtype != dtype:
                problem = f"is {held.dtype} now, this network {dtype}: another network of that type holds it too"
                raise ConfigError(held.name, problem, "give that one a copy of the layer (copy.deepcopy)")
        known.seen = latest
        return known

    def _shapes_of(self, structure: Structure, arrays: Mapping[str, Array]) -> dict[str, Shape]:
        """Every input's and node's shape without the sample axis, checked once for each set of inputs' shapes."""
        given = tuple([array.shape[1:] for array in arrays.values()])
        known = structure.shapes.get(given)
        if known is None:
            for name in self.inputs:
                refuse_channels_last(name, self.inputs[name], arrays[name].shape)
            try:
                found = self.shapes(*given)
            except ShapeError as error:
                arrived = {name: array.shape for name, array in arrays.items()}
                raise explained(error, self.inputs, arrived, self.shapes) from None
            structure.shapes = {given: found, **dict(list(structure.shapes.items())[: _ROUTES - 1])}
            return found
        return known

    def incoming(
        self, inputs: Sequence[ArrayLike], named: Mapping[str, ArrayLike], kept: bool = True
    ) -> tuple[dict[str, Array], bool]:
        """The inputs as arrays (N, *shape) of the network's type, and whether they had the sample axis.

        Args:
            inputs: In order.
            named: The others.
            kept: Whether they outlive the call: then they are copied, so that later changes have no effect.

        Raises:
            ConfigError: Inputs are missing, or too many.
            ShapeError: Something is no array of numbers, or their numbers of samples differ.
        """
        if named or len(inputs) != len(self.inputs):
            inputs = self._in_order(inputs, named)
        arrays: dict[str, Array] = {}
        single = True
        for (name, shape), value in zip(self.inputs.items(), inputs, strict=True):
            array = arrays[name] = self._incoming(name, value, kept)
            single = single and array.shape == shape
        if single:
            arrays = {name: array[None] for name, array in arrays.items()}
        if len(arrays) > 1 and len({array.shape[:1] for array in arrays.values()}) != 1:
            got = ", ".join(f"{name} {text(array.shape)}" for name, array in arrays.items())
            raise ShapeError("network inputs", f"expected the same number of samples everywhere, got {got}")
        return arrays, not single

    def _in_order(self, inputs: Sequence[ArrayLike], named: Mapping[str, ArrayLike]) -> list[ArrayLike]:
        given = {**dict(zip(self.inputs, inputs, strict=False)), **named}
        if given.keys() != self.inputs.keys() or len(inputs) + len(named) != len(given):
            got = f"{len(inputs)} in order" + (f" and {', '.join(sorted(named))} by name" if named else "")
            problem = f"expected an array for each of {', '.join(self.inputs)}, got {got}"
            raise ConfigError("network inputs", problem, "pass each once, in order or by its name")
        return [given[name] for name in self.inputs]

    def _incoming(self, name: str, value: ArrayLike, kept: bool) -> Array:
        as_indices = name in self._index_inputs
        if not kept and not as_indices and type(value) is np.ndarray and value.dtype == self.dtype:
            flags = value.flags
            if flags.c_contiguous and flags.aligned and value.size and value.ndim:
                return value
        where = f"network input {name!r}"
        array = indices(value, where) if as_indices else numbers(value, self.dtype, where, kernels.empty)
        if array.ndim == 0 or array.shape[0] == 0:
            raise no_samples(where, self.inputs[name], array.shape)
        return array

    def _outgoing(self, values: Mapping[str, Array], batched: bool) -> Any:
        """The outputs, without the sample axis where the inputs had none."""
        if not batched:
            values = {name: array[0] for name, array in values.items()}
        if len(self._outputs) == 1:
            return values[self._outputs[0]]
        return {name: values[name] for name in self._outputs}

    def __call__(self, *inputs: ArrayLike, **named: ArrayLike) -> NoReturn:
        """A network is no function: with a tape or without one is for the caller to say.

        Raises:
            ConfigError: Always; says which methods there are.
        """
        raise ConfigError("network", "cannot be called", "y = net.predict(x), or y, tape = net.forward(x)")

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Only what does not exist: say what other libraries' names for it are called here."""
            hint = f": {_ELSEWHERE[name]}" if name in _ELSEWHERE else ""
            raise AttributeError(f"a Network has no attribute {name!r}{hint}")

    def __getstate__(self) -> dict[str, Any]:
        """For pickling and copying: compiled ways are worked out again."""
        return {**vars(self), "_known": None}

    # ---- configuration

    def to_config(self) -> dict[str, Any]:
        """The network's structure as plain data for JSON; see ``configuration``."""
        return configuration.to_config(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Network:
        """The network that a configuration describes; its first weights follow the configuration's seed."""
        return cls(**configuration.arguments(config))

    def __getitem__(self, name: str | int) -> Layer:
        """The layer at a node."""
        for node in self.nodes:
            if node.name == str(name):
                return node.layer
        raise KeyError(f"no node {name!r}; there are {', '.join(node.name for node in self.nodes)}")

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __repr__(self) -> str:
        rows = "\n".join(f"  {node.name}: {node.layer!r} <- {', '.join(node.inputs)}" for node in self.nodes)
        return f"Network({self.dtype}\n{rows}\n)"


def _float_type(dtype: str | type | np.dtype[Any]) -> np.dtype[Any]:
    try:
        kind = np.dtype(dtype)
    except TypeError:
        kind = np.dtype(object)
    if kind not in (np.float32, np.float64):
        raise ConfigError("dtype", f"expected float32 or float64, got {dtype!r}")
    return kind
