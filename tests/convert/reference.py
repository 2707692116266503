"""The layers as plain NumPy loops in float64, written from the equations and from nothing else."""

from typing import Any

import numpy as np

FUNCTIONS = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "soft_sign": lambda x: x / (1 + np.abs(x)),
    "softplus": lambda x: np.logaddexp(x, 0),
    "identity": lambda x: x,
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
}

MERGES = {
    "concat": lambda forward, backward: np.concatenate([forward, backward], -1),
    "sum": np.add,
    "mul": np.multiply,
    "mean": lambda forward, backward: (forward + backward) / 2,
}


def run(
    config: dict[str, Any],
    variables: dict[str, Any],
    xs: np.ndarray,
    carry: Any = None,
    seq_lengths: np.ndarray | None = None,
) -> tuple[Any, np.ndarray]:
    """Runs a layer over xs with one batch axis, time first unless the config says otherwise."""
    time_axis = config.get("time_axis", 0)
    xs = np.moveaxis(np.asarray(xs, np.float64), time_axis, 0)
    lengths = np.full(xs.shape[1], xs.shape[0]) if seq_lengths is None else np.asarray(seq_lengths)
    carry, ys = _layer(config, variables["params"], carry, xs, lengths)
    return carry, np.moveaxis(ys, 0, time_axis)


def _layer(config, params, carry, xs, lengths):
    backwards = {"reverse": config.get("reverse", False)}
    if config["name"] == "stack":
        inner = {**config["layer"], **backwards}
        count = config["num_layers"]
        carries = []
        for index in range(count):
            below = index - 1
            own = params["first"] if index == 0 else _pick(params["rest"], below)
            start = None if carry is None else carry[index]
            end, xs = _layer(inner, own, start, xs, lengths)
            carries.append(end)
        return tuple(carries), xs
    if config["name"] == "bidirectional":
        starts = (None, None) if carry is None else carry
        straight = {**config["layer"], **backwards}
        turned = {**config["layer"], "reverse": not backwards["reverse"]}
        forward, ys = _layer(straight, params["forward"], starts[0], xs, lengths)
        backward, zs = _layer(turned, params["backward"], starts[1], xs, lengths)
        merge = config.get("merge", "concat")
        return (forward, backward), np.asarray(MERGES.get(merge, merge)(ys, zs))
    return _leaf(config, params, carry, xs, lengths)


def _pick(tree, index):
    if isinstance(tree, dict):
        return {key: _pick(value, index) for key, value in tree.items()}
    return tree[index]


def _leaf(config, params, carry, xs, lengths):
    gate, act = config.get("gate_fn", "sigmoid"), config.get("activation_fn", "tanh")
    gate, act = FUNCTIONS.get(gate, gate), FUNCTIONS.get(act, act)
    step = STEPS[config["name"]]
    width, batch = config["features"], xs.shape[1]
    is_lstm = config["name"] == "scan_lstm"
    if carry is None:
        start = [params.get("initial_c", np.zeros(width))] if is_lstm else []
        start.append(params.get("initial_h", np.zeros(config.get("projection", width))))
        state = [np.tile(np.asarray(s, np.float64), (batch, 1)) for s in start]
    else:
        state = [np.asarray(s, np.float64) for s in (carry if is_lstm else [carry])]

    def affine(name, value):
        part = params[name]
        product = value @ np.asarray(part["kernel"], np.float64)
        return product + np.asarray(part["bias"], np.float64) if "bias" in part else product

    ys = np.zeros((*xs.shape[:2], state[-1].shape[-1]))
    steps = range(xs.shape[0])
    for t in reversed(steps) if config.get("reverse") else steps:
        valid = (t < lengths)[:, None]
        new = step(config, affine, gate, act, xs[t], *state)
        state = [np.where(valid, n, s) for n, s in zip(new, state, strict=True)]
        ys[t] = np.where(valid, state[-1], 0)
    return (tuple(state) if is_lstm else state[0]), ys


def _gru(config, affine, gate, act, x, h):
    r = gate(affine("ir", x) + affine("hr", h))
    z = gate(affine("iz", x) + affine("hz", h))
    n = act(affine("in", x) + r * affine("hn", h))
    return [(1 - z) * n + z * h]


def _simplified_gru(config, affine, gate, act, x, h):
    r = gate(affine("ir", x) + affine("hr", h))
    z = gate(affine("iz", x) + affine("hz", h))
    n = act(affine("in", x) + affine("hn", r * h))
    return [(1 - z) * h + z * n]


def _lstm(config, affine, gate, act, x, c, h):
    i, f, o = (gate(affine("i" + g, x) + affine("h" + g, h)) for g in "ifo")
    c = f * c + i * act(affine("ig", x) + affine("hg", h))
    h = o * act(c)
    return [c, affine("proj", h) if "projection" in config else h]


def _elman(config, affine, gate, act, x, h):
    return [act(affine("i", x) + affine("h", h))]


def _mgu(config, affine, gate, act, x, h):
    f = gate(affine("if", x) + affine("hf", h))
    inner = affine("hn", h)
    n = act(affine("in", x) + (f * inner if config.get("reset_gate", True) else inner))
    return [(1 - f) * n + f * h]


STEPS = {
    "scan_gru": _gru,
    "scan_simplified_gru": _simplified_gru,
    "scan_lstm": _lstm,
    "scan_elman": _elman,
    "scan_mgu": _mgu,
}
