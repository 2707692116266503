"""What the tests of the converters share: carries in a neutral form, and comparison."""

import functools
import json
from typing import Any

import jax
import numpy as np

import registry

from .live.shapes import Shape

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}


@functools.cache
def compiled(config: str) -> Any:
    """Returns the compiled `apply` of a layer, which all cases with that config (JSON) share."""
    return jax.jit(registry.build(json.loads(config)).apply)


def neutral(shape: Shape, carry: Any) -> list[list[list[np.ndarray]]]:
    """Returns the carry of a layer of ours as layers x directions of [h] or [h, c]."""
    layers = carry if shape.layers > 1 else [carry]
    sides = [layer if shape.directions == 2 else [layer] for layer in layers]
    return [
        [[np.asarray(a) for a in (side[::-1] if shape.has_c else [side])] for side in layer]
        for layer in sides
    ]


def assert_close(found: Any, expected: Any, dtype: str = "float32") -> None:
    """Compares the leaves of two trees one after the other."""
    leaves = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    for ours, theirs in leaves:
        np.testing.assert_allclose(
            np.asarray(ours, np.float64), np.asarray(theirs, np.float64), 0, TOLERANCE[dtype]
        )


def assert_same(found: Any, expected: Any) -> None:
    """Compares two trees bit for bit: structure, dtypes and values."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
