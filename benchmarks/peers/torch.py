"""PyTorch's ``nn.GRU`` and ``nn.LSTM``, in a process of their own, on equally many threads.

Two libraries with a pool of threads each, in one process, disturb each other even while one of
them rests. The process is fed commands through a pipe, one at a time, so that it takes part in
the same rounds as everybody else.
"""

import contextlib
import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.cases import Case, Data
from benchmarks.peers import Competitor

_QUANTITIES = ("forward", "gradient", "eager", "step")


def competitors(case: Case, data: Data) -> list[Competitor]:
    """One competitor, time-major; the process draws the same numbers as ``data`` by itself.

    Raises:
      ImportError: PyTorch is not installed.
    """
    if importlib.util.find_spec("torch") is None:
        raise ModuleNotFoundError("No module named 'torch'")
    worker = Worker()
    try:
        offers = worker.ask("build", case=dataclasses.asdict(case))
    except BaseException:
        worker.close()
        raise

    def timed(quantity: str):
        return lambda calls: worker.ask("measure", quantity=quantity, calls=calls)

    return [
        Competitor(
            name=f"torch.nn.{case.cell.upper()}",
            library="torch",
            checksum=lambda: worker.ask("checksum"),
            memory=(lambda: worker.ask("memory")) if "memory" in offers else None,
            close=worker.close,
            **{quantity: timed(quantity) for quantity in _QUANTITIES},
        )
    ]


class Worker:
    """A process that holds PyTorch; see ``benchmarks.peers.torch_worker``."""

    def __init__(self) -> None:
        root = str(Path(__file__).parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers.torch_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            # Ctrl-C is for us: we then close the worker.
            start_new_session=True,
        )

    def ask(self, do: str, **arguments: Any) -> Any:
        """Sends a command and waits for the answer.

        Raises:
          RuntimeError: the command failed there, or the process has ended.
        """
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except (BrokenPipeError, ValueError):
            line = ""
        if not line:
            raise RuntimeError(f"torch's process ended (exit status {self._process.poll()})")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["value"]

    def close(self) -> None:
        """Ends the process."""
        self._process.terminate()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            # What a closed pipe could not take any more is of no use to anybody.
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
