"""cuDNN's LSTM through ``jax.experimental.rnn``, where JAX runs on an NVIDIA GPU."""

import dataclasses

import numpy as np

from benchmarks.cases import Case, Data
from benchmarks.peers import Competitor, compiled


def competitors(case: Case, data: Data) -> list[Competitor]:
    """One competitor for an LSTM in float32 or tensorfloat32, which is all that it offers."""
    if case.platform != "gpu" or case.cell != "lstm" or case.dtype == "bfloat16":
        return []
    import jax.numpy as jnp

    size = case.size
    lengths = jnp.full((size.batch,), size.steps, jnp.int32)
    zeros = jnp.zeros((1, size.batch, size.features), jnp.float32)
    params = compiled.to_device(weights(data), case)

    def apply(params, xs):
        from jax.experimental import rnn

        # Weights are rounded before products unless the precision is the highest there is.
        precision = "highest" if case.dtype == "float32" else None
        sizes = size.inputs, size.features, 1, 0.0, False
        return rnn.lstm(xs, zeros, zeros, params, lengths, *sizes, precision)[0]

    competitor = compiled.competitor(
        "jax.experimental.rnn",
        "cudnn",
        case,
        data,
        params=params,
        apply=apply,
        eager=lambda xs: apply(params, xs),
        step=lambda params, carry, x: (carry, x),
        carry=zeros,
        batch_major=True,
    )
    return [dataclasses.replace(competitor, step=None)]


def weights(data: Data) -> np.ndarray:
    """All parameters in one array: kernels of both sides, then biases, gates as i, f, g, o."""
    parts = [
        *(data.joined(side, "ifgo").T for side in "ih"),
        *(data.joined_bias(side, "ifgo") for side in "ih"),
    ]
    return np.concatenate([part.reshape(-1) for part in parts])
