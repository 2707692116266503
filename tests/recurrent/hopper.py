"""A Hopper GPU in the place of this machine: what it has, and how its kernels are interpreted."""

import contextlib
import dataclasses
from typing import Any
from unittest import mock

import jax
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
