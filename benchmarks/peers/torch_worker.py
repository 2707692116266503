"""The process that holds PyTorch: reads commands as JSON, a line each, and answers likewise."""

import json
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

import numpy as np
import torch

from benchmarks.cases import Case, draw
from benchmarks.machine import cores
from benchmarks.timing import repeat, why

# nn.GRU and nn.LSTM stack their gates in this order.
_ORDER = {"gru": "rzn", "lstm": "ifgo"}


class Problem:
    """A case in PyTorch.

    Args:
      case: the problem.
    """

    def __init__(self, case: Case) -> None:
        self._device = torch.device("cuda" if case.platform == "gpu" else "cpu")
        if self._device.type == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("JAX has a GPU here, but this PyTorch cannot use one")
        torch.set_num_threads(cores())
        rounds = case.dtype == "tensorfloat32"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = rounds
        size, data = case.size, draw(case)
        self._like = {"device": self._device, "dtype": getattr(torch, case.array_dtype)}
        layer_class = torch.nn.GRU if case.cell == "gru" else torch.nn.LSTM
        cell_class = torch.nn.GRUCell if case.cell == "gru" else torch.nn.LSTMCell
        self._layer = layer_class(size.inputs, size.features, **self._like)
        self._cell = cell_class(size.inputs, size.features, **self._like)
        order = _ORDER[case.cell]
        weights = {
            "weight_ih": data.joined("i", order).T,
            "weight_hh": data.joined("h", order).T,
            "bias_ih": data.joined_bias("i", order),
            "bias_hh": data.joined_bias("h", order),
        }
        self._load(self._layer, {f"{name}_l0": value for name, value in weights.items()})
        self._load(self._cell, weights)
        self._xs = self._tensor(data.xs)
        self._cotangent = self._tensor(data.cotangent)
        self._wanted = (self._tensor(data.xs).requires_grad_(), *self._layer.parameters())
        zeros = torch.zeros(size.batch, size.features, **self._like)
        self._start = zeros if case.cell == "gru" else (zeros, zeros)

    def offers(self) -> list[str]:
        """What can be measured here and not everywhere."""
        return ["memory"] if self._device.type == "cuda" else []

    def measure(self, quantity: str, calls: int) -> float:
        """Measures seconds per call."""
        if quantity == "step":
            return self._measure_steps(calls)
        return repeat(self._gradient if quantity == "gradient" else self._forward)(calls)

    def checksum(self) -> float:
        """The sum of outputs times cotangents."""
        return float((self._forward().double() * self._cotangent.double()).sum())

    def memory(self) -> int:
        """The most bytes that a gradient held at once, without what was there before or stays."""
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        gradients = self._gradient()
        stays = sum(gradient.nbytes for gradient in gradients)
        return torch.cuda.max_memory_allocated() - before - stays

    def _forward(self) -> torch.Tensor:
        with torch.inference_mode():
            ys = self._layer(self._xs)[0]
        self._wait()
        return ys

    def _gradient(self) -> tuple[torch.Tensor, ...]:
        loss = (self._layer(self._wanted[0])[0] * self._cotangent).sum()
        gradients = torch.autograd.grad(loss, self._wanted)
        self._wait()
        return gradients

    def _measure_steps(self, calls: int) -> float:
        carry, x = self._start, self._xs[0]

        def step() -> None:
            nonlocal carry
            carry = self._cell(x, carry)
            self._wait()

        with torch.inference_mode():
            return repeat(step)(calls)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(**self._like)

    def _load(self, module: torch.nn.Module, weights: dict[str, np.ndarray]) -> None:
        module.load_state_dict({name: self._tensor(value) for name, value in weights.items()})


def serve(commands: TextIO, answers: TextIO) -> None:
    """Answers commands until there are no more."""
    problem: Problem | None = None

    def build(case: dict[str, Any]) -> list[str]:
        nonlocal problem
        problem = Problem(Case.from_json(case))
        return problem.offers()

    def handler(do: str) -> Callable[..., Any]:
        return build if do == "build" else getattr(problem, do)

    for line in commands:
        command = json.loads(line)
        try:
            answer = {"value": handler(command.pop("do"))(**command)}
        except Exception as error:
            answer = {"error": why(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    # Whatever a library prints must not run into the answers.
    with os.fdopen(os.dup(1), "w") as own:
        os.dup2(2, 1)
        serve(sys.stdin, own)
