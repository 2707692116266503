"""The layers as plain loops over NumPy float64: the equations, and what the conditions mean."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

Array = np.ndarray
Params = Mapping[str, Mapping[str, Array]]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def product(p: Params, name: str, x: Array) -> Array:
    """x @ kernel, normalised where the kernel has a scale, plus the bias where it has one."""
    y = x @ p[name]["kernel"]
    if "scale" in p[name]:
        y = normalised(y, p[name]["scale"])
    return y + p[name].get("bias", 0.0)


def normalised(x: Array, scale: Array, epsilon: float = 1e-6) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * scale


def gru(p: Params, carry: tuple[Array, ...], x: Array) -> tuple[Array, ...]:
    (h,) = carry
    r = sigmoid(product(p, "ir", x) + product(p, "hr", h))
    z = sigmoid(product(p, "iz", x) + product(p, "hz", h))
    n = np.tanh(product(p, "in", x) + r * product(p, "hn", h))
    return ((1 - z) * n + z * h,)


def simplified_gru(p: Params, carry: tuple[Array, ...], x: Array) -> tuple[Array, ...]:
    (h,) = carry
    r = sigmoid(product(p, "ir", x) + product(p, "hr", h))
    z = sigmoid(product(p, "iz", x) + product(p, "hz", h))
    n = np.tanh(product(p, "in", x) + product(p, "hn", r * h))
    return ((1 - z) * h + z * n,)


def lstm(p: Params, carry: tuple[Array, ...], x: Array) -> tuple[Array, ...]:
    c, h = carry
    i, f, o = (sigmoid(product(p, f"i{k}", x) + product(p, f"h{k}", h)) for k in "ifo")
    g = np.tanh(product(p, "ig", x) + product(p, "hg", h))
    c = f * c + i * g
    read = c
    if "c" in p:
        read = normalised(c, p["c"]["scale"]) + p["c"].get("bias", 0.0)
    h = o * np.tanh(read)
    return c, product(p, "proj", h) if "proj" in p else h


def elman(p: Params, carry: tuple[Array, ...], x: Array) -> tuple[Array, ...]:
    (h,) = carry
    return (np.tanh(product(p, "i", x) + product(p, "h", h)),)


def mgu(p: Params, carry: tuple[Array, ...], x: Array) -> tuple[Array, ...]:
    (h,) = carry
    f = sigmoid(product(p, "if", x) + product(p, "hf", h))
    n = np.tanh(product(p, "in", x) + f * product(p, "hn", h))
    return ((1 - f) * n + f * h,)


def mgu_without_reset(p: Params, carry: tuple[Array, ...], x: Array) -> tuple[Array, ...]:
    (h,) = carry
    f = sigmoid(product(p, "if", x) + product(p, "hf", h))
    n = np.tanh(product(p, "in", x) + product(p, "hn", h))
    return ((1 - f) * n + f * h,)


STEPS: dict[str, Callable[..., tuple[Array, ...]]] = {
    "scan_gru": gru,
    "scan_layer_norm_gru": gru,
    "scan_simplified_gru": simplified_gru,
    "scan_lstm": lstm,
    "scan_layer_norm_lstm": lstm,
    "scan_elman": elman,
    "scan_mgu": mgu,
}


class Run(NamedTuple):
    """What a layer returns: the last carry, ys, and the carry after every step and at first."""

    carry: tuple[Array, ...]
    ys: Array
    history: list[tuple[Array, ...]]
    start: tuple[Array, ...]


def run(
    step: Callable[..., tuple[Array, ...]],
    params: Any,
    xs: Array,
    start: tuple[Array, ...],
    *,
    initial: tuple[Array, ...] | None = None,
    seq_lengths: Array | None = None,
    mask: Array | None = None,
    resets: Array | None = None,
    reverse: bool = False,
    zoneout: float = 0.0,
) -> Run:
    """Steps through xs (T, *batch, D), one step and one condition after another.

    Args:
      step: one of this file's cells.
      params: the layer's parameters.
      xs: inputs.
      start: the first carry, arrays (*batch, width).
      initial: the carry of a reset; default zeros.
      seq_lengths: (*batch,).
      mask: (T, *batch).
      resets: (T, *batch).
      reverse: whether the last step comes first.
      zoneout: how much of the old carry stays, as in evaluation.
    """
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    xs = np.asarray(xs, np.float64)
    carry = first = tuple(np.asarray(c, np.float64) for c in start)
    initial = tuple(map(np.zeros_like, carry)) if initial is None else initial
    steps, batch = xs.shape[0], xs.shape[1:-1]
    ys: list[Any] = [None] * steps
    history: list[Any] = [None] * steps
    for t in reversed(range(steps)) if reverse else range(steps):
        taken = np.ones(batch, bool)
        if seq_lengths is not None:
            taken = taken & (t < np.asarray(seq_lengths))
        if mask is not None:
            taken = taken & np.asarray(mask)[t]
        entered = carry
        if resets is not None:
            entered = pick(np.asarray(resets)[t], initial, carry)
        with np.errstate(invalid="ignore", over="ignore"):
            after = step(p, entered, xs[t])
            after = tuple(
                zoneout * a + (1 - zoneout) * b for a, b in zip(entered, after, strict=True)
            )
        carry = pick(taken, after, carry)
        history[t] = carry
        ys[t] = np.where(taken[..., None], after[-1], 0.0)
    return Run(carry, np.stack(ys), history, first)


def pick(condition: Array, yes: tuple[Array, ...], no: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(np.where(condition[..., None], a, b) for a, b in zip(yes, no, strict=True))
