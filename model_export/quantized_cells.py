"""Recurrent layers with int8 weights, as ONNX functions: standard operators, and one kernel of ONNX Runtime's own.

What a layer takes from its past, and from the layer below, is a hidden state: an LSTM's, a GRU's and a tanh RNN's never
leaves [-1, 1]. So one scale, 1/127, fits every row of every batch at every timestep. It stands in the graph as a
constant, and products are summed up as whole numbers, which is exact: no row can reach its neighbours.

`com.microsoft.MatMulIntegerToFloat` is ``(a - zero) @ weight * unit * scale + bias`` with uint8 `a` and int8 `weight`.
The cells are ONNX's (opset 14, ``linear_before_reset=1`` for the GRU, gates in the order i, o, f, c and z, r, h).
"""

import onnx
from onnx import parser

from model_export.translate import OPSET

DOMAIN = "conveyor.int8"
KERNELS = "com.microsoft"

_HEADER = f"""<domain: "{DOMAIN}", opset_import: ["" : {OPSET}, "{KERNELS}" : 1]>"""

_CONSTANTS = """
    unit = Constant <value = float {0.007874015748031496}> ()
    zero = Constant <value = uint8 {128}> ()
    first = Constant <value_ints = [0]> ()
    second = Constant <value_ints = [1]> ()
"""

# What the layer below gives, for all timesteps at once: x (time, batch, units) → rows (time, batch, gates · hidden).
_PROJECT = """
Project (x, weight, scale, bias) => (rows) {
    CONSTANTS
    x_int8 = QuantizeLinear (x, unit, zero)
    rows = com.microsoft.MatMulIntegerToFloat (x_int8, weight, unit, scale, zero, , bias)
}
"""

_LSTM = """
LSTM (rows, weight, scale, bias, hidden, cell) => (y, last_hidden, last_cell) {
    CONSTANTS
    h_first = Squeeze (hidden, first)
    c_first = Squeeze (cell, first)
    h_last, c_last, steps = Scan <num_scan_inputs = 1, body = timestep
        (float[batch, units] h, float[batch, units] c, float[batch, gates] row)
        => (float[batch, units] h_next, float[batch, units] c_next, float[batch, units] step) {
        h_int8 = QuantizeLinear (h, unit, zero)
        past = com.microsoft.MatMulIntegerToFloat (h_int8, weight, unit, scale, zero, , bias)
        gates_open = Add (row, past)
        i_open, o_open, f_open, g_open = Split <axis = -1, num_outputs = 4> (gates_open)
        i = Sigmoid (i_open)
        o = Sigmoid (o_open)
        f = Sigmoid (f_open)
        g = Tanh (g_open)
        kept = Mul (f, c)
        added = Mul (i, g)
        c_next = Add (kept, added)
        c_squashed = Tanh (c_next)
        h_next = Mul (o, c_squashed)
        step = Identity (h_next)
    }> (h_first, c_first, rows)
    y = Unsqueeze (steps, second)
    last_hidden = Unsqueeze (h_last, first)
    last_cell = Unsqueeze (c_last, first)
}
"""

_GRU = """
GRU (rows, weight, scale, bias, hidden) => (y, last_hidden) {
    CONSTANTS
    one = Constant <value_float = 1.0> ()
    h_first = Squeeze (hidden, first)
    h_last, steps = Scan <num_scan_inputs = 1, body = timestep
        (float[batch, units] h, float[batch, gates] row) => (float[batch, units] h_next, float[batch, units] step) {
        h_int8 = QuantizeLinear (h, unit, zero)
        past = com.microsoft.MatMulIntegerToFloat (h_int8, weight, unit, scale, zero, , bias)
        row_z, row_r, row_h = Split <axis = -1, num_outputs = 3> (row)
        past_z, past_r, past_h = Split <axis = -1, num_outputs = 3> (past)
        z_open = Add (row_z, past_z)
        r_open = Add (row_r, past_r)
        z = Sigmoid (z_open)
        r = Sigmoid (r_open)
        remembered = Mul (r, past_h)
        candidate_open = Add (row_h, remembered)
        candidate = Tanh (candidate_open)
        z_rest = Sub (one, z)
        added = Mul (z_rest, candidate)
        kept = Mul (z, h)
        h_next = Add (added, kept)
        step = Identity (h_next)
    }> (h_first, rows)
    y = Unsqueeze (steps, second)
    last_hidden = Unsqueeze (h_last, first)
}
"""

_RNN = """
RNN (rows, weight, scale, bias, hidden) => (y, last_hidden) {
    CONSTANTS
    h_first = Squeeze (hidden, first)
    h_last, steps = Scan <num_scan_inputs = 1, body = timestep
        (float[batch, units] h, float[batch, units] row) => (float[batch, units] h_next, float[batch, units] step) {
        h_int8 = QuantizeLinear (h, unit, zero)
        past = com.microsoft.MatMulIntegerToFloat (h_int8, weight, unit, scale, zero, , bias)
        open = Add (row, past)
        h_next = Tanh (open)
        step = Identity (h_next)
    }> (h_first, rows)
    y = Unsqueeze (steps, second)
    last_hidden = Unsqueeze (h_last, first)
}
"""


def functions() -> list[onnx.FunctionProto]:
    """``Project``, ``LSTM``, ``GRU`` and ``RNN`` of the domain `DOMAIN`.

    `rows` is (time, batch, gates · hidden), `weight` int8 (hidden, gates · hidden), `scale` and `bias` float32
    (gates · hidden); states are (1, batch, hidden), and `y` is (time, 1, batch, hidden), as ONNX's own layers have it.
    """
    return [
        parser.parse_function(_HEADER + text.replace("CONSTANTS", _CONSTANTS)) for text in (_PROJECT, _LSTM, _GRU, _RNN)
    ]
