"""Flax NNX's ``nnx.RNN`` over each of its cells."""

from benchmarks.cases import GATES, Case, Data, Params
from benchmarks.peers import Competitor, compiled

_CELLS = {"gru": ("GRUCell",), "lstm": ("LSTMCell", "OptimizedLSTMCell")}


def competitors(case: Case, data: Data) -> list[Competitor]:
    """``nnx.RNN`` time-major; the LSTM over both of the cells that NNX has."""
    return [_competitor(case, data, name) for name in _CELLS[case.cell]]


def _competitor(case: Case, data: Data, cell_name: str) -> Competitor:
    from flax import nnx

    rngs = nnx.Rngs(0)
    cell = getattr(nnx, cell_name)(
        case.size.inputs,
        case.size.features,
        dtype=case.array_dtype,
        param_dtype="float32",
        rngs=rngs,
    )
    # The cell draws its initial carry in param_dtype, and cannot draw parameters in bfloat16.
    cell.param_dtype = case.array_dtype
    nnx.update(cell, nnx.State(compiled.to_device(_params(cell_name, data), case)))
    rnn = nnx.RNN(cell, time_major=True)
    graph, params, rest = nnx.split(rnn, nnx.Param, ...)

    def merged(params):
        # Each trace has to have its own random counters.
        return nnx.merge(graph, params, rest, copy=True)

    return compiled.competitor(
        f"nnx.RNN {cell_name}",
        "nnx",
        case,
        data,
        params=params,
        apply=lambda params, xs: merged(params)(xs),
        eager=rnn,
        step=lambda params, carry, x: merged(params).cell(carry, x),
        carry=cell.initialize_carry(data.xs.shape[1:], rngs=rngs),
    )


def _params(cell_name: str, data: Data) -> Params:
    if cell_name == "LSTMCell":
        # "if" is a word of Python.
        return {name + "_" * (name == "if"): own for name, own in data.params.items()}
    gates = GATES["gru" if cell_name == "GRUCell" else "lstm"]
    biased = "i" if cell_name == "GRUCell" else "h"
    params = {f"dense_{side}": {"kernel": data.joined(side, gates)} for side in "ih"}
    params[f"dense_{biased}"]["bias"] = data.joined_bias(biased, gates)
    return params
