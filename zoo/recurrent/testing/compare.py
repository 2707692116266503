"""Comparisons of trees of arrays whose failures say what was expected and what came."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any


def require(condition: Any, message: str) -> None:
    """Raises AssertionError with the message where the condition is false."""
    if not condition:
        raise AssertionError(message)


def same(got: Tree, expected: Tree, what: str) -> None:
    """Requires equal structures, shapes, dtypes and values; NaN equals NaN.

    Args:
      got: a tree of arrays.
      expected: what it should be.
      what: what the trees are, for the message.

    Raises:
      AssertionError: they differ.
    """
    for where, a, b in _pairs(got, expected, what):
        equal = (a == b) | ((a != a) & (b != b))
        if not equal.all():
            raise AssertionError(f"{where}: {_worst(a, b, ~equal)}; expected the same bits.")


def close(got: Tree, expected: Tree, what: str, *, tolerance: float | None = None) -> None:
    """Requires equal structures, shapes and dtypes, and values that differ by rounding only.

    Args:
      got: a tree of arrays.
      expected: what it should be.
      what: what the trees are, for the message.
      tolerance: what a difference may be, relative to 1 + |expected|; by default 64 times the
        dtype's epsilon.

    Raises:
      AssertionError: they differ.
    """
    for where, a, b in _pairs(got, expected, what):
        allowed = tolerance
        if allowed is None:
            allowed = (
                64 * float(jnp.finfo(a.dtype).eps) if jnp.issubdtype(a.dtype, jnp.floating) else 0
            )
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        with np.errstate(invalid="ignore"):
            near = (np.abs(a - b) <= allowed * (1 + np.abs(b))) | (a == b)
        near |= np.isnan(a) & np.isnan(b)
        if not near.all():
            worst = _worst(a, b, ~near)
            raise AssertionError(f"{where}: {worst}; allowed difference: {allowed:.1e}.")


def same_shapes(got: Tree, expected: Tree, what: str) -> None:
    """Requires equal structures, shapes and dtypes; arrays and ``ShapeDtypeStruct`` alike.

    Args:
      got: a tree of anything with a shape and a dtype.
      expected: what it should be.
      what: what the trees are, for the message.

    Raises:
      AssertionError: they differ.
    """
    have, want = jax.tree.structure(got), jax.tree.structure(expected)
    require(have == want, f"{what}: expected the structure {want}, got {have}.")
    expected_leaves = jax.tree.leaves(expected)
    flat, _ = jax.tree_util.tree_flatten_with_path(got)
    for (path, a), b in zip(flat, expected_leaves, strict=True):
        where = what + jax.tree_util.keystr(path)
        require(
            a.shape == b.shape and a.dtype == b.dtype,
            f"{where}: expected {_brief(b)}, got {_brief(a)}.",
        )


def paths(tree: Tree) -> dict[str, str]:
    """Returns the dtype and shape of every leaf by its path, ``{"ir/kernel": "float32[3, 4]"}``."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): _brief(leaf) for path, leaf in flat
    }


def same_paths(got: dict[str, str], expected: dict[str, str], what: str) -> None:
    """Requires two results of ``paths`` to be equal.

    Raises:
      AssertionError: they differ; the message names the paths that do.
    """
    missing = {k: v for k, v in expected.items() if got.get(k) != v}
    extra = {k: v for k, v in got.items() if expected.get(k) != v}
    require(got == expected, f"{what}: expected {missing or 'nothing'}, got {extra or 'nothing'}.")


def _pairs(got: Tree, expected: Tree, what: str) -> list[tuple[str, np.ndarray, np.ndarray]]:
    same_shapes(got, expected, what)
    flat, _ = jax.tree_util.tree_flatten_with_path(got)
    return [
        (what + jax.tree_util.keystr(path), np.asarray(a), np.asarray(b))
        for (path, a), b in zip(flat, jax.tree.leaves(expected), strict=True)
    ]


def _worst(a: np.ndarray, b: np.ndarray, wrong: np.ndarray) -> str:
    with np.errstate(invalid="ignore"):
        size = np.where(wrong, np.abs(a.astype(np.float64) - b.astype(np.float64)), -1.0)
    index = np.unravel_index(np.argmax(np.where(np.isnan(size), np.inf, size)), a.shape)
    place = f" at {[int(i) for i in index]}" if index else ""
    return f"expected {b[index]}{place}, got {a[index]} ({int(wrong.sum())} of {a.size} differ)"


def _brief(x: Any) -> str:
    return f"{x.dtype}{list(x.shape)}"
