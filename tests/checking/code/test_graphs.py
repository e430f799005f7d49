"""A person's own automatic differentiation: three faults of going back, and a right one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checking.code.helpers import check

RIGHT = """
class Value:
    def __init__(self, data, parts=()):
        self.data, self.grad, self.parts, self.step = data, 0.0, parts, lambda: None
    def __add__(self, other):
        out = Value(self.data + other.data, (self, other))
        def step():
            self.grad += out.grad
            other.grad += out.grad
        out.step = step
        return out
    def __mul__(self, other):
        out = Value(self.data * other.data, (self, other))
        def step():
            self.grad += other.data * out.grad
            other.grad += self.data * out.grad
        out.step = step
        return out
    def backward(self):
        order = []
        def visit(v):
            if v not in order:
                for part in v.parts:
                    visit(part)
                order.append(v)
        visit(self)
        CLEAR
        self.grad = 1.0
        for v in reversed(order):
            v.step()
"""
CLEARED = RIGHT.replace("CLEAR", "for v in order: v.grad = 0.0")
PATHS = (
    RIGHT.partition("    def backward")[0]
    + """
    def backward(self):
        self.grad = 1.0
        self.go()
    def go(self):
        self.step()
        for part in self.parts:
            part.go()
"""
)
CASES = {
    "right": (CLEARED, "right", []),
    "accumulation_missing": (CLEARED.replace("grad +=", "grad ="), "wrong", ["accumulation_missing"]),
    "node_visited_per_path": (PATHS, "wrong", ["node_visited_per_path"]),
    "grad_not_zeroed": (RIGHT.replace("CLEAR", "pass"), "wrong", ["grad_not_zeroed"]),
    "as PyTorch": (
        RIGHT.replace("CLEAR", "for v in order: v.grad *= not v.parts"),
        "right under a convention", ["gradients_accumulate"]),
    "crashes": (CLEARED.replace("reversed(order)", "order()"), "wrong", ["crashes"]),
    "unknown": (CLEARED.replace("self.data * out.grad", "-self.data * out.grad"), "wrong", []),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_class_of_numbers(case: str, tmp_path: Path) -> None:
    text, verdict, ids = CASES[case]
    report = check(tmp_path, text, "autograd", "Value")
    assert (report.verdict, report.ids) == (verdict, ids), str(report)


def test_the_first_wrong_expression_is_told(tmp_path: Path) -> None:
    report = check(tmp_path, CASES["accumulation_missing"][0], "autograd", "Value")
    assert report.remarks[-1] == "In a + a: expected da = 2, got da = 1."
