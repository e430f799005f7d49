"""Dropout's masks: what they hold and what they are keyed by."""

from __future__ import annotations

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad.errors import ConfigError
from tests.helpers import Array, close, same_bits

ONES = np.ones((200, 50))


def mask(context: sg.Context, p: float = 0.3, ones: Array = ONES) -> Array:
    return sg.Dropout(p).forward(ones, context=context)[0]


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_a_part_p_is_zeroed_and_the_rest_grows_so_that_the_mean_stays(p: float) -> None:
    y = mask(sg.Context(), p)
    close(np.unique(y), [0, 1 / (1 - p)])
    assert np.mean(y == 0) == pytest.approx(p, abs=0.02)
    assert np.mean(y) == pytest.approx(1, abs=0.05)


def test_nothing_is_dropped_with_probability_0_or_in_evaluation() -> None:
    same_bits(mask(sg.Context(), 0.0), ONES)
    same_bits(mask(sg.Context(training=False), 0.8), ONES)


def test_seed_step_and_node_each_give_another_mask() -> None:
    def of(seed: int = 0, step: int = 0, node: str = "a") -> bytes:
        return mask(sg.Context(seed=seed, step=step).enter(node)).tobytes()

    assert of() == of()
    assert len({of(), of(seed=1), of(step=1), of(node="b")}) == 4


def test_both_types_drop_the_same_elements() -> None:
    wide, narrow = mask(sg.Context()), mask(sg.Context(), ones=ONES.astype(np.float32))
    assert (wide.dtype, narrow.dtype) == (np.float64, np.float32)
    np.testing.assert_array_equal(wide == 0, narrow == 0)


def test_a_network_draws_anew_in_every_step_and_repeats_with_its_seed() -> None:
    def masks(seed: int) -> list[Array]:
        net = sg.Network([sg.Dropout(0.5), sg.Dropout(0.5)], (50,), seed=seed)
        return [net.forward(ONES)[0] for _ in range(3)]

    a, b, c = masks(0)
    assert len({each.tobytes() for each in (a, b, c)}) == 3
    for first, again in zip((a, b, c), masks(0), strict=True):
        same_bits(first, again)
    assert not np.array_equal(a, masks(1)[0])
    assert np.mean(a == 0) == pytest.approx(0.75, abs=0.02)  # two different masks


@pytest.mark.parametrize("p", [-0.1, 1, 1.5, float("nan")])
def test_a_senseless_probability_is_refused(p: float) -> None:
    with pytest.raises(ConfigError, match="Dropout: p: expected a probability of at least 0 and below 1, got"):
        sg.Dropout(p)
