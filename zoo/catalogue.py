"""The built-in layers as plain strings, so that listing them imports none of them.

`LAYERS` maps a registered name to the fields of its `registry.Spec`; `factory` is the import path
`"module:attribute"` of the class, resolved when the layer is built or looked at closely.
Shapes: T time, *batch any batch axes, D input features, H hidden features, P projected features,
N state features.
"""

from collections.abc import Mapping
from typing import Any, Literal

_ARRAY_CARRY = {
    "inputs": "carry (*batch, H) or None, xs (T, *batch, D)",
    "outputs": "carry (*batch, H), ys (T, *batch, H)",
}
_LSTM_CARRY = {
    "inputs": "carry (c (*batch, H), h (*batch, H)) or None, xs (T, *batch, D)",
    "outputs": "carry (c, h), ys (T, *batch, H); h and ys are P wide with projection=P",
}
_SLSTM_CARRY = {
    "inputs": "carry (c, n, m, h), each (*batch, H), or None, xs (T, *batch, D)",
    "outputs": "carry (c, n, m, h), ys (T, *batch, H)",
}
_TIMED_CARRY = {
    "inputs": "carry (*batch, H) or None, xs (T, *batch, D), intervals (T, *batch) or None",
    "outputs": _ARRAY_CARRY["outputs"],
}
_COMPLEX_CARRY = {
    "inputs": "carry (re, im), each (*batch, N), or None, xs (T, *batch, D)",
    "outputs": "carry (re, im), ys (T, *batch, H)",
}
_TIMED_COMPLEX_CARRY = {
    "inputs": f"{_COMPLEX_CARRY['inputs']}, intervals (T, *batch) or None",
    "outputs": _COMPLEX_CARRY["outputs"],
}
_CONV_LSTM_CARRY = {
    "inputs": "carry (c, h), each (*batch, *space, H), or None, xs (T, *batch, *space, C)",
    "outputs": "carry (c, h), ys (T, *batch, *space, H)",
}
_CONV_CARRY = {
    "inputs": "carry (*batch, *space, H) or None, xs (T, *batch, *space, C)",
    "outputs": "carry (*batch, *space, H), ys (T, *batch, *space, H)",
}


def _leaf(
    factory: str,
    summary: str,
    *references: str,
    aliases: tuple[str, ...] = (),
    tags: tuple[str, ...] = (),
    carry: Mapping[str, str] = _ARRAY_CARRY,
) -> dict[str, Any]:
    """The entry of a leaf layer; ``factory`` begins below ``zoo.recurrent.layers``."""
    return {
        "factory": f"zoo.recurrent.layers.{factory}",
        "family": "recurrent",
        "summary": summary,
        "references": references,
        "aliases": aliases,
        "tags": tags,
        **carry,
    }


_LSTM_PAPERS = (
    "Hochreiter and Schmidhuber, 1997, Long Short-Term Memory, doi:10.1162/neco.1997.9.8.1735",
    "Gers, Schmidhuber and Cummins, 2000, Learning to Forget, doi:10.1162/089976600300015015",
    "Sak, Senior and Beaufays, 2014, LSTM Based RNN Architectures, arXiv:1402.1128 (projection)",
)
_GRU_PAPER = "Cho et al., 2014, Learning Phrase Representations using RNN, arXiv:1406.1078"
_MINIMAL_PAPER = "Feng et al., 2024, Were RNNs All We Needed?, arXiv:2410.01201"
_LAYER_NORM_PAPER = "Ba, Kiros and Hinton, 2016, Layer Normalization, arXiv:1607.06450"

BuiltInName = Literal[
    "scan_gru",
    "scan_lstm",
    "scan_simplified_gru",
    "scan_elman",
    "scan_mgu",
    "scan_layer_norm_gru",
    "scan_layer_norm_lstm",
    "scan_dreamer_gru",
    "scan_slstm",
    "scan_indrnn",
    "scan_ligru",
    "scan_ugrnn",
    "scan_janet",
    "scan_cfc",
    "scan_conv_lstm",
    "scan_conv_gru",
    "scan_min_gru",
    "scan_min_lstm",
    "scan_lru",
    "scan_s5",
    "scan_rg_lru",
    "bidirectional",
    "stack",
]
"""For type checkers, which cannot read `LAYERS`: what `registry.build` makes a layer of."""

LAYERS: dict[str, dict[str, Any]] = {
    "scan_gru": _leaf(
        "gru:ScanGRU",
        "Gated recurrent unit, reset after the product, as in Flax, PyTorch and cuDNN.",
        _GRU_PAPER,
        aliases=("gru",),
        tags=("kernel",),
    ),
    "scan_lstm": _leaf(
        "lstm:ScanLSTM",
        "Long short-term memory, with optional projection of h, peepholes and coupled gates.",
        *_LSTM_PAPERS,
        aliases=("lstm",),
        tags=("kernel",),
        carry=_LSTM_CARRY,
    ),
    "scan_simplified_gru": _leaf(
        "simplified_gru:ScanSimplifiedGRU",
        "Gated recurrent unit, reset before the product, one bias per gate.",
        "Chung et al., 2014, Empirical Evaluation of Gated RNNs, arXiv:1412.3555",
        aliases=("simplified_gru", "scan_simple_gru"),
    ),
    "scan_elman": _leaf(
        "elman:ScanElman",
        "Elman's simple recurrent network, without gates.",
        "Elman, 1990, Finding Structure in Time, doi:10.1207/s15516709cog1402_1",
    ),
    "scan_mgu": _leaf(
        "mgu:ScanMGU",
        "Minimal gated unit: one gate that both forgets and resets.",
        "Zhou et al., 2016, Minimal Gated Unit for Recurrent Neural Networks, arXiv:1603.09420",
    ),
    "scan_layer_norm_gru": _leaf(
        "layer_norm:ScanLayerNormGRU",
        "Gated recurrent unit with layer normalisation inside the step.",
        _LAYER_NORM_PAPER,
        _GRU_PAPER,
    ),
    "scan_layer_norm_lstm": _leaf(
        "layer_norm:ScanLayerNormLSTM",
        "Long short-term memory with layer normalisation inside the step.",
        _LAYER_NORM_PAPER,
        *_LSTM_PAPERS,
        carry=_LSTM_CARRY,
    ),
    "scan_dreamer_gru": _leaf(
        "dreamer_gru:ScanDreamerGRU",
        "Block-diagonal GRU of DreamerV3: the reset gate multiplies the whole candidate.",
        "Hafner et al., 2023, Mastering Diverse Domains through World Models, arXiv:2301.04104",
    ),
    "scan_slstm": _leaf(
        "slstm:ScanSLSTM",
        "Scalar LSTM of xLSTM: exponential gates, normalised by a running maximum.",
        "Beck et al., 2024, xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517",
        carry=_SLSTM_CARRY,
    ),
    "scan_indrnn": _leaf(
        "indrnn:ScanIndRNN",
        "Independently recurrent network: every feature of the state sees its own past alone.",
        "Li et al., 2018, Independently Recurrent Neural Network (IndRNN), arXiv:1803.04831",
    ),
    "scan_ligru": _leaf(
        "ligru:ScanLiGRU",
        "Light gated recurrent unit: no reset gate, and a rectified candidate.",
        "Ravanelli et al., 2018, Light Gated Recurrent Units for Speech, arXiv:1803.10225",
    ),
    "scan_ugrnn": _leaf(
        "ugrnn:ScanUGRNN",
        "Update gate recurrent network: a simple network whose state is mixed by one gate.",
        "Collins et al., 2017, Capacity and Trainability in Recurrent Neural Networks, "
        "arXiv:1611.09913",
    ),
    "scan_janet": _leaf(
        "janet:ScanJANET",
        "JANET: an LSTM with nothing but a forget gate, whose state is its output.",
        "van der Westhuizen and Lasenby, 2018, The Unreasonable Effectiveness of the Forget Gate, "
        "arXiv:1804.04849",
    ),
    "scan_cfc": _leaf(
        "cfc:ScanCfC",
        "Closed-form continuous-time network, for sequences that are sampled irregularly.",
        "Hasani et al., 2022, Closed-form Continuous-time Neural Networks, arXiv:2106.13898",
        tags=("intervals",),
        carry=_TIMED_CARRY,
    ),
    "scan_conv_lstm": _leaf(
        "conv:ScanConvLSTM",
        "Convolutional LSTM: the products are convolutions over images or volumes.",
        "Shi et al., 2015, Convolutional LSTM Network, arXiv:1506.04214",
        tags=("convolutional",),
        carry=_CONV_LSTM_CARRY,
    ),
    "scan_conv_gru": _leaf(
        "conv:ScanConvGRU",
        "Convolutional GRU, reset before the product.",
        "Ballas et al., 2016, Delving Deeper into Convolutional Networks, arXiv:1511.06432",
        tags=("convolutional",),
        carry=_CONV_CARRY,
    ),
    "scan_min_gru": _leaf(
        "min_gru:ScanMinGRU",
        "Minimal GRU whose gate and candidate see the input alone: a linear recurrence.",
        _MINIMAL_PAPER,
        tags=("parallel", "kernel"),
    ),
    "scan_min_lstm": _leaf(
        "min_lstm:ScanMinLSTM",
        "Minimal LSTM whose gates see the input alone and add up to one: a linear recurrence.",
        _MINIMAL_PAPER,
        tags=("parallel", "kernel"),
    ),
    "scan_lru": _leaf(
        "lru:ScanLRU",
        "Linear recurrent unit: a complex diagonal state, initialised on a ring.",
        "Orvieto et al., 2023, Resurrecting Recurrent Neural Networks, arXiv:2303.06349",
        tags=("parallel", "kernel"),
        carry=_COMPLEX_CARRY,
    ),
    "scan_s5": _leaf(
        "s5:ScanS5",
        "Simplified state space layer: a continuous-time state, held over steps of learned length.",
        "Smith, Warrington and Linderman, 2023, Simplified State Space Layers, arXiv:2208.04933",
        tags=("parallel", "kernel", "intervals"),
        carry=_TIMED_COMPLEX_CARRY,
    ),
    "scan_rg_lru": _leaf(
        "rg_lru:ScanRGLRU",
        "Real-gated linear recurrent unit of Griffin: gates that see the input alone.",
        "De et al., 2024, Griffin: Mixing Gated Linear Recurrences, arXiv:2402.19427",
        tags=("parallel", "kernel"),
    ),
    "bidirectional": {
        "factory": "zoo.recurrent:build_bidirectional",
        "family": "recurrent",
        "tags": ("composite",),
        "summary": "One layer run forwards and its twin run backwards over the same sequence.",
        "inputs": "carry (forward carry, backward carry) or None, xs (T, *batch, D)",
        "outputs": "carry (forward carry, backward carry), ys (T, *batch, 2H); with merge=None the "
        "pair of both ys",
        "references": (
            "Schuster and Paliwal, 1997, Bidirectional Recurrent Neural Networks, "
            "doi:10.1109/78.650093",
        ),
    },
    "stack": {
        "factory": "zoo.recurrent:build_stack",
        "family": "recurrent",
        "tags": ("composite",),
        "summary": "Layers on top of each other, equal or not, each reading the outputs of the one "
        "below.",
        "inputs": "carry (one per layer) or None, xs (T, *batch, D)",
        "outputs": "carry (one per layer), ys (T, *batch, H of the last layer; with skip, of all)",
        "references": (
            "Graves, Mohamed and Hinton, 2013, Speech Recognition with Deep Recurrent Neural "
            "Networks, arXiv:1303.5778",
            "Graves, 2013, Generating Sequences with Recurrent Neural Networks, arXiv:1308.0850",
        ),
    },
}
