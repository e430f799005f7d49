"""The page's own arithmetic against the engine's, number by number, in node."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.document.page.examples import EXAMPLES, GALLERY, Example, engine, node, weights
from tests.document.page.node import needs_node, run
from tests.helpers import close

pytestmark = needs_node

SHOW = """
const shown = ({example, evaluation}) => ({
  example,
  values: Object.fromEntries(evaluation.calls.map((call) => [call.name, nested(call.y)])),
  losses: evaluation.losses.map((loss) => loss.value),
  gradients: Object.fromEntries(Object.values(evaluation.weights).map((w) => [w.name, nested(combined(w, "sum"))])),
  inputs: Object.fromEntries(Object.keys(example.numbers.x).map((name) => [name, nested(evaluation.upstream[name])])),
});
const after = ({example, actions}) => actions.reduce(act, start(example));
"""


def agrees(shown: Any, example: Example) -> None:
    """What the page computes is what the engine computes, within 1e-9."""
    truth = engine(example)
    for name, value in shown["values"].items():
        close(np.array(value, np.float64), truth.values[name])
    assert shown["losses"] == pytest.approx(truth.losses, rel=1e-9, abs=1e-12)
    assert shown["gradients"].keys() >= weights(truth).keys()
    for name, gradient in weights(truth).items():
        close(np.array(shown["gradients"][name], np.float64), gradient)
    for name, gradient in truth.gradients.inputs.items():
        close(np.array(shown["inputs"][name], np.float64), gradient)


@pytest.mark.parametrize("name", [*EXAMPLES, *GALLERY])
def test_the_page_computes_what_the_engine_computes(name: str, tmp_path: Path) -> None:
    example = {**EXAMPLES, **GALLERY}[name]
    given = {"example": example, "actions": []}
    agrees(run(SHOW + "console.log(JSON.stringify(shown(after(given))))", given, tmp_path), example)


ARGUMENTS: list[tuple[str, list[Any]]] = [
    ("filter", ["conv", "stride", 2]),
    ("filter", ["conv", "padding", [[0, 2]]]),
    ("geometry", ["conv", "padding_mode", "circular"]),
    ("geometry", ["conv", "padding_mode", "replicate"]),
    ("geometry", ["conv", "groups", 1]),
    ("geometry", ["conv", "dilation", 1]),
    ("geometry", ["pool", "ties", "last"]),
    ("geometry", ["pool", "stride", [2, 1]]),
    ("geometry", ["average", "count_include_pad", True]),
    ("classifier", ["conv", "padding", 0]),
    ("classifier", ["pool", "kernel_size", 3]),
    ("siamese", ["a", "padding", 2]),
    ("siamese", ["b", "stride", 2]),
    ("siamese", ["local", "dilation", 2]),
    ("average", ["local", "stride", 1]),
]


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_other_geometries_give_the_engines_numbers(name: str, argument: list[Any], tmp_path: Path) -> None:
    example = copy.deepcopy(EXAMPLES[name])
    if name == "siamese":  # the next convolution's output must stay as long as the sum's other input
        example["nodes"] = example["nodes"][: 6 if argument[0] == "local" else 5]
        del example["ties"], example["numbers"]["loss"], example["outputs"]
        if argument[0] == "local":
            example["numbers"]["upstream"] = {"local": [[[0.5, -1.0, 0.25, 2.0]], [[1.5, 0.75, -0.5, 0.0]]]}
    if name == "average":
        example["nodes"] = [n for n in example["nodes"] if n["name"] != "reshape"]
    kept = {n["name"] for n in example["nodes"]}
    given_weights = example["numbers"]["weights"]
    example["numbers"]["weights"] = {k: w for k, w in given_weights.items() if k.split(".")[0] in kept}
    given = {"example": example, "actions": [["argument", *argument], ["update", "sum"]]}
    shown = run(SHOW + "console.log(JSON.stringify(shown(after(given))))", given, tmp_path)
    agrees(shown, shown["example"])


def test_an_argument_that_does_not_fit_is_refused_in_words(tmp_path: Path) -> None:
    code = """
    const told = (error) => `${error instanceof EntryError} ${error.message}`;
    const tell = (action) => { try { act(start(given), action); return ""; } catch (error) { return told(error); } };
    console.log(JSON.stringify([["stride", 0], ["padding", -1], ["dilation", 9], ["groups", 3], ["padding", "some"]]
      .map(([name, value]) => tell(["argument", "conv", name, value]))));
    """
    told = run(code, EXAMPLES["geometry"], tmp_path)
    assert all(line.startswith("true ") for line in told), told
    assert "stride: expected a whole number of at least 1" in told[0]
    assert "does not divide 4 input and 4 output channels" in told[3]


@pytest.mark.parametrize("mode", ["sum", "mean", "last", "unshared"])
def test_every_way_to_combine_is_made_of_the_engines_uses(mode: str, tmp_path: Path) -> None:
    """Of each weight the engine's own contributions, combined here as the page says it does."""
    code = (
        SHOW
        + """
    const before = start(given.example).evaluation, later = act(start(given.example), ["update", given.mode]);
    console.log(JSON.stringify({
      made: Object.fromEntries(Object.values(before.weights).map((w) => [w.name, nested(combined(w, given.mode))])),
      apart: Object.fromEntries(Object.values(before.weights).map((w) => [w.name, nested(privateGradients(w))])),
      after: Object.fromEntries(Object.values(later.evaluation.weights).map((w) => [w.name, nested(tied(w))])),
    }));
    """
    )
    example = EXAMPLES["geometry"]
    found = run(code, {"example": example, "mode": mode}, tmp_path)
    call = engine(example).trace.calls["conv"]
    for use, name in zip(call.uses, ("conv.weight", "conv.bias"), strict=True):
        apart = use.sum(by="position").reshape(-1, *np.shape(example["numbers"]["weights"][name]))
        last = use.sum(by=("sample", "position"))[(-1,) * (1 + len(use.axes["position"]))]
        expected = {"mean": apart.mean(axis=0), "last": last}.get(mode, apart.sum(axis=0))
        close(np.array(found["apart"][name]), apart)
        if mode != "unshared":
            close(np.array(found["made"][name]), expected)
        step = apart.mean(axis=0) if mode == "unshared" else expected  # copies tied again: the mean of them
        close(np.array(found["after"][name]), np.array(example["numbers"]["weights"][name]) - 0.1 * step)


def test_private_copies_are_the_locally_connected_twin(tmp_path: Path) -> None:
    """After one un-shared update every position has a kernel of its own: the engine's LocallyConnected2d."""
    example = EXAMPLES["many"]
    code = (
        SHOW
        + """
    const {evaluation, copies} = given.actions.reduce(act, start(given.example));
    const sum = (name) => nested(privateGradients(evaluation.weights[name]));
    console.log(JSON.stringify({
      copies: Object.fromEntries(Object.entries(copies).map(([k, v]) => [k, Array.from(v)])),
      y: nested(evaluation.values.conv), apart: sum("conv.weight"), dx: nested(evaluation.upstream.x),
    }));
    """
    )
    found = run(code, {"example": example, "actions": [["update", "unshared"], ["update", "unshared"]]}, tmp_path)
    numbers = example["numbers"]
    twin = node("conv", "LocallyConnected2d", in_channels=1, out_channels=1, input_size=32, kernel_size=3)
    weight = np.broadcast_to(np.array(numbers["weights"]["conv.weight"]), (30, 30, 1, 1, 3, 3))
    bias = np.broadcast_to(np.array(numbers["weights"]["conv.bias"])[:, None, None], (1, 30, 30))
    apart: dict[str, Any] = {"conv.weight": np.array(weight), "conv.bias": np.array(bias)}
    for _ in range(2):
        apart = dict(engine({**example, "nodes": [twin], "numbers": {**numbers, "weights": apart}}).updated)
    close(np.array(found["copies"]["conv.weight"]).reshape(30, 30, 1, 1, 3, 3), apart["conv.weight"])
    close(np.array(found["copies"]["conv.bias"]), apart["conv.bias"].ravel())
    truth = engine({**example, "nodes": [twin], "numbers": {**numbers, "weights": apart}})
    close(np.array(found["y"]), truth.values["conv"])
    close(np.array(found["dx"]), truth.gradients.inputs["x"])
    close(np.array(found["apart"]).reshape(30, 30, 1, 1, 3, 3), weights(truth)["conv.weight"])


def test_partial_sums_over_the_uses_end_at_the_gradient(tmp_path: Path) -> None:
    code = """
    const {calls} = start(given).evaluation;
    console.log(JSON.stringify(calls.map((call) => {
      const parts = call.uses.map((_, use) => sums(call, use, use + 1));
      const total = (pick) => parts.map(pick).reduce((a, b) => a.map((v, i) => v + b[i]));
      return [call.slots.map((s, i) => [total((p) => Array.from(p.weights[i].data)), Array.from(s.gradient.data)]),
              call.dsources.map((d, i) => [total((p) => Array.from(p.sources[i].data)), Array.from(d.data)])];
    })));
    """
    for name in ("geometry", "recurrent", "siamese"):
        for call in run(code, EXAMPLES[name], tmp_path):
            for pairs in call:
                for added, whole in pairs:
                    assert added == pytest.approx(whole, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", ["siamese", "recurrent", "classifier"])
def test_the_engine_and_the_page_take_the_same_step(name: str, tmp_path: Path) -> None:
    given = {"example": EXAMPLES[name], "actions": [["update", "sum"]]}
    found = run(SHOW + "console.log(JSON.stringify(shown(after(given))))", given, tmp_path)
    for weight, value in engine(EXAMPLES[name]).updated.items():
        close(np.array(found["example"]["numbers"]["weights"][weight]), value)
