"""Every layer's tables of terms: they add up to what backward and forward compute, over randomly drawn settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad import kernels
from sharedgrad.errors import ConfigError, ShapeError
from sharedgrad.layers import terms as tables
from sharedgrad.uses import limits
from sharedgrad.uses.terms import ABSENT, PADDING, Terms
from tests.helpers import Array, close, frozen, sliding
from tests.layers.settings import CALLS, LAYERS, Setting, all_settings, setting

ALL = list(all_settings())
CHAINS = [(name, seed) for name, seed in ALL if setting(name, seed).chains]
NOT_LINEAR = {"Sigmoid", "Tanh", "ReLU", "Softmax", "RNN", "BatchNorm2d", "Dropout"}
LINEAR = [(name, seed) for name, seed in ALL if name not in NOT_LINEAR]


def by_hand(terms: Terms) -> Array:
    """The total in a plain loop: one row, one product, one addition."""
    total = [0.0] * int(np.prod(terms.shape))
    rows = [terms.cell.tolist(), ([1.0] * len(terms) if terms.coefficient is None else terms.coefficient.tolist())]
    read = [(f.array.reshape(-1).tolist(), f.index.tolist()) for f in terms.factors.values()]
    for m, (cell, value) in enumerate(zip(*rows, strict=True)):
        for numbers, index in read:
            value *= {PADDING: 0.0, ABSENT: 1.0}.get(index[m]) if index[m] < 0 else numbers[index[m]]
        total[cell] += value
    return np.array(total).reshape(terms.shape)


def drawn(case: Setting, seed: int, dtype: type = np.float64) -> tuple[list[Array], Array]:
    rng = np.random.default_rng(seed)
    inputs = [frozen(case.draw(rng, shape), dtype) for shape in case.shapes]
    return inputs, frozen(rng.normal(size=case.output), dtype)


def passed(case: Setting, inputs: list[Array], upstream: Array, node: str = CALLS[0]) -> tuple[Array, Any, list[Array]]:
    """Output, what forward saved, and backward's input gradients."""
    y, saved = case.layer.forward(*inputs, context=sg.Context(case.training).enter(node))
    gradients, _ = case.layer.backward(saved, upstream, [True] * len(inputs))
    return y, saved, [g for g in gradients if g is not None]


def rows_as_tuples(terms: Terms) -> list[tuple[float, ...]]:
    """Each row with all it says."""
    columns = [terms.cell, *(f.index for f in terms.factors.values()), terms.values]
    return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("name", "seed"), ALL)
def test_the_terms_of_dx_add_up_to_it(name: str, seed: int, dtype: type) -> None:
    case = setting(name, seed).to(dtype)
    inputs, upstream = drawn(case, seed, dtype)
    _, saved, gradients = passed(case, inputs, upstream)
    assert len(gradients) == len(inputs)
    for which, dx in enumerate(gradients):
        terms = case.layer.input_terms(saved, upstream, which)
        assert (terms.target, terms.shape, terms.values.dtype) == ("dx", inputs[which].shape, dtype)
        close(terms.total(), dx)
        close(by_hand(terms).astype(dtype), dx)


@pytest.mark.parametrize(("name", "seed"), ALL)
def test_the_terms_of_dx_add_up_to_the_references(name: str, seed: int) -> None:
    case = setting(name, seed)
    inputs, upstream = drawn(case, seed)
    with kernels.use("reference"):
        _, saved, gradients = passed(case, inputs, upstream)
        for which, dx in enumerate(gradients):
            close(by_hand(case.layer.input_terms(saved, upstream, which)), dx)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("name", "seed"), LINEAR)
def test_the_terms_of_an_output_add_up_to_it(name: str, seed: int, dtype: type) -> None:
    case = setting(name, seed).to(dtype)
    inputs, upstream = drawn(case, seed, dtype)
    terms = case.layer.output_terms(*inputs)
    y, _, _ = passed(case, inputs, upstream)
    assert (terms.target, terms.shape, terms.values.dtype) == ("y", y.shape, dtype)
    close(terms.total(), y)
    with kernels.use("reference"):
        close(by_hand(case.layer.output_terms(*inputs)).astype(dtype), passed(case, inputs, upstream)[0])


@pytest.mark.parametrize(("name", "seed"), ALL)
def test_some_cells_have_the_rows_of_the_whole_table(name: str, seed: int) -> None:
    case = setting(name, seed)
    inputs, upstream = drawn(case, seed)
    _, saved, gradients = passed(case, inputs, upstream)
    rng = np.random.default_rng(seed)
    for which, dx in enumerate(gradients):
        whole = case.layer.input_terms(saved, upstream, which)
        for cells in _subsets(rng, dx.size):
            some = case.layer.input_terms(saved, upstream, which, cells=cells)
            assert rows_as_tuples(some) == rows_as_tuples(whole.rows(np.isin(whole.cell, cells)))
            assert some.shape == whole.shape
    if name not in NOT_LINEAR:
        whole = case.layer.output_terms(*inputs)
        for cells in _subsets(rng, upstream.size):
            some = case.layer.output_terms(*inputs, cells=cells)
            assert rows_as_tuples(some) == rows_as_tuples(whole.rows(np.isin(whole.cell, cells)))


def _subsets(rng: np.random.Generator, size: int) -> list[Any]:
    """One cell, some cells in any order and more than once, none."""
    return [[int(rng.integers(size))], rng.integers(0, size, 5), []]


@pytest.mark.parametrize(("name", "seed"), CHAINS)
def test_a_layer_used_twice_gives_the_terms_of_each_call(name: str, seed: int) -> None:
    case = setting(name, seed)
    inputs, upstream = drawn(case, seed)
    contexts = [sg.Context(case.training).enter(node) for node in CALLS]
    middle, first = case.layer.forward(*inputs, context=contexts[0])
    _, second = case.layer.forward(middle, context=contexts[1])
    (between,), _ = case.layer.backward(second, upstream, [True])
    assert between is not None
    (dx,), _ = case.layer.backward(first, between, [True])
    assert dx is not None
    later = case.layer.input_terms(second, upstream)
    close(later.total(), between)
    close(case.layer.input_terms(first, later.total()).total(), dx)


def _read(i: int, n: int, mode: str) -> int | None:
    """The cell of an axis that index i reads, counted off cell by cell; None for a zero."""
    cells = list(range(n))
    around = {"zeros": [], "circular": cells, "replicate": [], "reflect": [*cells, *cells[-2:0:-1]]}[mode]
    if 0 <= i < n:
        return i
    if mode == "replicate":
        return cells[0] if i < 0 else cells[-1]
    return around[i % len(around)] if around else None


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("rank", [1, 2])
def test_terms_of_a_convolution_join_what_a_window_covers(rank: int, mode: str, seed: int) -> None:
    """Each row's places belong together by the geometry's formula, and rows come as the loops visit them."""
    window = sliding(np.random.default_rng(seed), rank)
    kind = (sg.Conv1d, sg.Conv2d)[rank - 1]
    layer = kind(4, 6, window.kernel, window.stride, window.padding, window.dilation, 2, padding_mode=mode)
    y, saved = layer.forward(np.ones((2, 4, *window.spatial), np.float32), context=sg.Context())
    rows = []
    for n, *position, f, c in np.ndindex(2, *y.shape[2:], 6, 2):
        for offset in np.ndindex(*window.kernel):
            source = window.geometry().source(position, offset)
            cell = [_read(i, size, mode) for i, size in zip(source, window.spatial, strict=True)]
            if None not in cell:
                rows.append([n, f // 3 * 2 + c, *cell, n, f, *position, f, c, *offset])
    terms = layer.input_terms(saved, y)
    places = np.concatenate([terms.places(name) for name in ("target", "dy", "w")], axis=1)
    assert places.tolist() == rows


def test_a_weight_that_is_seen_through_a_view() -> None:
    """A decoder that is tied to its encoder's transposed matrix."""
    encoder, decoder = sg.Linear(3, 2), sg.Linear(2, 3)
    decoder.tie("weight", encoder.weight.T)
    rng = np.random.default_rng(0)
    x, upstream = rng.normal(size=(4, 2)).astype(np.float32), rng.normal(size=(4, 3)).astype(np.float32)
    y, saved = decoder.forward(x, context=sg.Context())
    (dx,), _ = decoder.backward(saved, upstream, [True])
    assert dx is not None
    close(by_hand(decoder.input_terms(saved, upstream)).astype(np.float32), dx)
    close(by_hand(decoder.output_terms(x)).astype(np.float32), y)


def test_a_window_that_hangs_over_the_edge_reads_zeros() -> None:
    layer = sg.Conv1d(1, 1, 3, padding=1)
    layer.weight.value, layer.bias.value = [[[2, 3, 5]]], [7]
    terms = layer.output_terms(np.array([[[11.0, 13.0]]])).of(0, 0, 0)
    assert list(terms.factors) == ["w", "x", "b"]
    assert terms.factors["x"].index.tolist() == [PADDING, 0, 1, ABSENT]
    assert terms.values.tolist() == [0, 33, 65, 7]
    assert terms.places("b").tolist() == [[ABSENT]] * 3 + [[0]]


@pytest.mark.parametrize(("ties", "winners", "part"), [("first", [0, 2], 1), ("last", [1, 3], 1), ("share", None, 0.5)])
def test_the_winners_of_a_pool_are_its_terms(ties: str, winners: list[int] | None, part: float) -> None:
    x = np.array([[[4.0, 4.0, -1.0, -1.0]]])
    layer = sg.MaxPool1d(2, ties=ties)
    y, saved = layer.forward(x, context=sg.Context())
    terms = layer.input_terms(saved, np.array([[[3.0, 5.0]]]))
    assert terms.cell.tolist() == (winners or [0, 1, 2, 3])
    assert terms.coefficient is not None
    assert set(terms.coefficient) == {part}
    assert layer.output_terms(x).factors["x"].index.tolist() == (winners or [0, 1, 2, 3])
    assert layer.output_terms(x).total().tolist() == y.tolist()


@pytest.mark.parametrize(("counted", "parts"), [(True, [1 / 3, 1 / 3]), (False, [1 / 2, 1 / 3])])
def test_an_average_divides_by_the_cells_that_count(counted: bool, parts: list[float]) -> None:
    layer = sg.AvgPool1d(3, 1, [(1, 0)], count_include_pad=counted)
    _, saved = layer.forward(np.ones((1, 1, 3)), context=sg.Context())
    terms = layer.input_terms(saved, np.ones((1, 1, 2)), cells=[0])
    assert terms.coefficient is not None
    assert terms.coefficient.tolist() == pytest.approx(parts)
    assert len(layer.output_terms(np.ones((1, 1, 3)))) == 6


def test_batch_norm_in_training_joins_every_output_of_a_channel_with_every_input() -> None:
    layer = sg.BatchNorm2d(2)
    y, saved = layer.forward(np.random.default_rng(0).normal(size=(2, 2, 1, 2)), context=sg.Context())
    terms = layer.input_terms(saved, y)
    pairs = [(i, j) for j in range(8) for i in range(8) if i // 2 % 2 == j // 2 % 2]  # output by output
    assert list(zip(terms.cell.tolist(), terms.factors["dy"].index.tolist(), strict=True)) == pairs


@pytest.mark.parametrize("seed", range(12))
def test_the_inner_gradients_of_a_recurrence(seed: int) -> None:
    """Its parts as the formula says, step by step; and dh_t is what a change of h_t alone does to the loss."""
    case = setting("RNN", seed)
    layer = case.layer
    assert isinstance(layer, sg.RNN)
    (x,), upstream = drawn(case, seed)
    _, saved = layer.forward(x, context=sg.Context())
    inner = {name: np.asarray(value) for name, value in layer.inner(saved, upstream).items()}
    h, w = saved[1][:, 1:], layer.weight_hh.value
    steps = h.shape[1]
    assert {value.shape for value in inner.values()} == {h.shape}
    np.testing.assert_allclose(inner["dh"], inner["dh_from_output"] + inner["dh_from_next"])
    close(inner["delta"], inner["dh"] * (1 - h**2))
    for t in range(steps):
        if layer.last:
            close(inner["dh_from_output"][:, t], upstream if t == steps - 1 else np.zeros_like(h[:, t]))
        else:
            close(inner["dh_from_output"][:, t], upstream[:, t])
        later = inner["delta"][:, t + 1] @ w if t < steps - 1 else np.zeros_like(h[:, t])
        close(inner["dh_from_next"][:, t], later)
    rng, step = np.random.default_rng(seed), 1e-5
    for t in range(steps):
        direction = rng.normal(size=h[:, t].shape)
        after, before = (_loss_from(layer, x, h, upstream, t, sign * step * direction) for sign in (1, -1))
        expected = (after - before) / (2 * step)
        assert np.sum(inner["dh"][:, t] * direction) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert sg.Tanh().inner(saved, upstream) == {}


def _loss_from(layer: sg.RNN, x: Array, h: Array, upstream: Array, t: int, change: Array) -> float:
    """⟨output, upstream⟩ where h_t is changed and the steps after it are gone through again."""
    states = [*h.swapaxes(0, 1)[:t], h[:, t] + change]
    bias = sum(b.value for b in (layer.bias_ih, layer.bias_hh) if b is not None)
    for later in range(t + 1, h.shape[1]):
        a = x[:, later] @ layer.weight_ih.value.T + states[-1] @ layer.weight_hh.value.T + bias
        states.append(np.tanh(a))
    return float(np.sum((states[-1] if layer.last else np.stack(states, 1)) * upstream))


def test_a_table_that_is_too_large_says_how_to_ask_for_less(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(size=(16, 64, 32, 32)).astype(np.float32)
    layer = sg.Conv2d(64, 64, 3, padding=1)
    y, saved = layer.forward(x, context=sg.Context())
    with pytest.raises(ConfigError, match=r"^Conv2d: a table of [56]\d\d,\d{3},\d{3} terms .*cells=\[…\]"):
        layer.input_terms(saved, y)
    with pytest.raises(ConfigError, match=r"^Conv2d: a table of .* is too large"):
        layer.output_terms(x)
    terms = layer.input_terms(saved, y, cells=[np.ravel_multi_index((3, 5, 7, 9), x.shape)])
    assert len(terms) == 9 * 64
    dx, _ = layer.backward(saved, y, [True])
    assert dx[0] is not None
    assert terms.values.sum() == pytest.approx(dx[0][3, 5, 7, 9], rel=1e-4)
    assert layer.output_terms(x, cells=[5]).values.sum() == pytest.approx(y.flat[5], rel=1e-4)
    for mixing in (sg.BatchNorm2d(64), sg.Softmax(1)):
        y, saved = mixing.forward(x, context=sg.Context())
        with pytest.raises(ConfigError, match="is too large"):
            mixing.input_terms(saved, y)
        assert len(mixing.input_terms(saved, y, cells=[0, 1])) == 2 * (64 if isinstance(mixing, sg.Softmax) else 16384)
    monkeypatch.setattr(limits, "_limit", 3 * tables.TERM_BYTES)
    with pytest.raises(ConfigError, match="at most 3"):
        sg.Add().output_terms(np.ones((1, 2)), np.ones((1, 2)))
    assert len(sg.Add().output_terms(np.ones((1, 2)), np.ones((1, 2)), cells=[1])) == 2
    with pytest.raises(ConfigError, match="Tanh: a table of 4 terms"):
        sg.Tanh().input_terms(np.ones((1, 4)), np.ones((1, 4)))


@pytest.mark.parametrize("cells", [[6], [-1], [0.5], [True]])
def test_cells_that_are_none_of_the_arrays(cells: list[Any]) -> None:
    layer = sg.Linear(3, 2)
    y, saved = layer.forward(np.ones((2, 3), np.float32), context=sg.Context())
    with pytest.raises(ShapeError, match="Linear: cells: expected flat indices from 0 to 5 into an array of shape 2×3"):
        layer.input_terms(saved, y, cells=cells)


def test_layers_without_terms_say_so() -> None:
    class Own(sg.Layer):
        """A user's layer that defines no terms."""

        def forward(self, *inputs: Array, context: sg.Context) -> tuple[Array, Any]:
            return inputs[0], None

        def backward(self, saved: Any, upstream: Array, needs: Any) -> Any:
            return (upstream,), []

        def output_shape(self, *shapes: tuple[int, ...]) -> tuple[int, ...]:
            return shapes[0]

    del sg.Layer.registry["Own"]
    with pytest.raises(ConfigError, match="Own: does not give the terms of its input gradient; define input_terms"):
        Own().input_terms(None, np.ones(2))
    for name in NOT_LINEAR:
        case = setting(name, 0)
        with pytest.raises(ConfigError, match=f"^{name}: does not give its output as a sum of terms"):
            case.layer.output_terms(*drawn(case, 0)[0])
    assert set(LAYERS) > NOT_LINEAR


@pytest.mark.parametrize("layer", [sg.Add(), sg.Concat()])
@pytest.mark.parametrize("which", [2, -1])
def test_an_input_that_is_not_there(layer: sg.Layer, which: int) -> None:
    y, saved = layer.forward(np.ones((1, 2)), np.ones((1, 2)), context=sg.Context())
    with pytest.raises(ConfigError, match=f"expected which=0 to 1, the number of an input, got {which}"):
        layer.input_terms(saved, y, which)
