"""The gates of the layers that have a kernel: values, and cotangents by hand.

A kernel holds a tile of a batch and knows nothing of gates. What it calls is here, written for
arrays of any shape, so that every kernel and every test runs the same lines.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp

Arrays = tuple[jax.Array, ...]

GATES = 4
"""Sums of a step: recurrent ones with their inputs first, then those of inputs alone."""

SAVED = 5
"""Arrays that the backward pass needs of a step: four gates, and a state before it."""


def sigmoid(x: jax.Array) -> jax.Array:
    """The logistic function by tanh, for which a GPU has one instruction."""
    return 0.5 * jnp.tanh(0.5 * x) + 0.5


class LSTM:
    """Sums i, f, g, o, all of them recurrent; the state is (h, c).

    Attributes:
      states: arrays of the state, h first.
      recurrent: sums that h takes part in, the first ones.
      read: sums that inputs take part in, the last ones; all have a bias.
    """

    states: ClassVar[int] = 2
    recurrent: ClassVar[int] = 4
    read: ClassVar[int] = 4

    @staticmethod
    def forward(sums: Arrays, state: Arrays) -> tuple[Arrays, Arrays]:
        """The new state, and what is saved."""
        i, f, g, o = sums
        _, c = state
        i, f, g, o = sigmoid(i), sigmoid(f), jnp.tanh(g), sigmoid(o)
        new = f * c + i * g
        return (o * jnp.tanh(new), new), (i, f, g, o, c)

    @staticmethod
    def factors(saved: Arrays) -> Arrays:
        """What ``backward`` needs of a step that no cotangent takes part in."""
        i, f, g, o, c = saved
        seen = jnp.tanh(f * c + i * g)
        by_h = seen * o * (1 - o), o * (1 - seen * seen)
        return (*by_h, g * i * (1 - i), c * f * (1 - f), i * (1 - g * g), f)

    @staticmethod
    def backward(factors: Arrays, d_state: Arrays) -> tuple[Arrays, Arrays]:
        """The cotangents of the sums, and of the old state but for what goes through the sums."""
        to_o, to_c, to_i, to_f, to_g, f = factors
        dh, dc = d_state
        dc = dc + dh * to_c
        return (dc * to_i, dc * to_f, dc * to_g, dh * to_o), (jnp.zeros_like(dh), dc * f)


class GRU:
    """Sums hn, r, z, which are recurrent, and n, which is not; the state is (h,).

    ``hn`` is what the reset gate lets through, in which inputs have no part. The attributes are
    those of ``LSTM``.
    """

    states: ClassVar[int] = 1
    recurrent: ClassVar[int] = 3
    read: ClassVar[int] = 3

    @staticmethod
    def forward(sums: Arrays, state: Arrays) -> tuple[Arrays, Arrays]:
        """The new state, and what is saved."""
        hn, r, z, n = sums
        (h,) = state
        r, z = sigmoid(r), sigmoid(z)
        n = jnp.tanh(n + r * hn)
        return (n + z * (h - n),), (hn, r, z, n, h)

    @staticmethod
    def factors(saved: Arrays) -> Arrays:
        """What ``backward`` needs of a step that no cotangent takes part in."""
        hn, r, z, n, h = saved
        return (1 - z) * (1 - n * n), (h - n) * z * (1 - z), hn * r * (1 - r), r, z

    @staticmethod
    def backward(factors: Arrays, d_state: Arrays) -> tuple[Arrays, Arrays]:
        """The cotangents of the sums, and of the old state but for what goes through the sums."""
        to_n, to_z, n_to_r, r, z = factors
        (dh,) = d_state
        d_n = dh * to_n
        return (d_n * r, d_n * n_to_r, dh * to_z, d_n), (dh * z,)


CELLS = {"lstm": LSTM, "gru": GRU}
