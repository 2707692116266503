"""Cells with several feature axes, as convolutions have: as under nn.RNN, and row by row."""

import flax.linen as nn
import jax.numpy as jnp
import pytest

from zoo.recurrent import scanned

from .layers import assert_close, some, variables_of

T, B, CHANNELS = 5, 2, 3
SPACES = {(3,): (8,), (3, 3): (5, 4), (2, 3, 3): (3, 4, 2)}


@pytest.mark.parametrize("kernel_size", SPACES, ids=len)
def test_space_of_any_number_of_axes(kernel_size):
    options = {"features": 4, "kernel_size": kernel_size}
    layer = scanned(nn.ConvLSTMCell)(**options)
    xs = some((T, B, *SPACES[kernel_size], CHANNELS))
    variables = variables_of(layer, xs)
    theirs = nn.RNN(nn.ConvLSTMCell(**options), time_major=True, return_carry=True)
    wanted = theirs.apply({"params": {"cell": variables["params"]}}, xs)
    assert_close(layer.apply(variables, None, xs), wanted, 1e-6)

    lengths, resets = jnp.array([T, 3]), jnp.zeros((T, B), bool).at[2, 0].set(True)
    _, ys = layer.apply(variables, None, xs, seq_lengths=lengths, resets=resets)
    _, fresh = layer.apply(variables, None, xs[2:])
    assert_close(ys[2:, 0], fresh[:, 0], 1e-6)
    assert_close(ys[:3, 1], wanted[1][:3, 1], 1e-6)
    assert not jnp.any(ys[3:, 1])
