"""What a program is traced for: the seam between the kernels and the machine."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from zoo.recurrent.engine.backend import platform

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
    if platform() == "gpu":
        capability = str(getattr(jax.devices()[0], "compute_capability", ""))
    return Target(capability, jax.__version_info__[:2], jax.device_count())


def by_kernel(
    kernel: Callable[..., Any], loop: Callable[..., Any], interpret: Any, *arguments: Any
) -> Any:
    """Runs a kernel, or a loop where a program that was traced for a GPU is compiled for another.

    Such as one whose arrays were put on a CPU beside the GPU, which is known only then.
    """
    if interpret:
        return kernel(*arguments)
    return jax.lax.platform_dependent(*arguments, cuda=kernel, default=loop)
