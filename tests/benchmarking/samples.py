"""Sizes, a machine and a report that the tests of the benchmarks share."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.cases import Case, Size
from benchmarks.results import Report, Result, Series

SMALL = Size(batch=3, steps=5, inputs=2, features=4)
LARGE = Size(batch=1, steps=9, inputs=2, features=4)
MACHINE = {
    "date": "2024-01-01T00:00:00+00:00",
    "cpu": "A processor",
    "cores": 2,
    "memory_gb": 8.0,
    "load": 0.0,
    "system": "Linux",
    "backend": "cpu",
    "device": "cpu",
    "python": "3.11",
    "versions": {"jax": "0.10", "torch": None},
    "revision": "abc",
}


class Quiet:
    """A progress that keeps what it is told."""

    def __init__(self):
        self.rounds, self.said = 0, []

    def begin(self, what):
        pass

    def advance(self, rounds=1):
        self.rounds += rounds

    def say(self, text):
        self.said.append(text)


def result(quantity, series, case=None, missing=None):
    """A result of ``{name: (library, values)}``."""
    return Result(
        case=case or Case("lstm", SMALL),
        quantity=quantity,
        series=[Series(name, *rest) for name, rest in series.items()],
        missing=missing or {},
    )


def example():
    """A report whose numbers are easy to check by hand."""
    ours = ("ours", [1.0, 1.0, 1.0])
    gradient = {"ours auto": ours, "nn.RNN LSTMCell": ("linen", [4.0, 4.0, 9.0])}
    checkpoint = Case("lstm", SMALL, checkpoint_every=64)
    return Report(
        machine=MACHINE,
        command="python -m benchmarks.recurrent",
        results=[
            result("gradient", gradient | {"nn.RNN OptimizedLSTMCell": ("linen", [2.0] * 3)}),
            result("gradient", gradient, Case("lstm", LARGE), {"torch.nn": "not there"}),
            result(
                "gradient",
                {"ours auto": ours, "ours auto checkpoint_every=64": ("ours", [1.25] * 3)},
                checkpoint,
            ),
            result(
                "memory",
                {
                    "ours auto": ("ours", [8e6]),
                    "ours auto checkpoint_every=64": ("ours", [2e6]),
                },
                checkpoint,
            ),
        ],
        complete=True,
    )


def command(module, *options):
    """Runs a command of the benchmarks on the CPU, and returns what it printed."""
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *options],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
