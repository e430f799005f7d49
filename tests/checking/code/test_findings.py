"""Faults of state, types and shapes, which the numbers of one call do not show."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checking.code.helpers import check

FAULTS = {
    "upstream_mutated": "dout *= x > 0\n    return dout",
    "inputs_mutated": "x[x < 0] = 0\n    return dout * (x > 0)",
    "grad_not_zeroed": "STATE[x.shape] = STATE.get(x.shape, 0) + dout * (x > 0)\n    return STATE[x.shape]",
    "second_call_differs": "STATE['n'] = STATE.get('n', 0) + 1\n    return dout * (x > 0) * (1 + STATE['n'] % 2)",
    "wrong_dtype": "return (dout * (x > 0)).astype(int)",
    "nan_result": "with np.errstate(all='ignore'):\n        return dout * (x > 0) / (0 * x)",
    "dx_not_implemented": "return None",
    "wrong_count": "return dout, x, x",
}  # fmt: skip


@pytest.mark.parametrize("id", FAULTS)
def test_faults_of_state_and_types_are_found(id: str, tmp_path: Path) -> None:
    report = check(tmp_path, f"import numpy as np\nSTATE = {{}}\n\ndef backward(dout, x):\n    {FAULTS[id]}\n", "relu")
    assert report.verdict == "wrong"
    assert report.ids[0] == id, str(report)


def test_dx_of_zeros_is_not_implemented(tmp_path: Path) -> None:
    text = "def backward(dout, x, w, b):\n    return 0 * x, dout.T @ x, dout.sum(0)\n"
    report = check(tmp_path, text, "linear")
    assert report.ids == ["dx_not_implemented"]
    assert "dw and db: right wherever the code returns." in report.remarks


@pytest.mark.parametrize(("db", "id"), [("dout.sum(0, keepdims=True)", "shape_broadcasts"), ("dout.sum()", None)])
def test_a_bias_gradient_of_another_shape(db: str, id: str | None, tmp_path: Path) -> None:
    report = check(tmp_path, f"def backward(dout, x, w, b):\n    return dout @ w, dout.T @ x, {db}\n", "linear")
    assert report.verdict == "wrong"
    assert id is None or report.ids == [id]


def test_dependence_on_the_order_of_samples_is_told(tmp_path: Path) -> None:
    text = "def backward(dout, x, w, b):\n    return dout @ w, dout[-1:].T @ x[-1:], dout.sum(0)\n"
    report = check(tmp_path, text, "linear")
    assert report.ids[0] == "overwritten_not_accumulated"
    assert "The result depends on the order of the samples in the batch." in report.remarks


def test_fewer_digits_are_a_remark_and_no_mistake(tmp_path: Path) -> None:
    report = check(tmp_path, "def backward(dout, x):\n    return (dout * (x > 0)).astype('float32')\n", "relu")
    assert report.verdict == "right"
    assert any("float32 where the input is float64" in r for r in report.remarks)
