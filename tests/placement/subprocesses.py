"""Runs programs beside the tests: this process has started JAX with the devices that it has."""

import os
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
