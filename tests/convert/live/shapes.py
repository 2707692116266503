"""What a foreign network is to be, and random numbers for it."""

import dataclasses
from typing import Any

import numpy as np

BATCH, STEPS, INPUTS, FEATURES = 3, 5, 3, 4
LENGTHS = np.array([5, 1, 3])


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a foreign network is to be.

    Attributes:
        cell: a name that the library's class here knows.
        layers: on top of each other.
        directions: 1 or 2.
        bias: whether it has biases, where the library leaves the choice.
        dtype: of weights and computation.
        seed: of the weights.
    """

    cell: str
    layers: int = 1
    directions: int = 1
    bias: bool = True
    dtype: str = "float32"
    seed: int = 0

    def __str__(self) -> str:
        bias = "" if self.bias else "-no_bias"
        return f"{self.cell}-{self.layers}x{self.directions}{bias}-{self.dtype}"

    @property
    def has_c(self) -> bool:
        """Whether the state has a cell part."""
        return "lstm" in self.cell

    def inputs(self, layer: int) -> int:
        """The features that a layer reads."""
        width = 3 if self.cell == "lstm_proj" else FEATURES
        return INPUTS if layer == 0 else width * self.directions

    def rng(self) -> np.random.Generator:
        """The generator of this network's weights."""
        return np.random.default_rng([self.seed, self.layers, self.directions, len(self.cell)])


def sequences(dtype: str = "float32", seed: int = 7) -> np.ndarray:
    """Random inputs (B, T, D)."""
    return np.random.default_rng(seed).normal(size=(BATCH, STEPS, INPUTS)).astype(dtype)


def states(shape: Shape, seed: int = 9) -> list[list[list[np.ndarray]]]:
    """Random initial states, layers x directions of [h] or [h, c]."""
    rng = np.random.default_rng(seed)
    widths = [3 if shape.cell == "lstm_proj" else FEATURES] + [FEATURES] * shape.has_c
    return [
        [
            [rng.normal(size=(BATCH, w)).astype(shape.dtype) for w in widths]
            for _ in range(shape.directions)
        ]
        for _ in range(shape.layers)
    ]


def randomise(rng: np.random.Generator, like: Any) -> np.ndarray:
    like = np.asarray(like)
    return (0.3 * rng.normal(size=like.shape)).astype(like.dtype)


def nested(shape: Shape, start: Any, write: Any) -> Any:
    sides = [[write(side) for side in layer] for layer in start]
    layers = [tuple(layer) if shape.directions == 2 else layer[0] for layer in sides]
    return tuple(layers) if shape.layers > 1 else layers[0]
