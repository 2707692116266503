"""Haiku's ``hk.dynamic_unroll`` over ``hk.GRU`` and ``hk.LSTM``."""

import numpy as np

from benchmarks.cases import Case, Data, Params
from benchmarks.peers import Competitor, compiled


def competitors(case: Case, data: Data) -> list[Competitor]:
    """One competitor; Haiku's GRU resets before the product, so it is not the same function."""
    import haiku as hk
    import jax

    def core():
        return (hk.GRU if case.cell == "gru" else hk.LSTM)(case.size.features, name="core")

    def start():
        # Haiku's initial state is always float32.
        return jax.tree.map(
            lambda x: x.astype(case.array_dtype), core().initial_state(case.size.batch)
        )

    unroll = hk.without_apply_rng(
        hk.transform(lambda xs: hk.dynamic_unroll(core(), xs, start())[0])
    )
    one = hk.without_apply_rng(hk.transform(lambda x, state: core()(x, state)[::-1]))
    params = compiled.to_device(_params(case, data), case)
    return [
        compiled.competitor(
            "haiku",
            "haiku",
            case,
            data,
            params=params,
            apply=unroll.apply,
            eager=lambda xs: unroll.apply(params, xs),
            step=lambda params, carry, x: one.apply(params, x, carry),
            carry=hk.without_apply_rng(hk.transform(start)).apply({}),
            same=case.cell == "lstm",
        )
    ]


def _params(case: Case, data: Data) -> Params:
    if case.cell == "gru":
        bias = data.joined_bias("i", "zrn")
        return {"core": {"w_i": data.joined("i", "zrn"), "w_h": data.joined("h", "zrn"), "b": bias}}
    rows = [data.joined(side, "igfo") for side in "ih"]
    bias = data.joined_bias("h", "igfo").reshape(4, -1)
    # Haiku adds 1 to the forget gate.
    bias[2] -= 1.0
    return {"core/linear": {"w": np.concatenate(rows), "b": bias.reshape(-1)}}
