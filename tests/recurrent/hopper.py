"""A Hopper GPU in the place of this machine, and what layers are asked for on it."""

import contextlib
import dataclasses
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.recurrent.engine.kernels import target

# Told as a version that is known: the tests run with others, too.
HOPPER = target.Target(target.CAPABILITY, target.VERSIONS[0])
# JAX 0.10 has no interpreter of Mosaic GPU, and another ``load``: the kernels are not traced there.
KNOWN = pytest.mark.skipif(
    jax.__version_info__[:2] < (0, 11), reason="JAX 0.10 has no interpreter for the kernels"
)


def put(*, interpreted: bool = False, **differences: Any) -> contextlib.AbstractContextManager:
    """Puts a machine in the place of this one."""
    machine = dataclasses.replace(HOPPER, **differences)
    if interpreted:
        from jax.experimental.pallas import mosaic_gpu

        machine = dataclasses.replace(machine, interpret=mosaic_gpu.InterpretGPUParams())
    # What was traced before was traced for another.
    jax.clear_caches()
    return mock.patch.object(target, "target", lambda: machine)


def some(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def values_and_gradients(layer, variables, xs, carry=None, **given):
    weights = some((*xs.shape[:-1], layer.features), 1)

    def loss(variables, xs, carry):
        found = layer.apply(variables, carry, xs, **given)
        seen = jax.tree.map(
            lambda x: jnp.where(jnp.isnan(x), jnp.zeros_like(x), x).astype(jnp.float32), found
        )
        total = jnp.sum(seen[1] * weights)
        return total + sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(seen[0])), found

    ask = (0, 1) if carry is None else (0, 1, 2)
    run = jax.jit(jax.value_and_grad(loss, ask, has_aux=True))
    (_, found), gradients = run(variables, xs, carry)
    return found, gradients
