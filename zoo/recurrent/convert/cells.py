"""One direction of one layer as gates: the form that every library is translated to and from."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.recurrent.convert.source import Source

Gates = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Kind:
    """How the layer of one kind names its gates and where it keeps their biases.

    Attributes:
        layer: the registered name.
        gates: a gate `g` has an input kernel at `i{g}` and a recurrent kernel at `h{g}`.
        biased: "i" or "h", the side that holds a gate's bias.
        inner: the gate whose recurrent product is multiplied by another gate, bias included; its
            recurrent bias cannot be added to its input bias.
    """

    layer: str
    gates: tuple[str, ...]
    biased: str
    inner: str | None = None


KINDS = {
    "gru": Kind("scan_gru", ("r", "z", "n"), "i", inner="n"),
    "lstm": Kind("scan_lstm", ("i", "f", "g", "o"), "h"),
    "simplified_gru": Kind("scan_simplified_gru", ("r", "z", "n"), "i"),
    "elman": Kind("scan_elman", ("",), "i"),
    "mgu": Kind("scan_mgu", ("f", "n"), "i", inner="n"),
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """The weights of one direction of one layer, gate by gate.

    Attributes:
        kind: a key of `KINDS`.
        kernels: gate → (D, H), applied to the input; without "f" where it is 1 - i.
        recurrent: gate → (P or H, H), applied to the previous h.
        bias: gate → (H,), added to the gate; None where the layer has no biases.
        inner_bias: (H,), inside the product of the kind's inner gate; None where there is none.
        projection: (H, P), from o * tanh(c) to h; LSTM only.
        peepholes: gate → (H,), multiplied by c and added to the gate; LSTM only.
        initial: "h" (and "c") → (H,), a learned initial carry; usually empty.
        options: build options that change the function and are not the default.
    """

    kind: str
    kernels: Gates
    recurrent: Gates
    bias: Gates | None = None
    inner_bias: np.ndarray | None = None
    projection: np.ndarray | None = None
    peepholes: Gates | None = None
    initial: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def inputs(self) -> int:
        """D, the features of the input."""
        return next(iter(self.kernels.values())).shape[0]

    @property
    def features(self) -> int:
        """H, the features of a gate."""
        return next(iter(self.kernels.values())).shape[1]

    @property
    def outputs(self) -> int:
        """The features of the output: P with a projection, else H."""
        return self.features if self.projection is None else self.projection.shape[1]

    def params(self) -> dict[str, Any]:
        """Returns the parameter tree of the layer."""
        kind = KINDS[self.kind]
        tree: dict[str, Any] = {}
        for gate in self.kernels:
            for side, kernels in (("i", self.kernels), ("h", self.recurrent)):
                tree[side + gate] = {"kernel": kernels[gate]}
            if self.bias is not None:
                tree[kind.biased + gate]["bias"] = self.bias[gate]
        if self.inner_bias is not None:
            tree[f"h{kind.inner}"]["bias"] = self.inner_bias
        if self.projection is not None:
            tree["proj"] = {"kernel": self.projection}
        tree |= {f"p{gate}": vector for gate, vector in (self.peepholes or {}).items()}
        return tree | {f"initial_{key}": value for key, value in self.initial.items()}

    def with_negated(self, gate: str) -> "Cell":
        """Returns the cell with the sign of everything that is added up in `gate` changed."""
        return dataclasses.replace(
            self,
            kernels={**self.kernels, gate: -self.kernels[gate]},
            recurrent={**self.recurrent, gate: -self.recurrent[gate]},
            bias=self.bias and {**self.bias, gate: -self.bias[gate]},
        )

    def biases(self) -> tuple[Gates, Gates] | None:
        """Returns input biases and recurrent biases, one of each per gate; None without biases.

        A gate has one bias here, which lies on the side where our parameters keep it; the other
        is zero. This is the way back to libraries that keep two biases per gate.
        """
        if self.bias is None:
            return None
        kind = KINDS[self.kind]
        zeros = {gate: np.zeros_like(bias) for gate, bias in self.bias.items()}
        if kind.biased == "h":
            return zeros, dict(self.bias)
        if self.inner_bias is not None and kind.inner is not None:
            zeros[kind.inner] = self.inner_bias
        return dict(self.bias), zeros


def fold_biases(kind: str, inputs: Gates, recurrent: Gates) -> dict[str, Any]:
    """Returns `bias` and `inner_bias` of a `Cell` from the two biases that a gate has elsewhere."""
    inner = KINDS[kind].inner
    return {
        "bias": {
            gate: bias if gate == inner else bias + recurrent[gate] for gate, bias in inputs.items()
        },
        "inner_bias": None if inner is None else recurrent.get(inner),
    }


def split_gates(array: np.ndarray, gates: Sequence[str], axis: int = -1) -> Gates:
    """Returns the equal blocks of `array` along `axis` by gate.

    Example:
        >>> split_gates(np.arange(4), "zr")
        {'z': array([0, 1]), 'r': array([2, 3])}
    """
    return dict(zip(gates, np.split(array, len(gates), axis=axis), strict=True))


def fuse_gates(blocks: Gates, gates: Sequence[str], axis: int = -1) -> np.ndarray:
    """Returns one array with the blocks of `gates` in that order along `axis`."""
    return np.concatenate([blocks[gate] for gate in gates], axis=axis)


def transposed(blocks: Gates) -> Gates:
    """Returns the blocks with their two axes exchanged."""
    return {gate: block.T for gate, block in blocks.items()}


def read_cell(source: Source, kind: str, options: Mapping[str, Any], **flags: bool) -> Cell:
    """Reads one cell from parameters in the layout of this project, which is Flax Linen's.

    Args:
        source: the flat parameters, `"ir/kernel"` and so on; all of them are used up.
        kind: a key of `KINDS`.
        options: what `Cell.options` becomes.
        **flags: `use_bias`, `inner_bias` and `projection`, False where missing: which parameters
            there have to be.

    Raises:
        ConversionError: a parameter is missing, left over, or of another shape.
    """
    names = KINDS[kind]
    first = names.gates[0]
    wide = source.shape(f"i{first}/kernel")
    if len(wide) != 2:
        source.mismatch(f"i{first}/kernel", "two axes (D, H)")
    inputs, features = wide
    outputs = features
    projection = None
    if flags.get("projection"):
        shape = source.shape("proj/kernel")
        outputs = shape[-1] if shape else 0
        projection = source.take("proj/kernel", (features, outputs))
    cell = Cell(
        kind,
        {g: source.take(f"i{g}/kernel", (inputs, features)) for g in names.gates},
        {g: source.take(f"h{g}/kernel", (outputs, features)) for g in names.gates},
        {g: source.take(f"{names.biased}{g}/bias", (features,)) for g in names.gates}
        if flags.get("use_bias")
        else None,
        source.take(f"h{names.inner}/bias", (features,)) if flags.get("inner_bias") else None,
        projection,
        options=options,
    )
    source.finish()
    return cell
