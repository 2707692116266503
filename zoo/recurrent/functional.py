"""The simplified GRU as three plain functions, and a GRU's final state from a seed."""

import jax
import jax.numpy as jnp

from zoo.recurrent.layers.gru import ScanGRU

Params = dict[str, jax.Array]


def initialize_gru_params(key: jax.Array, input_dim: int, hidden_dim: int) -> Params:
    """Draws the parameters of the simplified GRU.

    Args:
      key: a key, split into six, used in the order Wz Uz Wr Ur Wh Uh.
      input_dim: D.
      hidden_dim: H.

    Returns:
      A dict with W* (H, D) and U* (H, H), normal × 0.01, and b* (H,), zero; * is z, r and h.

    Example:
      >>> params = initialize_gru_params(jax.random.key(0), input_dim=3, hidden_dim=4)
      >>> params["Wz"].shape, params["Uz"].shape, params["bz"].shape
      ((4, 3), (4, 4), (4,))

    References:
      Cho et al., Learning Phrase Representations using RNN Encoder-Decoder, 2014
      (https://arxiv.org/abs/1406.1078).
    """
    shapes = {"W": (hidden_dim, input_dim), "U": (hidden_dim, hidden_dim)}
    names = ("Wz", "Uz", "Wr", "Ur", "Wh", "Uh")
    keys = jax.random.split(key, len(names))
    params = {
        name: 0.01 * jax.random.normal(k, shapes[name[0]])
        for name, k in zip(names, keys, strict=True)
    }
    return params | {name: jnp.zeros((hidden_dim,)) for name in ("bz", "br", "bh")}


def gru_step(params: Params, h_prev: jax.Array, x_t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Takes one step of the simplified GRU.

    Args:
      params: as from ``initialize_gru_params``.
      h_prev: the state before the step, (H,).
      x_t: the step's input, (D,).

    Returns:
      The new state (H,), twice: as the carry and as the output.

    Example:
      >>> params = initialize_gru_params(jax.random.key(0), 3, 4)
      >>> h, y = gru_step(params, jnp.zeros(4), jnp.ones(3))
      >>> h.shape
      (4,)
    """
    z = jax.nn.sigmoid(params["Wz"] @ x_t + params["Uz"] @ h_prev + params["bz"])
    r = jax.nn.sigmoid(params["Wr"] @ x_t + params["Ur"] @ h_prev + params["br"])
    n = jnp.tanh(params["Wh"] @ x_t + params["Uh"] @ (r * h_prev) + params["bh"])
    h_t = (1 - z) * h_prev + z * n
    return h_t, h_t


def gru_sequence(
    params: Params, initial_h: jax.Array, inputs: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Runs the simplified GRU over a sequence.

    Args:
      params: as from ``initialize_gru_params``.
      initial_h: the first state, (H,).
      inputs: (T, D).

    Returns:
      The last state (H,), and the state after every step (T, H).

    Example:
      Over a batch, by ``jax.vmap``:

      >>> params = initialize_gru_params(jax.random.key(0), 3, 4)
      >>> batched = jax.vmap(gru_sequence, in_axes=(None, 0, 0))
      >>> final, outputs = batched(params, jnp.zeros((2, 4)), jnp.ones((2, 5, 3)))
      >>> final.shape, outputs.shape
      ((2, 4), (2, 5, 4))
    """
    return jax.lax.scan(lambda h, x: gru_step(params, h, x), initial_h, inputs)


def scan_rnn_forward(seed: int, x: jax.Array, hidden: int) -> jax.Array:
    """Returns the final state of a freshly initialised GRU over one sequence.

    Args:
      seed: of ``jax.random.PRNGKey``, for the parameters.
      x: the sequence, (T, D).
      hidden: H.

    Returns:
      The state after the last step, (H,).

    Raises:
      ValueError: a shape does not fit.
      TypeError: x is not of floating point.

    Example:
      >>> scan_rnn_forward(0, jnp.ones((5, 3)), hidden=4).shape
      (4,)
    """
    layer = ScanGRU(features=hidden)
    variables = layer.init(jax.random.PRNGKey(seed), None, x)
    return layer.apply(variables, None, x)[0]
