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
    kernel = p[name]["kernel"]
    if kernel.ndim == 3:
        blocks = np.split(x, kernel.shape[0], axis=-1)
        y = np.concatenate([a @ k for a, k in zip(blocks, kernel, strict=True)], axis=-1)
    else:
        y = x @ kernel
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
    i, g, o = (product(p, f"i{k}", x) + product(p, f"h{k}", h) for k in "igo")
    i = sigmoid(i + p["pi"] * c) if "pi" in p else sigmoid(i)
    if "if" in p:
        f = product(p, "if", x) + product(p, "hf", h)
        f = sigmoid(f + p["pf"] * c) if "pf" in p else sigmoid(f)
    else:
        f = 1 - i
    c = f * c + i * np.tanh(g)
    read = c
    if "c" in p:
        read = normalised(c, p["c"]["scale"]) + p["c"].get("bias", 0.0)
    h = sigmoid(o + p["po"] * c if "po" in p else o) * np.tanh(read)
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


def dreamer_gru(p: Params, carry: tuple[Array, ...], x: Array) -> tuple[Array, ...]:
    (h,) = carry
    r, n, z = (product(p, f"i{k}", x) + product(p, f"h{k}", h) for k in "rnz")
    n, z = np.tanh(sigmoid(r) * n), sigmoid(z - 1)
    return (z * n + (1 - z) * h,)


def slstm(p: Params, carry: tuple[Array, ...], x: Array) -> tuple[Array, ...]:
    c, n, m, h = carry
    i, f, z, o = (product(p, f"i{k}", x) + product(p, f"h{k}", h) for k in "ifzo")
    log_f = -np.logaddexp(0.0, -f)
    largest = np.maximum(log_f + m, i)
    keep, write = np.exp(log_f + m - largest), np.exp(i - largest)
    c, n = keep * c + write * np.tanh(z), keep * n + write
    return c, n, largest, sigmoid(o) * c / n


def indrnn(p: Params, carry: tuple[Array, ...], x: Array) -> tuple[Array, ...]:
    (h,) = carry
    return (np.maximum(product(p, "i", x) + p["u"] * h, 0),)


def ligru(p: Params, carry: tuple[Array, ...], x: Array) -> tuple[Array, ...]:
    (h,) = carry
    z, n = (product(p, f"i{k}", x) + product(p, f"h{k}", h) for k in "zn")
    z = sigmoid(z)
    return (z * h + (1 - z) * np.maximum(n, 0),)


def ugrnn(p: Params, carry: tuple[Array, ...], x: Array) -> tuple[Array, ...]:
    (h,) = carry
    g, n = (product(p, f"i{k}", x) + product(p, f"h{k}", h) for k in "gn")
    g = sigmoid(g)
    return (g * h + (1 - g) * np.tanh(n),)


def janet(p: Params, carry: tuple[Array, ...], x: Array) -> tuple[Array, ...]:
    (h,) = carry
    s, n = (product(p, f"i{k}", x) + product(p, f"h{k}", h) for k in "fn")
    return (sigmoid(s) * h + (1 - sigmoid(s - 1)) * np.tanh(n),)


def cfc(
    p: Params, carry: tuple[Array, ...], x: Array, elapsed: float | Array = 1.0
) -> tuple[Array, ...]:
    (h,) = carry
    b = 1.7159 * np.tanh(0.666 * (product(p, "i", x) + product(p, "h", h)))
    f1, f2 = np.tanh(product(p, "w1", b)), np.tanh(product(p, "w2", b))
    s = sigmoid(product(p, "wa", b) * elapsed + product(p, "wb", b))
    return (f1 * (1 - s) + s * f2,)


def min_gru(p: Params, carry: tuple[Array, ...], x: Array) -> tuple[Array, ...]:
    (h,) = carry
    z = sigmoid(product(p, "iz", x))
    return ((1 - z) * h + z * product(p, "in", x),)


def min_gru_positive(p: Params, carry: tuple[Array, ...], x: Array) -> tuple[Array, ...]:
    (h,) = carry
    z, n = sigmoid(product(p, "iz", x)), product(p, "in", x)
    return ((1 - z) * h + z * np.where(n >= 0, n + 0.5, sigmoid(n)),)


def min_lstm(p: Params, carry: tuple[Array, ...], x: Array) -> tuple[Array, ...]:
    (h,) = carry
    i, f = sigmoid(product(p, "ii", x)), sigmoid(product(p, "if", x))
    return (f / (f + i) * h + i / (f + i) * product(p, "ig", x),)


def lru(p: Params, carry: tuple[Array, ...], x: Array) -> tuple[Array, ...]:
    re, im = carry
    factor = np.exp(-np.exp(p["nu_log"]) + 1j * np.exp(p["theta_log"]))
    added = np.exp(p["gamma_log"]) * (product(p, "B_re", x) + 1j * product(p, "B_im", x))
    s = factor * (re + 1j * im) + added
    return s.real, s.imag


def s5(
    p: Params, carry: tuple[Array, ...], x: Array, elapsed: float | Array = 1.0
) -> tuple[Array, ...]:
    re, im = carry
    eigenvalue = p["Lambda_re"] + 1j * p["Lambda_im"]
    factor = np.exp(eigenvalue * np.exp(p["log_step"]) * elapsed)
    added = product(p, "B_re", x) + 1j * product(p, "B_im", x)
    s = factor * (re + 1j * im) + (factor - 1) / eigenvalue * added
    return s.real, s.imag


def rg_lru(p: Params, carry: tuple[Array, ...], x: Array) -> tuple[Array, ...]:
    (h,) = carry
    x = product(p, "in", x) if "in" in p else x
    r, i = sigmoid(product(p, "ia", x)), sigmoid(product(p, "ix", x))
    a = np.exp(-8 * np.logaddexp(0.0, p["Lambda"]) * r)
    return (a * h + np.sqrt(1 - a**2) * i * x,)


def real_part(p: Params, carry: tuple[Array, ...], x: Array) -> Array:
    """Re(C s) + D x."""
    re, im = carry
    skip = p["D"] * x if hasattr(p["D"], "shape") else product(p, "D", x)
    return product(p, "C_re", re) - product(p, "C_im", im) + skip


def twice_real_part(p: Params, carry: tuple[Array, ...], x: Array) -> Array:
    """2 Re(C s) + D x."""
    zero = tuple(0 * c for c in carry)
    return 2 * real_part(p, carry, x) - real_part(p, zero, x)


# What is put out, where that is not the last array of the carry.
READ: dict[str, Callable[..., Array]] = {"lru": real_part, "s5": twice_real_part}


def put_out(step: Callable[..., Any], p: Params, carry: tuple[Array, ...], x: Array) -> Array:
    """What a step puts out with the carry after it."""
    read = READ.get(step.__name__)
    return carry[-1] if read is None else read(p, carry, x)


STEPS: dict[str, Callable[..., tuple[Array, ...]]] = {
    "scan_gru": gru,
    "scan_layer_norm_gru": gru,
    "scan_simplified_gru": simplified_gru,
    "scan_lstm": lstm,
    "scan_layer_norm_lstm": lstm,
    "scan_elman": elman,
    "scan_mgu": mgu,
    "scan_dreamer_gru": dreamer_gru,
    "scan_slstm": slstm,
    "scan_indrnn": indrnn,
    "scan_ligru": ligru,
    "scan_ugrnn": ugrnn,
    "scan_janet": janet,
    "scan_cfc": cfc,
    "scan_min_gru": min_gru,
    "scan_min_lstm": min_lstm,
    "scan_lru": lru,
    "scan_s5": s5,
    "scan_rg_lru": rg_lru,
}


def step_of(layer: Any) -> Callable[..., tuple[Array, ...]]:
    """The step of a layer that has none above: its own equation, its products made by NumPy."""

    def step(p: Params, carry: tuple[Array, ...], x: Array) -> tuple[Array, ...]:
        def make(a: Any, **addends: Any) -> tuple[Any, ...]:
            found = (np.asarray(a) @ p[name]["kernel"] for name in addends)
            addends = {name: 0.0 if x is None else x for name, x in addends.items()}
            return tuple(y + added for y, added in zip(found, addends.values(), strict=True))

        cell = layer.cell
        return tuple(
            map(np.asarray, cell.step(cell.of_state(make, p), carry, cell.project(make, x, p), p))
        )

    return step


def resting(carry: tuple[Array, ...]) -> tuple[Array, ...]:
    """What a layer starts from by default: zeros, and of four arrays (c, n, m, h) a low m."""
    zeros = [np.zeros_like(x) for x in carry]
    if len(zeros) == 4:
        zeros[2] = zeros[2] - 1e30
    return tuple(zeros)


def mixed(rate: float, old: tuple[Array, ...], new: tuple[Array, ...]) -> tuple[Array, ...]:
    """Zoneout in evaluation; c and n of an sLSTM are mixed as what they stand for, c·exp(m)."""
    if len(old) != 4 or not rate:
        return tuple(rate * a + (1 - rate) * b for a, b in zip(old, new, strict=True))
    scale = np.maximum(old[2], new[2])
    a, b = rate * np.exp(old[2] - scale), (1 - rate) * np.exp(new[2] - scale)
    c, n = (a * x + b * y for x, y in zip(old[:2], new[:2], strict=True))
    return c, n, scale, rate * old[3] + (1 - rate) * new[3]


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
      initial: the carry of a reset; by default the one at rest.
      seq_lengths: (*batch,).
      mask: (T, *batch).
      resets: (T, *batch).
      reverse: whether the last step comes first.
      zoneout: how much of the old carry stays, as in evaluation.
    """
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    xs = np.asarray(xs, np.float64)
    carry = first = tuple(np.asarray(c, np.float64) for c in start)
    initial = resting(carry) if initial is None else initial
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
            after = mixed(zoneout, entered, after)
            y = put_out(step, p, pick(taken, after, carry), xs[t])
        carry = pick(taken, after, carry)
        history[t] = carry
        ys[t] = np.where(taken[..., None], y, 0.0)
    return Run(carry, np.stack(ys), history, first)


def pick(condition: Array, yes: tuple[Array, ...], no: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(np.where(condition[..., None], a, b) for a, b in zip(yes, no, strict=True))
