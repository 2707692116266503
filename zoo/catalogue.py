"""The built-in layers as plain strings, so that listing them imports none of them.

`LAYERS` maps a registered name to the fields of its `registry.Spec`; `factory` is the import path
`"module:attribute"` of the class, resolved when the layer is built or looked at closely.
Shapes: T time, *batch any batch axes, D input features, H hidden features, P projected features.
"""

from typing import Any

_ARRAY_CARRY = {
    "family": "recurrent",
    "inputs": "carry (*batch, H) or None, xs (T, *batch, D)",
    "outputs": "carry (*batch, H), ys (T, *batch, H)",
}
_LSTM_CARRY = {
    "family": "recurrent",
    "inputs": "carry (c (*batch, H), h (*batch, H)) or None, xs (T, *batch, D)",
    "outputs": "carry (c, h), ys (T, *batch, H); h and ys are P wide with projection=P",
}

_LSTM_PAPERS = (
    "Hochreiter and Schmidhuber, 1997, Long Short-Term Memory, doi:10.1162/neco.1997.9.8.1735",
    "Gers, Schmidhuber and Cummins, 2000, Learning to Forget, doi:10.1162/089976600300015015",
    "Sak, Senior and Beaufays, 2014, LSTM Based RNN Architectures, arXiv:1402.1128 (projection)",
)
_GRU_PAPER = "Cho et al., 2014, Learning Phrase Representations using RNN, arXiv:1406.1078"
_LAYER_NORM_PAPER = "Ba, Kiros and Hinton, 2016, Layer Normalization, arXiv:1607.06450"

LAYERS: dict[str, dict[str, Any]] = {
    "scan_gru": {
        "factory": "zoo.recurrent:ScanGRU",
        "summary": "Gated recurrent unit, reset after the product, as in Flax, PyTorch and cuDNN.",
        "references": (_GRU_PAPER,),
        "aliases": ("gru",),
        **_ARRAY_CARRY,
    },
    "scan_lstm": {
        "factory": "zoo.recurrent:ScanLSTM",
        "summary": "Long short-term memory, with an optional projection of h (LSTMP).",
        "references": _LSTM_PAPERS,
        "aliases": ("lstm",),
        **_LSTM_CARRY,
    },
    "scan_simplified_gru": {
        "factory": "zoo.recurrent:ScanSimplifiedGRU",
        "summary": "Gated recurrent unit, reset before the product, one bias per gate.",
        "references": ("Chung et al., 2014, Empirical Evaluation of Gated RNNs, arXiv:1412.3555",),
        "aliases": ("simplified_gru", "scan_simple_gru"),
        **_ARRAY_CARRY,
    },
    "scan_elman": {
        "factory": "zoo.recurrent:ScanElman",
        "summary": "Elman's simple recurrent network, without gates.",
        "references": ("Elman, 1990, Finding Structure in Time, doi:10.1207/s15516709cog1402_1",),
        **_ARRAY_CARRY,
    },
    "scan_mgu": {
        "factory": "zoo.recurrent:ScanMGU",
        "summary": "Minimal gated unit: one gate that both forgets and resets.",
        "references": (
            "Zhou et al., 2016, Minimal Gated Unit for Recurrent Neural Networks, arXiv:1603.09420",
        ),
        **_ARRAY_CARRY,
    },
    "scan_layer_norm_gru": {
        "factory": "zoo.recurrent:ScanLayerNormGRU",
        "summary": "Gated recurrent unit with layer normalisation inside the step.",
        "references": (_LAYER_NORM_PAPER, _GRU_PAPER),
        **_ARRAY_CARRY,
    },
    "scan_layer_norm_lstm": {
        "factory": "zoo.recurrent:ScanLayerNormLSTM",
        "summary": "Long short-term memory with layer normalisation inside the step.",
        "references": (_LAYER_NORM_PAPER, *_LSTM_PAPERS),
        **_LSTM_CARRY,
    },
    "bidirectional": {
        "factory": "zoo.recurrent:build_bidirectional",
        "family": "recurrent",
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
