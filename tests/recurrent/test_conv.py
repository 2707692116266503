"""The convolutional layers against Flax's cell, explicit loops, and rolled and cut inputs."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import registry
from zoo.recurrent import scanned
from zoo.recurrent.testing import CHECKS, Case

from .layers import assert_close, assert_same, some, variables_of
from .reference import sigmoid

T, B, C, H = 4, 2, 3, 4
# Extent of space by kernel size.
SPACES = {(3,): (6,), (3, 2): (5, 4), (1, 2, 3): (2, 3, 4)}
EVERY_SIZE = pytest.mark.parametrize("size", SPACES, ids=str)


def inputs(size: tuple[int, ...]) -> jax.Array:
    return some((T, B, *SPACES[size], C))


@EVERY_SIZE
@pytest.mark.parametrize("seed", [0, 5])
def test_conv_lstm_draws_what_the_cell_draws(size: tuple[int, ...], seed: int) -> None:
    key, options = jax.random.key(seed), {"features": H, "kernel_size": size}
    ours = registry.build("scan_conv_lstm", **options)
    theirs = scanned(nn.ConvLSTMCell)(**options)
    assert_same(ours.init(key, None, inputs(size)), theirs.init(key, None, inputs(size)))


@EVERY_SIZE
def test_conv_lstm_is_a_loop_of_the_cell(size: tuple[int, ...]) -> None:
    xs, options = inputs(size), {"features": H, "kernel_size": size}
    layer, cell = registry.build("scan_conv_lstm", **options), nn.ConvLSTMCell(**options)
    variables = variables_of(layer, xs)
    start = tuple(some((B, *SPACES[size], H), seed) for seed in (2, 3))

    def loop(variables: Any, carry: Any, xs: jax.Array) -> Any:
        ys = []
        for x in xs:
            carry, y = cell.apply(variables, carry, x)
            ys.append(y)
        return carry, jnp.stack(ys)

    def both(apply: Any) -> Any:
        def loss(*arguments: Any) -> Any:
            outputs = apply(*arguments)
            return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(outputs)), outputs

        run = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))
        (_, outputs), gradients = run(variables, start, xs)
        return outputs, gradients

    (got, gradients), (wanted, expected) = both(layer.apply), both(loop)
    assert_close(got, wanted, 1e-6)
    assert_close(gradients, expected, 1e-5)


def convolved(
    x: np.ndarray, kernel: np.ndarray, strides: int, dilation: int, padding: str
) -> np.ndarray:
    """Convolves (B, *space, C) as the definition says, one number of the output after another."""
    size, space = np.array(kernel.shape[:-2]), np.array(x.shape[1:-1])
    reach = (size - 1) * dilation + 1
    before, out = 0 * size, (space - reach) // strides + 1
    if padding != "VALID":
        out = -(-space // strides)
        before = np.maximum((out - 1) * strides + reach - space, 0) // 2
    y = np.zeros((len(x), *out, kernel.shape[-1]))
    for to in np.ndindex(*out):
        for tap in np.ndindex(*size):
            at = np.array(to) * strides + np.array(tap) * dilation - before
            if padding == "CIRCULAR":
                at = at % space
            if np.all((at >= 0) & (at < space)):
                y[:, *to] += x[:, *at] @ kernel[tap]
    return y


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strides": 2},
        {"dilation": 2},
        {"padding": "VALID"},
        {"padding": "VALID", "strides": 2, "dilation": 2},
        {"padding": "CIRCULAR"},
        {"padding": "CIRCULAR", "strides": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(3,), (3, 2)], ids=str)
def test_conv_gru_is_its_equations(size: tuple[int, ...], options: dict[str, Any]) -> None:
    given = {"strides": 1, "dilation": 1, "padding": "SAME", **options}
    around = "CIRCULAR" if given["padding"] == "CIRCULAR" else "SAME"
    with jax.enable_x64(True):
        dtypes = {"param_dtype": jnp.float64, "carry_dtype": jnp.float64}
        layer = registry.build("scan_conv_gru", features=H, kernel_size=size, **dtypes, **options)
        xs = some((T, B, *SPACES[size], C), dtype=jnp.float64)
        variables = variables_of(layer, xs)
        start = some(layer.carry_spec(xs.shape[1:]).shape, 4, jnp.float64)
        got = jax.tree.map(np.asarray, layer.apply(variables, start, xs))
    p, h, ys = jax.tree.map(np.asarray, variables["params"]), np.asarray(start), []

    def read(name: str, x: np.ndarray) -> np.ndarray:
        return convolved(x, p[name]["kernel"], **given) + p[name]["bias"]

    def recur(name: str, h: np.ndarray) -> np.ndarray:
        return convolved(h, p[name]["kernel"], 1, 1, around)

    for x in np.asarray(xs):
        r, z = (sigmoid(read(f"i{k}", x) + recur(f"h{k}", h)) for k in "rz")
        h = (1 - z) * h + z * np.tanh(read("in", x) + recur("hn", r * h))
        ys.append(h)
    assert_close(got, (h, np.stack(ys)), 1e-12)


@EVERY_SIZE
@pytest.mark.parametrize("name", ["scan_conv_lstm", "scan_conv_gru"])
def test_circular_layers_roll_with_their_inputs(name: str, size: tuple[int, ...]) -> None:
    layer = registry.build(name, features=H, kernel_size=size, padding="CIRCULAR")
    xs = inputs(size)
    variables = variables_of(layer, xs)
    carry, ys = layer.apply(variables, None, xs)
    axes = tuple(range(-1 - len(size), -1))
    shift = (2, 1, 3)[: len(size)]
    rolled = layer.apply(variables, None, jnp.roll(xs, shift, axes))
    assert_close(rolled, jax.tree.map(lambda x: jnp.roll(x, shift, axes), (carry, ys)))
    # Without the wrap, what leaves on one side is not seen on the other.
    bounded = registry.build(name, features=H, kernel_size=size)
    moved = bounded.apply(variables, None, jnp.roll(xs, shift, axes))[1]
    assert not np.allclose(moved, jnp.roll(bounded.apply(variables, None, xs)[1], shift, axes))


# The registered defaults are in test_conformance.py; here the state's extent is not the input's.
CONDITIONS = ("check_seq_lengths", "check_mask", "check_resets", "check_conditions_together")


@pytest.mark.slow
@pytest.mark.parametrize("check", [check for check in CHECKS if check.__name__ in CONDITIONS])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("scan_conv_lstm", {"kernel_size": (3,), "strides": 2}),
        ("scan_conv_lstm", {"kernel_size": (2, 3), "padding": "VALID"}),
        ("scan_conv_gru", {"kernel_size": (3,), "padding": "VALID", "dilation": 2}),
        ("scan_conv_gru", {"kernel_size": (2, 3), "padding": "CIRCULAR", "strides": 2}),
    ],
    ids=str,
)
def test_conditions(name: str, options: dict[str, Any], check: Any) -> None:
    build = functools.partial(registry.build, name, features=H, **options)
    space = (7, 4)[: len(options["kernel_size"])]
    check(Case(build, some((5, 3, *space, C))))
