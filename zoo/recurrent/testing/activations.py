"""Activations of every form that a derivative can have, and the check of a layer with them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from zoo.recurrent.contract import RecurrentLayer
from zoo.recurrent.testing.case import Case, inapplicable, promise
from zoo.recurrent.testing.compare import close

Activation = Callable[[jax.Array], jax.Array]


def _loops(x: jax.Array) -> jax.Array:
    return jax.lax.fori_loop(0, 3, lambda i, a: 0.5 * a + 0.4 * jnp.tanh(x), x)


def _scans(x: jax.Array) -> jax.Array:
    factors = jnp.arange(1.0, 3.0, dtype=x.dtype)
    return jax.lax.scan(lambda a, k: (jnp.tanh(a * k + x), None), x, factors)[0]


def _chooses(x: jax.Array) -> jax.Array:
    return jax.lax.cond(jnp.mean(x) > 0, jnp.tanh, jnp.sin, x)


def _centres(x: jax.Array) -> jax.Array:
    return jnp.tanh(x - jnp.mean(x, axis=0, keepdims=True))


def _sorts(x: jax.Array) -> jax.Array:
    return jnp.tanh(jnp.sort(x, axis=-1))


def _casts(x: jax.Array) -> jax.Array:
    return jnp.tanh(x) + 0.1 * jnp.floor(x).astype(jnp.int32).astype(x.dtype)


def _sums_powers(x: jax.Array) -> jax.Array:
    return jnp.polyval(jnp.array([0.1, 0.2, 0.3], x.dtype), jnp.tanh(x))


def _stops(x: jax.Array) -> jax.Array:
    return jnp.tanh(x) * jax.lax.stop_gradient(jnp.cos(x))


def _goes_straight_through(x: jax.Array) -> jax.Array:
    return x + jax.lax.stop_gradient(jnp.sign(x) - x)


def _with_rule(rule: Callable[[jax.Array, jax.Array], jax.Array]) -> Activation:
    """tanh, whose cotangent is what ``rule`` makes of x and the cotangent."""

    @jax.custom_vjp
    def activation(x: jax.Array) -> jax.Array:
        return jnp.tanh(x)

    activation.defvjp(lambda x: (jnp.tanh(x), x), lambda x, g: (rule(x, g),))
    return activation


def _penalty(x: jax.Array, g: jax.Array) -> jax.Array:
    return g * (1 - jnp.tanh(x) ** 2) + 0.1 * jnp.sin(x)


def _clipping(x: jax.Array, g: jax.Array) -> jax.Array:
    return jnp.clip(g * (1 - jnp.tanh(x) ** 2), -0.1, 0.1)


def _noise(x: jax.Array, g: jax.Array) -> jax.Array:
    return g + 0.01 * jnp.sin(100 * x)


def _square(x: jax.Array, g: jax.Array) -> jax.Array:
    return g * g * jnp.sign(g)


SMOOTH: dict[str, Activation] = {
    "a loop": _loops,
    "a scan": _scans,
    "a conditional": _chooses,
    "a mean over the batch": _centres,
    "a sort": _sorts,
    "a cast": _casts,
    "a polynomial": _sums_powers,
}
"""Activations whose derivative is that of their values."""

RULES: dict[str, Activation] = {
    "stop_gradient": _stops,
    "straight through": _goes_straight_through,
    "a penalty in the backward pass": _with_rule(_penalty),
    "clipping in the backward pass": _with_rule(_clipping),
    "noise in the backward pass": _with_rule(_noise),
    "a square in the backward pass": _with_rule(_square),
}
"""Activations with a derivative that is declared, linear in the cotangent or not."""


def _one_after_another(functions: dict[str, Activation]) -> Activation:
    def activation(x: jax.Array) -> jax.Array:
        for function in functions.values():
            x = function(x)
        return x

    return activation


@promise("implementations agree in first and second derivatives, whatever the activation")
def check_activations(case: Case) -> None:
    """``activation_fn`` made of loops, conditionals, sorts, and rules for the backward pass."""
    if not (case.supports("implementation") and case.supports("activation_fn")):
        raise inapplicable(f"{case} has no options implementation and activation_fn")
    for kind, functions in (("plain", SMOOTH), ("declared", RULES)):
        activation = _one_after_another(functions)
        scan, fused = (
            derivatives(
                case.variant(implementation=name, activation_fn=activation).layer,
                case.variables,
                case.xs,
            )
            for name in ("scan", "fused")
        )
        for which, expected, got in zip(("first", "second"), scan, fused, strict=True):
            what = f"{which} derivatives of implementation='fused', activations with {kind} ones"
            close(got, expected, what, tolerance=1e-4)


def derivatives(layer: RecurrentLayer, variables: Any, xs: jax.Array) -> tuple[Any, Any]:
    """The gradient of a function of ys by variables and xs, and that of a function of it."""

    def loss(variables: Any, xs: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(layer.apply(variables, None, xs)[1]))

    def slope(variables: Any, xs: jax.Array) -> tuple[jax.Array, Any]:
        gradients = jax.grad(loss, (0, 1))(variables, xs)
        parts = [jnp.sum(jnp.cos(g)) for g in jax.tree.leaves(gradients)]
        return sum(parts, jnp.zeros((), parts[0].dtype)), gradients

    second, first = jax.jit(jax.grad(slope, (0, 1), has_aux=True))(variables, xs)
    return first, second
