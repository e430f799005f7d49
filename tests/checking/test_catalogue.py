"""Every mistake that people are known to make is sorted, has its words, and is executed where it is a procedure."""

from __future__ import annotations

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad.checking.catalogue import catalogue
from sharedgrad.checking.right import engine, of_layer, right, targets, total
from sharedgrad.checking.rules import LIBRARY, outcomes
from sharedgrad.checking.search import way

# the ids that public questions, issues and courses have been collected under, sorted
PROCEDURES = [
    "mean_over_positions", "summed_then_multiplied", "only_one_use_counted", "overwritten_not_accumulated",
    "dx_overwritten", "shared_weight_set_to_mean", "embedding_gather_assign", "dw_flipped", "dw_true_convolution",
    "dx_kernel_not_rotated", "dx_rotated_in_scatter", "flipped_channels_too", "dx_no_sum_over_filters",
    "dw_summed_over_channels", "no_cross_channel_sum_forward", "groups_ignored", "wrong_loop_index",
    "stride_not_dilated", "stride_missing_in_loop", "stride_edge_row_dropped", "padding_not_cropped",
    "crop_minus_zero", "dw_from_unpadded_input", "pad_gt_k_minus_1", "stride_padding_guessed",
    "pad_total_vs_per_side", "pool_all_ties", "pool_overwrite", "pool_wrong_cell", "pool_return_in_loop",
    "db_mean_over_positions", "db_not_summed", "db_summed_over_everything", "db_wrong_axis_layout",
    "db_batch_mean", "bias_not_updated", "untied_bias", "sigmoid_prime_of_activation",
    "sigmoid_x_times_1_minus_x_on_z", "activation_derivative_missing", "activation_derivative_twice",
    "relu_values_clipped", "relu_mask_missing", "softmax_diagonal_only", "log_softmax_sum_missing",
    "softmax_all_equal_true_class", "transpose_missing", "matrix_product_replaced_by_elementwise", "sign_flipped",
    "dw_returned_as_dx", "upstream_ignored", "batch_mean_vs_sum", "flatten_order", "residual_not_summed",
    "shape_of_gradient_wrong", "gradcheck_of_output_not_loss",
]  # fmt: skip
FAULTS_OF_CODE = [
    "accumulation_missing",
    "node_visited_per_path",
    "grad_not_zeroed",
    "dx_not_implemented",
    "upstream_mutated",
]
FAULTS_OF_TESTS = [
    "mean_only_check", "upstream_already_wrong",
]  # fmt: skip
NO_MISTAKES = [
    "pool_ties_shared", "kink_gradcheck", "float32_gradcheck", "integer_input_gradcheck", "rounding_propagated",
    "scatter_gather_confusion", "rel_error_zero_over_noise", "saturation_underflow",
]  # fmt: skip


def test_every_known_mistake_is_sorted() -> None:
    sorts = {"procedure": PROCEDURES, "code": FAULTS_OF_CODE, "test": FAULTS_OF_TESTS, "none": NO_MISTAKES}
    for sort, ids in sorts.items():
        assert [catalogue()[id].sort for id in ids] == [sort] * len(ids)
    assert sum(map(len, sorts.values())) == 71


def test_every_rule_has_words_and_every_procedure_a_rule() -> None:
    ids = {rule.id for rule in LIBRARY}
    assert ids <= set(catalogue())
    assert {id for id, entry in catalogue().items() if entry.sort == "procedure"} <= ids
    for entry in catalogue().values():
        assert entry.title
        assert entry.why
        assert not entry.title.endswith(".")


LAYERS = {
    "conv1d": (lambda: sg.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2), (2, 4, 9)),
    "conv2d": (lambda: sg.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=((1, 2), (0, 1))), (2, 3, 7, 6)),
    "reflect": (lambda: sg.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 2, 5, 4)),
    "linear": (lambda: sg.Linear(4, 3), (2, 5, 4)),
    "max": (lambda: sg.MaxPool2d((3, 2), 2, 1, ties="share"), (2, 2, 7, 6)),
    "avg": (lambda: sg.AvgPool2d(3, 2, 1, count_include_pad=False), (2, 2, 7, 6)),
    "rnn": (lambda: sg.RNN(3, 4), (2, 5, 3)),
    "rnn_last": (lambda: sg.RNN(3, 4, last=True), (2, 5, 3)),
    "sigmoid": (sg.Sigmoid, (3, 4)),
    "tanh": (sg.Tanh, (3, 4)),
    "relu": (sg.ReLU, (3, 4)),
    "softmax": (lambda: sg.Softmax(1), (2, 3, 2)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_tables_add_up_to_what_the_engine_computes(name: str) -> None:
    make, shape = LAYERS[name]
    rng = np.random.default_rng(0)
    net = sg.Network({"layer": make()}, shape[1:], dtype="float64")
    for parameter in net.parameters():
        parameter.value = rng.normal(size=parameter.shape)
    x = np.round(rng.normal(size=shape), 1)
    dy = rng.normal(size=net.forward(x)[0].shape)
    given = of_layer(net["layer"], x, dy)
    computed = engine(given)
    assert set(targets(given)) - {"delta"} <= set(computed)
    for target in targets(given):
        if target in computed:
            np.testing.assert_allclose(total(right(given, target)), computed[target], rtol=0, atol=1e-12)


def test_rules_compose_in_the_order_of_a_calculation() -> None:
    layer = sg.Conv2d(2, 3, 3)
    net = sg.Network({"layer": layer}, (2, 5, 5), dtype="float64")
    given = of_layer(net["layer"], np.random.default_rng(0).normal(size=(1, 2, 5, 5)), np.ones((1, 3, 3, 3)))
    ignored = next(r for r in LIBRARY if r.id == "input_ignored")
    turned = next(r for r in LIBRARY if r.id == "dw_flipped")
    (both,) = outcomes(way("dw"), given, [turned, ignored])
    assert both.ids == ("input_ignored", "dw_flipped")  # first the terms, then the result
    np.testing.assert_allclose(both.array, np.full((3, 2, 3, 3), 9.0))
    (one,) = outcomes(way("dw"), given, [turned])
    np.testing.assert_allclose(one.array, total(right(given, "dw"))[:, :, ::-1, ::-1])
