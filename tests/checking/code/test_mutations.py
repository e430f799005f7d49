"""Right code, broken on purpose: each break is noticed, and named."""

from __future__ import annotations

from pathlib import Path

import pytest

from sharedgrad.checking.code.forms import computed
from sharedgrad.checking.code.match import matches
from sharedgrad.checking.code.observe import Outcome
from sharedgrad.checking.code.probes import Subject, probes
from sharedgrad.checking.right import KINDS
from sharedgrad.checking.rules import LIBRARY, Rule, outcomes
from sharedgrad.checking.search import is_right, rules_for, way
from tests.checking.code.helpers import RIGHT, check

POOL = (Path(__file__).parent.parent / "students" / "right_pool_argmax.py").read_text("utf-8")
VARIED = frozenset({"stride", "padding", "kernel_size"})
BREAKS = {
    "overwritten_not_accumulated": ("dw[k] += ", "dw[k] = "),
    "dx_overwritten": ("dxp[a, :, rows, cols] += ", "dxp[a, :, rows, cols] = "),
    "dx_rotated_in_scatter": ("+= w[k] * dout", "+= w[k][:, ::-1, ::-1] * dout"),
    "mean_over_positions": ("return dxp[:, :, p : p + h, p : p + wide], dw,",
                            "return dxp[:, :, p : p + h, p : p + wide], dw / (oh * ow),"),
    "sign_flipped": ("np.zeros_like(w), dout", "np.zeros_like(w), -dout"),
    "stride_missing_in_loop": ("slice(i * s, i * s + kh), slice(j * s, j * s + kw)",
                               "slice(i, i + kh), slice(j, j + kw)"),
    "db_mean_over_positions": ("dout.sum((0, 2, 3))", "dout.mean((2, 3)).sum(0)"),
    "only_one_sample_counted": ("dw[k] += ", "dw[k] += (a == 0) * "),
    "padding_not_cropped": ("dxp[:, :, p : p + h, p : p + wide]", "dxp"),
    "crashes": ("s, p = ", "s, q = "),
    "upstream_mutated": ("    s, p =", "    dout *= 1.5\n    s, p ="),
    "grad_not_zeroed": ("    for a in range(n):", "    dw += conv_backward_naive.__dict__.setdefault(x.shape, 0 * w)\n"
                        "    conv_backward_naive.__dict__[x.shape] = dw\n    for a in range(n):"),
}  # fmt: skip


@pytest.mark.parametrize("id", BREAKS)
def test_a_break_in_a_convolution_is_named(id: str, tmp_path: Path) -> None:
    before, after = BREAKS[id]
    assert before in RIGHT
    report = check(tmp_path, RIGHT.replace(before, after), "conv2d", "conv_backward_naive")
    assert report.verdict == "wrong"
    named = [i for e in report.explanations for i in (*e.id.split(" + "), *e.same)]
    assert id in named, str(report)


def test_two_breaks_are_both_named(tmp_path: Path) -> None:
    text = RIGHT.replace("dw[k] += ", "dw[k] = ").replace("dout.sum((0, 2, 3))", "dout.mean((2, 3)).sum(0)")
    report = check(tmp_path, text, "conv2d", "conv_backward_naive")
    assert set(report.ids) >= {"overwritten_not_accumulated", "db_mean_over_positions"}


def test_the_smallest_case_is_small(tmp_path: Path) -> None:
    report = check(tmp_path, POOL.replace("+= dout", "= dout"), "maxpool2d", "max_pool_backward_naive")
    assert report.ids[0] == "pool_overwrite"
    assert report.given["x"].size <= 8
    assert report.arrays[0].wrong.sum() == 1


def _every() -> list[tuple[str, str, Rule]]:
    found = []
    for kind in ("Conv2d", "MaxPool2d", "AvgPool2d", "Linear"):
        for target in ("dx", "dw", "db") if "Pool" not in kind else ("dx",):
            found += [(kind, target, r) for r in rules_for(KINDS[kind], target)]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "target", "rule"), _every(), ids=lambda v: v.id if isinstance(v, Rule) else v)
def test_every_procedure_is_named_on_the_probes(kind: str, target: str, rule: Rule) -> None:
    """A code that makes the mistake wherever it can be made, in its first variant."""
    assert rule in LIBRARY
    found, differs = [], False
    for probe in probes(Subject(kind, varies=VARIED)):
        result = next(outcomes(way(target), probe.given, (rule,), 1), None)
        if result is None:
            good = way(target)(probe.given)
            array = good if not hasattr(good, "total") else good.total()
        else:
            array = result.array
            differs |= array.size == 0 or not is_right(probe.given, target, array)
        found.append(Outcome(probe, {target: computed(array)}))
    if not differs:
        return  # groups, dilation: the courses have none, and the probes none either
    named = [i for m in matches(found, target, 0.0) for i in (*(r.id for r in m.rules), *m.same)]
    assert rule.id in named
