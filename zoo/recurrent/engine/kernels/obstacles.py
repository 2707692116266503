"""What keeps any kernel from being run, in words."""

import math
from collections.abc import Iterator
from typing import Any

import jax
from jax.export import is_symbolic_dim

from zoo.recurrent.engine.kernels import target

MOST = 2**31
"""Numbers in an array, of which kernels take fewer: indices have 32 bits."""


def of_machine() -> Iterator[str]:
    """What is wrong with the machine."""
    here = target.target()
    if here.capability != target.CAPABILITY:
        yield (
            f"the kernel is written for GPUs of compute capability {target.CAPABILITY} (H100, "
            f"H200), and the default device has {here.capability or 'none'}"
        )
    if here.version not in target.VERSIONS:
        known = " and ".join(".".join(map(str, version)) for version in target.VERSIONS)
        own = ".".join(map(str, here.version))
        yield f"the kernel is known to work with JAX {known}, and this is {own}"


def of_mesh(*arrays: Any) -> Iterator[str]:
    """What is wrong with where arrays lie."""
    meshes = [jax.typeof(x).sharding.mesh for x in arrays if isinstance(x, jax.Array)]
    if not all(mesh.empty for mesh in (jax.sharding.get_abstract_mesh(), *meshes)):
        yield "the arrays lie on a mesh, over which the compiler cannot spread a kernel"


def of_shape(shape: tuple[Any, ...], width: int) -> Iterator[str]:
    """What is wrong with the shape of inputs (T, *batch, D).

    Args:
      shape: of inputs.
      width: numbers of one step of a row in the largest array.
    """
    if any(map(is_symbolic_dim, shape)):
        yield f"the shape of xs is symbolic: {shape}"
        return
    steps, batch = shape[0], math.prod(shape[1:-1])
    if steps < 2:
        yield "there is one step, for which no loop is needed"
    if batch < 1 or shape[-1] < 1:
        yield f"xs are empty: {shape}"
    if steps * batch * width >= MOST:
        yield "there would be arrays of 2**31 numbers or more, which was not tried"
