"""Functions beside the layers: simplified GRU, outputs fed back, linear recurrence."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from zoo.recurrent.call import (
    conditions,
    dtypes,
    element_checks,
    feed_checks,
    placement,
    sequence,
)
from zoo.recurrent.cell import times
from zoo.recurrent.engine.affine import Recurrence
from zoo.recurrent.engine.parts import Parts
from zoo.recurrent.engine.recurrence import fastest, recurrence
from zoo.recurrent.engine.sharded import of_elements
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


def generate(
    step: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    first: Any,
    steps: int,
    *,
    feed: Callable[[Any], Any] = lambda y: y,
) -> tuple[Any, Any]:
    """Takes steps whose outputs are the next inputs.

    Any function will do that is like the ``step`` of a layer: ``layer.apply`` with variables and
    ``method="step"``, the step of a model around a layer, or ``gru_step`` with parameters. What
    else it needs from step to step, such as a key, is a part of its carry.

    Args:
      step: a function of (carry, x) that returns (carry, y).
      carry: where to start from; None where ``step`` takes None for its initial carry.
      first: the first x, an array or a tree of arrays.
      steps: how many steps to take.
      feed: makes the next x of y; by default y is the next x.

    Returns:
      The last carry, and y of every step, time first. With ``steps=0`` the carry comes back as it
      is. To go on, call again with this carry and ``first=feed(ys[-1])``.

    Raises:
      TypeError: ``steps`` is no int, ``step`` does not return a pair, or what is fed back has
        another structure or dtype than ``first``.
      ValueError: ``steps`` is negative, or what is fed back has another shape than ``first``.

    Example:
      A layer whose outputs are as wide as its inputs, and one with a readout in between:

      >>> layer = ScanGRU(features=3)
      >>> x = jnp.ones((2, 3))
      >>> variables = layer.init(jax.random.key(0), None, x[None])
      >>> step = functools.partial(layer.apply, variables, method="step")
      >>> carry, ys = generate(step, None, x, steps=5)
      >>> carry.shape, ys.shape
      ((2, 3), (5, 2, 3))

      >>> params = initialize_gru_params(jax.random.key(0), input_dim=1, hidden_dim=4)
      >>> step = functools.partial(gru_step, params)
      >>> mean = lambda y: jnp.mean(y, axis=-1, keepdims=True)
      >>> _, ys = generate(step, jnp.zeros(4), jnp.ones(1), steps=5, feed=mean)
      >>> ys.shape
      (5, 4)
    """
    steps = feed_checks.steps(steps)
    first = jax.tree.map(jnp.asarray, first)

    def one(carry: Any, x: Any) -> tuple[tuple[Any, Any], Any]:
        after, y = feed_checks.pair(step(carry, x))
        fed = feed(y)
        feed_checks.fed_back(fed, first)
        return (after, fed), y

    if steps == 0:
        _, y = jax.eval_shape(one, carry, first)
        return carry, jax.tree.map(lambda y: jnp.zeros((0, *y.shape), y.dtype), y)
    # The first step stands alone: whatever the carry was given as, a step returns it as it stays.
    state, y = one(carry, first)
    (carry, _), ys = jax.lax.scan(lambda state, _: one(*state), state, length=steps - 1)
    return carry, jax.tree.map(lambda y, ys: jnp.concatenate([y[None], ys]), y, ys)


def linear_recurrence(
    a: jax.Array,
    b: jax.Array,
    initial: jax.Array | None = None,
    *,
    resets: jax.Array | None = None,
    axis: int = 0,
    reverse: bool = False,
    sequence_axis: str | None = None,
) -> jax.Array:
    r"""Runs ``h' = a * h + b``, element by element, over the time axis of ``a`` and ``b``.

    What a layer of linear recurrences does with elements of its own, for those who bring theirs.
    On CPU it is a loop over time, elsewhere a tree (``jax.lax.associative_scan``); both have one
    hand-written derivative, forwards and backwards.

    Args:
      a: what multiplies h at every step; real or complex, of the shape of b.
      b: what is added at every step; real or complex.
      initial: h before the first step, of the shape of b without its time axis; None for zero.
      resets: bool, of the shape of b, or of b without its last axis. Where True, h is replaced by
        ``initial`` before that step is taken. An element is NaN from a non-finite a or b until its
        next reset, which neither values nor gradients of later steps feel.
      axis: where time is.
      reverse: whether time runs backwards; what is returned stays in the order of b.
      sequence_axis: inside of a ``jax.shard_map``, the mesh axis that shares time out over devices;
        None where time is whole there. On an explicit mesh the type of b says it.

    Returns:
      h after every step, of the shape of b and of the common dtype of a, b and initial. It is
      computed in float32 at least.

    Raises:
      TypeError: something is no array, or of another dtype.
      ValueError: a shape does not fit, or there is no such axis.

    Example:
      >>> linear_recurrence(jnp.full(4, 0.5), jnp.ones(4))
      Array([1.   , 1.5  , 1.75 , 1.875], dtype=float32)
      >>> resets = jnp.array([False, False, True, False])
      >>> linear_recurrence(jnp.full(4, 0.5), jnp.ones(4), resets=resets)
      Array([1. , 1.5, 1. , 1.5], dtype=float32)
    """
    a, b, initial, resets, axis = element_checks.elements(a, b, initial, resets, axis)
    kind = element_checks.common_dtype(a, b, initial)
    if b.shape[axis] == 0:
        return b.astype(kind)
    manual = sequence.manual_axes(sequence_axis, b, ("initial", initial), called="b")
    sequence.can_run(b, axis, manual)
    explicit = sequence.explicit_axes(b, axis)
    if resets is not None:
        resets = jnp.broadcast_to(resets[..., None] if resets.ndim < b.ndim else resets, b.shape)
        resets = jnp.moveaxis(resets, axis, 0)
    a, b = jnp.moveaxis(a, axis, 0), jnp.moveaxis(b, axis, 0)

    def part(axes: tuple[str, ...]) -> sequence.Run:
        return functools.partial(_recurrence, kind, Parts((*manual, *axes), reverse))

    _, h = sequence.shared_out(part, b, explicit, 0)((), initial, (a, b, resets))
    return jnp.moveaxis(h, 0, axis)


def _recurrence(kind: Any, parts: Parts, _: Any, initial: Any, steps: Any) -> tuple[Any, jax.Array]:
    """Runs ``linear_recurrence`` where time is first, or a part of it; see ``shared_out``."""
    a, b, resets = steps
    initial = placement.like_data(jnp.zeros_like(b[0]) if initial is None else initial, b, 0)
    a, b, initial = placement.mark_varying(a, b, initial)
    pair = jnp.issubdtype(kind, jnp.complexfloating)

    def apart(x: jax.Array) -> tuple[jax.Array, ...]:
        x = x.astype(kind)
        own = (x.real, x.imag) if pair else (x,)
        return tuple(part.astype(dtypes.promote(part.dtype, jnp.float32)) for part in own)

    factors, added, start = apart(a), apart(b), apart(initial)
    how = Recurrence(
        reverse=parts.reverse,
        way=fastest(added),
        complex_pair=pair,
        resets=resets is not None,
    )
    bad = None
    if resets is not None:
        bad = ~(jnp.isfinite(a) & jnp.isfinite(b))
        bad = conditions.in_parts(parts, bad, resets, ~jnp.isfinite(initial))
        factors, added, start = _with_resets(factors, added, start, resets, bad, pair)
    run = functools.partial(of_elements, parts) if parts else recurrence
    h = conditions.poison(run(how, factors, added, start), bad)
    return (), (jax.lax.complex(*h) if pair else h[0]).astype(kind)


def _with_resets(
    a: Any, b: Any, start: Any, resets: jax.Array, bad: jax.Array, pair: bool
) -> tuple[Any, Any, Any]:
    """Elements that do resets, and a start, without what is not finite before the next reset."""

    def pick(where: jax.Array, yes: Any, no: Any) -> Any:
        return tuple(jnp.where(where, x, y) for x, y in zip(yes, no, strict=True))

    zeros = jax.tree.map(jnp.zeros_like, b)
    a, b = pick(bad, zeros, a), pick(bad, zeros, b)
    every = tuple(jnp.broadcast_to(x[None], own.shape) for x, own in zip(start, b, strict=True))
    anew = tuple(map(jnp.add, times(a, every, pair), b))
    whole = tuple(jnp.where(jnp.isfinite(x), x, jnp.zeros_like(x)) for x in start)
    return pick(resets, zeros, a), pick(resets & ~bad, anew, b), whole
