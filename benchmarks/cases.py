"""What is measured: sizes, cases, and the numbers that every competitor is given."""

import contextlib
import dataclasses
import re
from typing import Any

import numpy as np

GATES = {"gru": "rzn", "lstm": "ifgo"}
DTYPES = ("float32", "tensorfloat32", "bfloat16")
"""How numbers are held and multiplied; tensorfloat32 is float32 with rounded factors, on a GPU."""

Params = dict[str, dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Size:
    """The size of a problem.

    Attributes:
      batch: B, sequences.
      steps: T, steps of each.
      inputs: D, input features.
      features: H, hidden features.
    """

    batch: int
    steps: int
    inputs: int
    features: int

    @classmethod
    def parse(cls, text: str) -> "Size":
        """Reads "BxTxDxH".

        Example:
          >>> Size.parse("32x256x128x64")
          Size(batch=32, steps=256, inputs=128, features=64)

        Raises:
          ValueError: it is not four positive numbers with "x" between them.
        """
        if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){3}", text):
            raise ValueError(f"expected a size BxTxDxH such as 32x256x128x128, got {text!r}")
        return cls(*map(int, text.split("x")))

    def __str__(self) -> str:
        return f"B{self.batch} T{self.steps} D{self.inputs} H{self.features}"


@dataclasses.dataclass(frozen=True)
class Case:
    """One problem that every competitor solves.

    Attributes:
      cell: "gru" or "lstm", which other libraries have too; or another of our layers, by its
        registered name without "scan_".
      size: how large.
      dtype: of parameters, inputs, outputs and products: one of ``DTYPES``.
      platform: where it runs: "cpu" or "gpu".
      checkpoint_every: if given, our layer is compared with itself under this option.
      heads: blocks of the recurrent kernel; with more than one, our layer is compared with itself.
      sweep: whether our layer takes part in more ways than users choose between.
    """

    cell: str
    size: Size
    dtype: str = "float32"
    platform: str = "cpu"
    checkpoint_every: int | None = None
    heads: int = 1
    sweep: bool = False

    @property
    def ours_alone(self) -> bool:
        """Whether no other library has such a layer."""
        return self.cell not in GATES or self.heads > 1

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Case":
        """Makes a case of what ``dataclasses.asdict`` made of one."""
        return cls(**{**fields, "size": Size(**fields["size"])})

    @property
    def array_dtype(self) -> str:
        """The dtype of arrays: tensorfloat32 is a way of multiplying, not of holding numbers."""
        return "float32" if self.dtype == "tensorfloat32" else self.dtype

    def arithmetic(self) -> contextlib.AbstractContextManager:
        """How JAX multiplies while something of this case is traced.

        A GPU rounds the factors of float32 products unless it is told not to.
        """
        import jax

        if self.platform == "cpu" or self.dtype == "bfloat16":
            return contextlib.nullcontext()
        return jax.default_matmul_precision("highest" if self.dtype == "float32" else self.dtype)

    @property
    def shape(self) -> str:
        """The size, and the heads where there are several."""
        return f"{self.size} heads={self.heads}" if self.heads > 1 else str(self.size)

    def __str__(self) -> str:
        option = f" checkpoint_every={self.checkpoint_every}" if self.checkpoint_every else ""
        return f"{self.cell} {self.shape} {self.dtype}{option}"


@dataclasses.dataclass(frozen=True)
class Data:
    """The numbers of a case, float32; the same ones in every process.

    Attributes:
      params: kernels and biases under the names that Flax's cells use; none for a layer that is
        compared with itself alone, and initialises them.
      xs: inputs (T, B, D); for convolutions (T, B, 8, …, D).
      cotangent: what the outputs are multiplied by before they are summed up, (T, B, …, H).
    """

    params: Params
    xs: np.ndarray
    cotangent: np.ndarray

    def joined(self, side: str, gates: str, axis: int = -1) -> np.ndarray:
        """The kernels of one side ("i" or "h") in the given order of gates, joined."""
        return np.concatenate([self.params[side + gate]["kernel"] for gate in gates], axis=axis)

    def joined_bias(self, side: str, gates: str) -> np.ndarray:
        """The biases of one side in the given order of gates, zeros where a gate has none."""
        width = self.cotangent.shape[-1]
        own = [self.params[side + gate].get("bias", np.zeros(width, "f4")) for gate in gates]
        return np.concatenate(own)


def draw(case: Case) -> Data:
    """Draws the numbers of a case.

    A GRU's recurrent bias (``hn``) is zero, because not every library has one.

    Args:
      case: only its cell and its size matter.

    Returns:
      Parameters with kernels of about unit gain, standard normal inputs and cotangents.

    Example:
      >>> data = draw(Case("gru", Size(batch=2, steps=3, inputs=4, features=5)))
      >>> data.xs.shape, data.cotangent.shape, data.params["hn"]["kernel"].shape
      ((3, 2, 4), (3, 2, 5), (5, 5))
    """
    size, random = case.size, np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape, np.float32)

    if case.ours_alone:
        space = (8,) * (_feature_axes(case.cell) - 1)
        xs = normal(size.steps, size.batch, *space, size.inputs)
        return Data({}, xs, normal(*xs.shape[:-1], size.features))
    params: Params = {}
    for side, rows in (("i", size.inputs), ("h", size.features)):
        for gate in GATES[case.cell]:
            params[side + gate] = {"kernel": normal(rows, size.features) / np.float32(rows**0.5)}
            if side == ("i" if case.cell == "gru" else "h"):
                params[side + gate]["bias"] = 0.1 * normal(size.features)
    if case.cell == "gru":
        params["hn"]["bias"] = np.zeros(size.features, np.float32)
    return Data(
        params=params,
        xs=normal(size.steps, size.batch, size.inputs),
        cotangent=normal(size.steps, size.batch, size.features),
    )


def _feature_axes(cell: str) -> int:
    import registry

    return registry.build(f"scan_{cell}", features=1).feature_axes
