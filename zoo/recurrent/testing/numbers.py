"""Checks of gradients and of dtypes."""

import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from zoo.recurrent.call import dtypes
from zoo.recurrent.testing.case import Case, counts, promise
from zoo.recurrent.testing.compare import require, same_shapes

_FLOATS = (jnp.float32, jnp.bfloat16, jnp.float16, jnp.float64)


@promise("gradients are finite and equal to finite differences")
def check_gradients(case: Case) -> None:
    """Gradients by every parameter, by xs and by the carry, with and without conditions."""
    for conditions in ({}, case.conditions):
        compare_gradients(case, **conditions)


def compare_gradients(case: Case, **conditions: np.ndarray) -> None:
    """Compares gradients by every parameter, by xs and by the carry with central differences.

    Raises:
      AssertionError: one of them differs.
    """
    _, gradients = case.gradients(case.weights, case.xs, **conditions)
    point = (case.variables, case.start, case.xs)
    flat, treedef = jax.tree_util.tree_flatten_with_path(jax.tree.map(np.asarray, point))
    leaves = [leaf for _, leaf in flat]
    weights = [np.asarray(w, np.float64) for w in jax.tree.leaves(case.weights)]
    random = np.random.default_rng(8)

    def loss(leaves: list[np.ndarray]) -> float:
        variables, carry, xs = jax.tree.unflatten(treedef, leaves)
        outputs = jax.tree.leaves(case.run(carry, xs, variables, **conditions))
        wide = (np.asarray(x, np.float64) for x in outputs)
        pairs = zip(wide, weights, strict=True)
        return sum(float(np.sum(np.where(counts(x), x, 0) * w)) for x, w in pairs)

    given = f" with {', '.join(conditions)}" if conditions else ""
    for i, gradient in enumerate(jax.tree.leaves(gradients)):
        where = _NAMES[flat[i][0][0].idx] + jax.tree_util.keystr(flat[i][0][1:]) + given
        gradient = np.asarray(gradient, np.float64)
        require(np.isfinite(gradient).all(), f"gradient by {where}: expected finite values.")
        direction = random.standard_normal(gradient.shape)
        direction /= np.linalg.norm(direction)

        def slope(size: float, i: int = i, d: np.ndarray = direction) -> float:
            ends = []
            for signed in (size, -size):
                moved = (leaves[i] + signed * d).astype(leaves[i].dtype)
                ends.append(loss([*leaves[:i], moved, *leaves[i + 1 :]]))
            return (ends[0] - ends[1]) / (2 * size)

        got = float(np.sum(gradient * direction))
        allowed = 2e-3 * (1 + np.linalg.norm(gradient))
        # Large steps are inexact where the layer bends, small ones where float32 rounds: two
        # steps are combined to fourth order, and the first pair that agrees will do.
        tried = [(4 * slope(h) - slope(2 * h)) / 3 for h in (2e-2, 5e-3, 1e-3)]
        require(
            min(abs(got - expected) for expected in tried) <= allowed,
            f"gradient by {where}, along a random direction: expected one of "
            f"{[round(x, 4) for x in tried]} (central differences), got {got:.4f}; allowed "
            f"difference: {allowed:.1e}.",
        )


@promise("ys come in dtype (or the common one of xs and parameters), the carry keeps its own")
def check_dtypes(case: Case) -> None:
    """Dtypes of ys and of the carry for floats of 16, 32 and, under x64, 64 bits in every place."""
    with jax.enable_x64(True):
        choices = [{}]
        for option in ("dtype", "param_dtype"):
            if case.supports(option):
                choices += [{option: dtype} for dtype in _FLOATS]
        for options, given in itertools.product(choices, _FLOATS):
            _check_dtypes_of(case, options, given)
    if case.supports("param_dtype"):
        _halves_initialise(case)
    if case.supports("carry_dtype"):
        spec = case.variant(carry_dtype=jnp.bfloat16).layer.carry_spec(case.xs.shape[1:])
        found = {x.dtype.name for x in jax.tree.leaves(spec)}
        # What would be useless in it may be wider.
        allowed = "bfloat16" in found and found <= {"bfloat16", "float32"}
        require(allowed, f"the carry with carry_dtype=bfloat16: got {found}.")


def _check_dtypes_of(case: Case, options: dict[str, Any], given: Any) -> None:
    layer = case.variant(**options).layer if options else case.layer
    xs = jax.ShapeDtypeStruct(case.xs.shape, given)
    variables = jax.eval_shape(layer.init, jax.random.key(0), None, xs)
    ours = [x.dtype for x in jax.tree.leaves(nn.meta.unbox(variables))]
    expected = options.get("dtype") or dtypes.promote(given, *ours)
    spec = layer.carry_spec(case.xs.shape[1:])
    for carry_dtype in (None,) if options else (None, *_FLOATS):
        start = None if carry_dtype is None else _cast(spec, carry_dtype)
        carry, ys = jax.eval_shape(layer.apply, variables, start, xs)
        what = f"for xs in {xs.dtype}, {_words(options)}, a carry in {_word(carry_dtype)}"
        same_shapes(carry, spec, f"the carry {what}")
        require(
            ys.dtype == expected,
            f"ys {what}: expected {jnp.dtype(expected).name}, got {ys.dtype}.",
        )


def _halves_initialise(case: Case) -> None:
    layer = case.variant(param_dtype=jnp.bfloat16).layer
    for leaf in jax.tree.leaves(layer.init(jax.random.key(0), None, case.xs)):
        require(
            leaf.dtype == jnp.bfloat16 and bool(jnp.isfinite(leaf).all()),
            f"parameters with param_dtype=bfloat16: expected finite bfloat16, got {leaf.dtype}.",
        )


def _cast(spec: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), spec)


def _word(dtype: Any) -> str:
    return "None" if dtype is None else jnp.dtype(dtype).name


def _words(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={_word(value)}" for name, value in options.items()) or "no options"


_NAMES = ("variables", "carry", "xs")
