"""What a program is traced for: the seam between the kernels and the machine."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax

VERSIONS = ((0, 11), (0, 12))
"""Versions of JAX with which the kernels were seen to be right on a card."""

CAPABILITY = "9.0"
"""What the kernels are written for: Hopper, as the H100 and H200."""


@dataclasses.dataclass(frozen=True)
class Target:
    """A machine.

    Attributes:
      capability: compute capability of the default backend's first device, "" where it has none.
      version: of JAX, its first two numbers.
      devices: how many devices the default backend has, those of other processes too.
      interpret: how kernels are interpreted where there is no GPU, or False: an
        ``InterpretGPUParams`` of ``jax.experimental.pallas.mosaic_gpu``, from 0.11 on.
    """

    capability: str
    version: tuple[int, ...]
    devices: int = 1
    interpret: Any = False


def target() -> Target:
    """The machine that runs what is traced now.

    Tests put another one in its place; compiled calls have to be forgotten then
    (``jax.clear_caches``), since they depend on it without knowing.
    """
    capability = ""
    if jax.default_backend() == "gpu":
        capability = str(getattr(jax.devices()[0], "compute_capability", ""))
    return Target(capability, jax.__version_info__[:2], jax.device_count())


def obstacles() -> Iterator[str]:
    """What of the machine keeps any kernel from being run, in words."""
    here = target()
    if here.capability != CAPABILITY:
        yield (
            f"the kernel is written for GPUs of compute capability {CAPABILITY} (H100, H200), and "
            f"the default device has {here.capability or 'none'}"
        )
    if here.version not in VERSIONS:
        known = " and ".join(".".join(map(str, version)) for version in VERSIONS)
        own = ".".join(map(str, here.version))
        yield f"the kernel is known to work with JAX {known}, and this is {own}"


def on_a_mesh(*arrays: Any) -> Iterator[str]:
    """Why no kernel is run where arrays lie on a mesh, if they do."""
    meshes = [jax.typeof(x).sharding.mesh for x in arrays if isinstance(x, jax.Array)]
    if not all(mesh.empty for mesh in (jax.sharding.get_abstract_mesh(), *meshes)):
        yield "the arrays lie on a mesh, over which the compiler cannot spread a kernel"
