"""Flax Linen's ``nn.RNN`` over each of its cells."""

from benchmarks.cases import Case, Data
from benchmarks.peers import Competitor, compiled

_CELLS = {"gru": ("GRUCell",), "lstm": ("LSTMCell", "OptimizedLSTMCell")}


def competitors(case: Case, data: Data) -> list[Competitor]:
    """``nn.RNN`` time-major; the LSTM over both of the cells that Linen has."""
    return [_competitor(case, data, name) for name in _CELLS[case.cell]]


def _competitor(case: Case, data: Data, cell_name: str) -> Competitor:
    import flax.linen as nn
    import jax

    # A cell that is to hold parameters in bfloat16 cannot check the ones that it is given.
    cell = getattr(nn, cell_name)(case.size.features, dtype=case.array_dtype, parent=None)
    rnn = nn.RNN(cell, time_major=True)
    params = compiled.to_device(data.params, case)
    return compiled.competitor(
        f"nn.RNN {cell_name}",
        "linen",
        case,
        data,
        params=params,
        apply=lambda params, xs: rnn.apply({"params": {"cell": params}}, xs),
        eager=lambda xs: rnn.apply({"params": {"cell": params}}, xs),
        step=lambda params, carry, x: cell.apply({"params": params}, carry, x),
        carry=compiled.to_device(cell.initialize_carry(jax.random.key(0), data.xs.shape[1:]), case),
    )
