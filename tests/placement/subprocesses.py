"""Runs programs beside the tests: this process has started JAX with the devices that it has."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def started(*command: Any, devices: int = 1, **options: Any) -> subprocess.Popen:
    """Starts Python on so many CPU devices, with warnings as errors and quick compilation."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": str(ROOT),
    }
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-W", "error", *map(str, command)],
        cwd=ROOT,
        env=environment,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
        **options,
    )


def said(process: subprocess.Popen) -> str:
    """What a process prints, once it has ended well."""
    with process:
        output, errors = process.communicate(timeout=1800)
    assert process.returncode == 0, errors
    return output


def losses(*command: Any, processes: int, devices: int) -> list[float]:
    """What a training program prints, the same in each of so many processes that are joined.

    Args:
      *command: the program; it is given an address, how many processes, and which of them it is.
      processes: how many.
      devices: how many each of them has.
    """
    address = f"localhost:{_free_port()}"
    running = [
        started(*command, address, processes, process, devices=devices)
        for process in range(processes)
    ]
    # Gloo reports its connections in between.
    printed = [re.findall(r"^\d\.\d{6}$", said(process), re.MULTILINE) for process in running]
    assert printed == printed[:1] * processes
    return list(map(float, printed[0]))


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]
