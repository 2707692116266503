"""The layers against independent implementations: values, and gradients by all they are given.

flashrnn and xlstm are not in the extra [interop]: what they require needs a GPU, their plain
backends do not (``pip install --no-deps flashrnn xlstm``).
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from site import addsitedir
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import registry

from . import foreign

pytestmark = pytest.mark.interop

T, B, D, H = 5, 3, 4, 6


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.fixture
def torch() -> Any:
    # Imported here, because other tests should not wait for it.
    return pytest.importorskip("torch")


@pytest.fixture
def library(torch: Any) -> Callable[[str], Any]:
    return lambda name: pytest.importorskip(name, exc_type=ImportError)


def build(name: str, **options: Any) -> Any:
    dtypes = {"param_dtype": jnp.float64, "carry_dtype": jnp.float64}
    return registry.build(name, features=H, **dtypes, **options)


def kernels(torch: Any, params: Any, names: str, axis: int) -> Any:
    return torch.stack([params[name]["kernel"] for name in names.split()], axis)


def biases(torch: Any, params: Any, names: str) -> Any:
    return torch.stack([params[name]["bias"] for name in names.split()])


# The function of flashrnn, and in its order: our recurrent kernels, input kernels and biases (its
# GRU has those of n alone beside those that are added, n's first), and the arrays of the carry.
FLASH = {
    "elman": ("scan_elman", "h", "i", "i", "h"),
    "gru": ("scan_gru", "hn hr hz", "ir iz in", "hn ir iz in", "h"),
    "lstm": ("scan_lstm", "hi hf hg ho", "ii if ig io", "hi hf hg ho", "hc"),
    "slstm": ("scan_slstm", "hi hf hz ho", "ii if iz io", "ii if iz io", "hcnm"),
}


def flash(torch: Any, function: str, heads: int, layer: Any) -> Callable[..., Any]:
    """Its arrays are (B, T, gates, heads, D), (gates, heads, D, D before) and (gates, heads, D)."""
    from flashrnn import flashrnn

    _, recurrent, inputs, added, states = FLASH[function]
    names = layer.cell.carry_names
    per_head = (heads, H // heads)

    def apply(params: Any, start: Any, xs: Any, given: Any) -> Any:
        wx = torch.stack([xs @ params[k]["kernel"] for k in inputs.split()], 2).transpose(0, 1)
        r = kernels(torch, params, recurrent, 0).reshape(-1, heads, *per_head[1:] * 2)
        if start is not None:
            leaves = dict(zip(names, start if len(names) > 1 else (start,), strict=True))
            start = torch.stack([leaves[k] for k in states]).reshape(len(names), B, 1, *per_head)
        every, last = flashrnn(
            wx.reshape(B, T, -1, *per_head),
            r.transpose(2, 3),
            biases(torch, params, added).reshape(-1, *per_head),
            start,
            function=function,
            backend="vanilla",
            dtype="float64",
        )
        carry = dict(zip(states, last.reshape(len(names), B, H), strict=True))
        return [carry[k] for k in names], every[0].reshape(B, T, H).transpose(0, 1)

    return apply


# Its sLSTM rests at n = 0 and m = 0 and takes m' = i where every n of the batch is 0; ours rests
# at m = -1e30, which comes to the same, but for each row by itself. It keeps n' at 1 at least,
# which changes nothing unless a carry is given whose n is less.
@pytest.mark.parametrize("rest", [False, True], ids=["given carry", "at rest"])
@pytest.mark.parametrize("heads", [1, 2, 3])
@pytest.mark.parametrize("function", FLASH)
def test_flashrnn(torch: Any, library: Any, function: str, heads: int, rest: bool) -> None:
    library("flashrnn")
    layer = build(FLASH[function][0], heads=heads)
    numbers = foreign.numbers(layer, (T, B, D), rest=rest)
    apply = flash(torch, function, heads, layer)
    foreign.assert_agree(foreign.by_layer(layer, numbers), foreign.by_torch(apply, numbers))


# What is said above of rest holds here too; n' has no least value here.
@pytest.mark.parametrize("rest", [False, True], ids=["given carry", "at rest"])
@pytest.mark.parametrize("heads", [1, 2, 3])
def test_xlstm(torch: Any, library: Any, heads: int, rest: bool) -> None:
    library("xlstm")
    from xlstm.blocks.slstm import cell as theirs

    config = theirs.sLSTMCellConfig(H, heads, backend="vanilla", output_shape="SBH")
    cell, size = theirs.sLSTMCell(config), H // heads

    def apply(params: Any, start: Any, xs: Any, given: Any) -> Any:
        wx = torch.stack([xs @ params[f"i{k}"]["kernel"] for k in "ifzo"], 2).transpose(0, 1)
        r = kernels(torch, params, "hi hf hz ho", 0).reshape(4, heads, size, size)
        b = biases(torch, params, "ii if iz io").reshape(4, heads, size)
        weights = {
            "_recurrent_kernel_": cell._recurrent_kernel_ext2int(r.permute(1, 2, 0, 3)),
            "_bias_": cell._bias_ext2int(b.transpose(0, 1)),
        }
        if start is not None:
            c, n, m, h = start
            start = torch.stack([h, c, n, m])
        arguments = wx.reshape(B, T, 4 * H), start
        ys, (h, c, n, m) = torch.func.functional_call(cell, weights, arguments)
        return (c, n, m, h), ys

    layer = build("scan_slstm", heads=heads)
    numbers = foreign.numbers(layer, (T, B, D), rest=rest)
    foreign.assert_agree(foreign.by_layer(layer, numbers), foreign.by_torch(apply, numbers))


@pytest.mark.parametrize("timed", [True, False], ids=["intervals", "one"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_ncps(torch: Any, library: Any, depth: int, timed: bool) -> None:
    theirs = library("ncps.torch")
    cfc = theirs.CfC(D, H, batch_first=False, backbone_units=7, backbone_layers=depth)
    cfc.double()

    def linear(name: str, *parts: Any) -> dict[str, Any]:
        kernel = torch.cat([part["kernel"] for part in parts])
        return {f"{name}.weight": kernel.T, f"{name}.bias": parts[0]["bias"]}

    def apply(params: Any, start: Any, xs: Any, given: Any) -> Any:
        weights = linear("rnn_cell.backbone.0", params["i"], params["h"])
        for k in range(1, depth):
            weights |= linear(f"rnn_cell.backbone.{2 * k}", params[f"b{k}"])
        heads = {"ff1": "w1", "ff2": "w2", "time_a": "wa", "time_b": "wb"}
        for name, ours in heads.items():
            weights |= linear(f"rnn_cell.{name}", params[ours])
        spans = given.get("intervals")
        if spans is not None:
            # It squeezes each step's spans, so (B, 1) would meet the features and not the batch.
            spans = spans[..., None].expand(T, B, H)
        ys, h = torch.func.functional_call(cfc, weights, (xs, start, spans))
        return h, ys

    layer = build("scan_cfc", backbone_features=7, backbone_layers=depth)
    spans = {"intervals": np.random.default_rng(1).uniform(0.1, 3, (T, B))} if timed else {}
    numbers = foreign.numbers(layer, (T, B, D), **spans)
    foreign.assert_agree(foreign.by_layer(layer, numbers), foreign.by_torch(apply, numbers))


# The layer of torchrecurrent, what it is built with, ours, and our kernels in its order. Its MGU
# is left out: it resets h before the product with hn, and ours, like Flax's, after it.
IGATES, HGATES = "ii if ig io", "hi hf hg ho"
TORCHRECURRENT = {
    "indrnn": ("IndRNN", {"nonlinearity": "relu"}, "scan_indrnn", {}, "i", ""),
    "indrnn of tanh": ("IndRNN", {}, "scan_indrnn", {"activation_fn": "tanh"}, "i", ""),
    "janet": ("JANET", {}, "scan_janet", {}, "if in", "hf hn"),
    "janet of beta": ("JANET", {"beta": 0.25}, "scan_janet", {"beta": 0.25}, "if in", "hf hn"),
    "ligru": ("LiGRU", {}, "scan_ligru", {}, "iz in", "hz hn"),
    "lstm": ("PeepholeLSTM", {}, "scan_lstm", {"peepholes": True}, IGATES, HGATES),
    "ugrnn": ("UGRNN", {}, "scan_ugrnn", {}, "in ig", "hn hg"),
}


@pytest.mark.parametrize("case", TORCHRECURRENT)
def test_torchrecurrent(torch: Any, library: Any, case: str) -> None:
    name, their_options, ours, our_options, inputs, recurrent = TORCHRECURRENT[case]
    rnn = getattr(library("torchrecurrent"), name)(D, H, **their_options).double()

    def weights(params: Any) -> Iterator[tuple[str, Any]]:
        yield "weight_ih", kernels(torch, params, inputs, 1).flatten(1).T
        if recurrent:
            yield "weight_hh", kernels(torch, params, recurrent, 1).flatten(1).T
        # It has two biases wherever we have one.
        owners = recurrent if name == "PeepholeLSTM" else inputs
        yield "bias_ih", biases(torch, params, owners).flatten() / 2
        yield "bias_hh", biases(torch, params, owners).flatten() / 2
        if name == "PeepholeLSTM":
            yield "weight_ph", torch.cat([params[k] for k in ("pi", "pf", "po")])
        if name == "IndRNN":
            yield "vector_u", params["u"]

    def apply(params: Any, start: Any, xs: Any, given: Any) -> Any:
        # Its JANET has h and c like an LSTM, and they are one.
        c, h = start if isinstance(start, tuple) else (start, start)
        state = (h[None], c[None]) if name in ("JANET", "PeepholeLSTM") else h[None]
        copied = {f"cells.0.{name}": value for name, value in weights(params)}
        ys, last = torch.func.functional_call(rnn, copied, (xs, state))
        h, c = last if isinstance(last, tuple) else (last, last)
        return (c[0], h[0]) if isinstance(start, tuple) else h[0], ys

    layer = build(ours, **our_options)
    numbers = foreign.numbers(layer, (T, B, D))
    foreign.assert_agree(foreign.by_layer(layer, numbers), foreign.by_torch(apply, numbers))


@pytest.fixture(scope="module")
def keras() -> Iterator[Callable[..., Any]]:
    """Calls a function in a process where Keras runs on JAX, whatever it runs on here."""
    if find_spec("keras") is None:
        pytest.skip("Keras is not installed.")
    tests = str(Path(__file__).parents[1])
    with ProcessPoolExecutor(1, get_context("spawn"), addsitedir, (tests,)) as process:
        yield lambda *arguments: process.submit(*arguments).result()


SPACES = {"ConvLSTM1D": (9,), "ConvLSTM2D": (7, 6)}
WINDOWS = {"plain": {}, "strides": {"strides": 2}, "dilation": {"dilation": 2}}


# Keras has nothing like our forget_bias: its bias starts from 1 instead.
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", SPACES)
def test_keras(keras: Any, name: str, window: str, padding: str) -> None:
    size = (3, 2)[: len(SPACES[name])]
    options = {"kernel_size": size, "padding": padding, **WINDOWS[window]}
    layer = build("scan_conv_lstm", forget_bias=0.0, **options)
    numbers = foreign.numbers(layer, (T, B, *SPACES[name], D))
    theirs = {"filters": H, **options, "padding": padding.lower()}
    theirs["dilation_rate"] = theirs.pop("dilation", 1)
    found = keras(foreign.by_keras, name, theirs, numbers)
    foreign.assert_agree(foreign.by_layer(layer, numbers), found)
