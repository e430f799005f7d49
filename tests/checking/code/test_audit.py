"""Which mistakes a test lets pass: known weak tests are seen through, and a good one is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from sharedgrad.checking.code.audit import audit
from sharedgrad.checking.code.process import Limits
from sharedgrad.errors import ConfigError
from tests.checking.code.helpers import RIGHT

POOL = (Path(__file__).parent.parent / "students" / "right_pool_argmax.py").read_text("utf-8")
CONV_TEST = """
import numpy as np
import layers
from layers import conv_backward_naive

rng = np.random.default_rng(0)
cache = (rng.normal(size=(2, 3, 5, 5)), rng.normal(size=(2, 3, 3, 3)), rng.normal(size=2), {"stride": 2, "pad": 1})
dout = rng.normal(size=(2, 2, 3, 3))
good = conv_backward_naive(dout, cache)

def test_means():
    for a, b in zip(conv_backward_naive(dout, cache), good):
        assert np.isclose(a.mean(), b.mean())

class TestConv:
    def test_all(self):
        for a, b in zip(conv_backward_naive(dout, cache), good):
            np.testing.assert_allclose(a, b)

def check_any(backward):
    np.testing.assert_allclose(backward(dout, cache)[2], good[2])

def test_nothing():
    pass

def test_broken():
    assert conv_backward_naive(dout, cache)[0].sum() == 1e9
"""
POOL_TEST = """
import numpy as np
from layers import max_pool_backward_naive

x, dout = np.random.default_rng(0).normal(size=(3, 2, 8, 8)), np.random.default_rng(1).normal(size=(3, 2, 4, 4))
cache = (x, {"pool_height": 2, "pool_width": 2, "stride": 2})
good = max_pool_backward_naive(dout, cache)

def test_pool():
    np.testing.assert_allclose(max_pool_backward_naive(dout, cache), good)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "layers.py").write_text(RIGHT + POOL.partition("import numpy as np")[2], "utf-8")
    (tmp_path / "test_conv.py").write_text(CONV_TEST, "utf-8")
    (tmp_path / "test_pool.py").write_text(POOL_TEST, "utf-8")
    return tmp_path


def test_a_test_of_means_alone_lets_turned_kernels_pass(folder: Path) -> None:
    found = audit(f"{folder}/test_conv.py:test_means:conv_backward_naive", "conv2d", Limits())
    assert {"dw_flipped", "dw_spatially_transposed"} <= found.passing["dw"].keys()
    assert "overwritten_not_accumulated" not in found.passing["dw"]
    assert found.exit_code == 1
    assert found.tried > 80
    assert "dw_flipped" in str(found.to_json())


def test_a_test_of_every_number_lets_none_of_them_pass(folder: Path) -> None:
    found = audit(f"{folder}/test_conv.py:TestConv::test_all:conv_backward_naive", "conv2d", Limits())
    assert "dw_flipped" not in found.passing["dw"]
    assert "crop_minus_zero" in found.passing["dx"]  # its padding is 1: nobody can see that


def test_a_test_that_takes_the_function(folder: Path) -> None:
    found = audit(f"{folder}/test_conv.py:check_any:conv_backward_naive", "conv2d", Limits())
    assert "sign_flipped" in found.passing["dx"]
    assert "sign_flipped" not in found.passing["db"]


def test_the_courses_pooling_test_sees_no_overlap(folder: Path) -> None:
    found = audit(f"{folder}/test_pool.py:test_pool", "maxpool2d", Limits())
    assert {"pool_overwrite", "pool_window_overwritten", "pool_all_ties"} <= found.passing["dx"].keys()
    assert "pool_to_every_cell" not in found.passing["dx"]


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ("test_conv.py:test_nothing:conv_backward_naive", "test_nothing: does not call conv_backward_naive"),
        ("test_conv.py:test_broken:conv_backward_naive", "test_broken: fails on the real function: AssertionError"),
        ("test_conv.py:test_means:backwards", "no function backwards was found"),
        ("test_conv.py:test_none:conv_backward_naive", "there is no test_none"),
        ("test_conv.py:test_means", "several functions come into question"),
    ],
)
def test_what_cannot_be_audited_is_told_in_one_line(test: str, message: str, folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        audit(f"{folder}/{test}", "conv2d", Limits())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
