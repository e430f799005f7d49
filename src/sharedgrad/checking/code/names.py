"""What people call the parts of a backward pass: their names for inputs, weights, settings and gradients.

This file runs beside the person's code and needs nothing but Python.
"""

from __future__ import annotations

import ast
import re

_ARGUMENTS = {
    "dy": "dy dout upstream upstream_gradient grad_output grad_outputs grad_out dz da d_out dl_dout dl_dy delta gradient "
    "grad output_gradient d_l_d_out dh doutput dvalues error dnext eta d_output dl_dz dldy dldz djdz",
    "x": "x a_prev x_in inp input inputs input_data a aprev image images z x1 data activation last_input h_prev a_in",
    "x1": "x2 other y2 b2 skip",
    "w": "w weight weights kernel kernels filters filter weight_matrix theta",
    "b": "b bias biases",
    "stride": "stride s strides",
    "padding": "padding pad p",
    "dilation": "dilation d",
    "groups": "groups",
    "kernel_size": "kernel_size f k filter_size pool_size size window k_size ksize window_size poolsize field_size",
    "kernel_height": "kernel_height pool_height kh ph hh filter_height k_h",
    "kernel_width": "kernel_width pool_width kw pw ww filter_width k_w",
    "in_channels": "in_channels c_in channels_in input_channels num_channels in_c",
    "out_channels": "out_channels c_out num_filters n_filters channels_out output_channels out_c number_of_filters",
    "in_features": "in_features input_size input_dim in_dim n_in fan_in n_inputs",
    "out_features": "out_features output_size output_dim out_dim n_out fan_out n_outputs",
    "hidden_size": "hidden_size hidden_dim n_hidden",
    "num_features": "num_features",
    "axis": "axis dim",
    "mode": "mode",
    "cache": "cache saved caches memory context state cached",
    "conv_param": "conv_param conv_params hparameters hparams hyperparameters hyper_parameters",
    "pool_param": "pool_param pool_params",
    "weight_ih_l0": "wx wxh w_xh w_ih weight_ih weight_ih_l0 u",
    "weight_hh_l0": "wh whh w_hh weight_hh weight_hh_l0 v",
    "bias_ih_l0": "bh b_ih bias_ih bias_ih_l0",
    "bias_hh_l0": "b_hh bias_hh bias_hh_l0",
    "h0": "h0 hprev h_prev0 prev_h initial_h",
    "weight": "gamma",
    "bias": "beta",
    "y": "out y_hat output outputs",
    "learning_rate": "learning_rate learn_rate lr alpha",
}
ROLES = {name: role for role, names in _ARGUMENTS.items() for name in names.split()}

_RESULTS = {
    "dx": "dx da_prev daprev da grad_input grad_x dinput dinputs d_x d_input grad_inputs dl_dx dl_dinput dldx "
    "input_gradient d_l_d_input dprev grad_in dz",
    "dx1": "dx2 dother",
    "dw": "dw grad_w grad_weight grad_weights dkernel dweights dweight dfilter dfilters d_w d_weights grad_filters "
    "dl_dw d_l_d_filters weights_gradient kernels_gradient dldw dk",
    "db": "db grad_b grad_bias dbias dbiases d_b d_bias dl_db grad_biases dldb",
    "dweight_ih_l0": "dwx dwxh dw_xh dw_ih dweight_ih dweight_ih_l0 dwax",
    "dweight_hh_l0": "dwh dwhh dw_hh dweight_hh dweight_hh_l0 dwaa",
    "dbias_ih_l0": "dbh db_ih dbias_ih dbias_ih_l0 dba",
    "dbias_hh_l0": "db_hh dbias_hh dbias_hh_l0",
    "dweight": "dgamma dweight",
    "dbias": "dbeta dbias",
    "": "dh0 da0 dhprev dprev_h",
    "y": "y out output z result",
}
RESULTS: dict[str, tuple[str, ...]] = {}
for _target, _names in _RESULTS.items():
    for _name in _names.split():
        RESULTS[_name] = (*RESULTS.get(_name, ()), _target)


def role(name: str, wanted: tuple[str, ...] = ()) -> str | None:
    """Which part an argument's name stands for; a name that the layer itself has stands for that."""
    plain = name.lower().strip("_")
    if plain in wanted:
        return plain
    return ROLES.get(plain)


def result(name: str, wanted: tuple[str, ...]) -> str | None:
    """Which array a result's name stands for, of those wanted; "" for one that nobody asks about."""
    plain = name.lower().strip("_").removeprefix("self.")
    if plain in wanted:
        return plain
    return next((target for target in RESULTS.get(plain, ()) if target in wanted or not target), None)


def parsed(signature: str) -> tuple[list[str], list[str]]:
    """The names of ``"dout, x, w, b -> dx, dw, db"``.

    Raises:
        ValueError: It has another form.
    """
    match = re.fullmatch(r"\s*([\w\s,]+?)\s*->\s*([\w\s,]+?)\s*", signature)
    if not match:
        raise ValueError(signature)
    return [n for n in re.split(r"[,\s]+", match[1]) if n], [n for n in re.split(r"[,\s]+", match[2]) if n]


def returned(source: str, function: str) -> list[str] | None:
    """The names after the last ``return`` of a function, where it returns names and nothing else."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == function:
            returns = [n.value for n in ast.walk(node) if isinstance(n, ast.Return) and n.value is not None]
            return _names(returns[-1]) if returns else None
    return None


def _names(value: ast.expr) -> list[str] | None:
    items = value.elts if isinstance(value, ast.Tuple) else [value]
    names = []
    for item in items:
        while isinstance(item, ast.Subscript | ast.Call):  # dxp[…] and dx.copy() still tell what they are
            item = item.value if isinstance(item, ast.Subscript) else item.func
            if isinstance(item, ast.Attribute) and not isinstance(item.value, ast.Name | ast.Attribute):
                return None
            if isinstance(item, ast.Attribute):
                item = item.value
        if isinstance(item, ast.Attribute):
            names.append(item.attr)
        elif isinstance(item, ast.Name):
            names.append(item.id)
        else:
            return None
    return names
