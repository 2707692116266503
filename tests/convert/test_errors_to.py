"""What the other library has no equal for is refused on the way there; so are wrong carries."""

from typing import Any

import jax
import numpy as np
import pytest

from zoo.recurrent import convert
from zoo.recurrent.convert import ConversionError

from .plain_weights import GRU_WEIGHTS, keras, torch_gru, without, zeros

GRU = {"name": "scan_gru", "features": 2}
WEIGHTS = convert.from_torch(torch_gru())[1]
STACK = {"name": "stack", "num_layers": 3, "layer": GRU}
STACK_WEIGHTS = convert.from_torch(torch_gru(3))[1]
SIMPLIFIED = convert.from_keras([*GRU_WEIGHTS[:2], zeros(6)], keras(reset_after=False))
MGU = {"i" + g: {"kernel": zeros(3, 2), "bias": zeros(2)} for g in "fn"} | {
    "hf": {"kernel": zeros(2, 2)},
    "hn": {"kernel": zeros(2, 2), "bias": zeros(2)},
}
MGU_LAYER = ({"name": "scan_mgu", "features": 2}, {"params": MGU})
PROJECTED = convert.from_torch(
    {"weight_ih_l0": zeros(8, 3), "weight_hh_l0": zeros(8, 1), "weight_hr_l0": zeros(1, 2)}
)
INNER = jax.tree.map(np.ones_like, WEIGHTS)


def edited(tree: Any, path: str, value: Any) -> Any:
    """Returns a copy of nested mappings with one entry changed, or taken out for None."""
    key, _, rest = path.partition("/")
    if rest:
        return {**tree, key: edited(tree[key], rest, value)}
    return {**tree, key: value} if value is not None else without(tree, key)


TO = {
    "reset before": ("torch", SIMPLIFIED, ["scan_simplified_gru", "torch", "Keras", "dm-haiku"]),
    "reset after": ("haiku", (GRU, WEIGHTS), ["scan_gru", "dm-haiku", "torch", "equinox"]),
    "mgu to torch": ("torch", MGU_LAYER, ["scan_mgu", "Flax Linen"]),
    "mgu to keras": ("keras", MGU_LAYER, ["scan_mgu", "Flax Linen"]),
    "mgu to nnx": ("nnx", MGU_LAYER, ["scan_mgu", "Flax Linen"]),
    "inner bias": ("nnx", (GRU, INNER), ["hn/bias = 0", "up to 1", "torch"]),
    "projection to keras": ("keras", PROJECTED, ["projection", "torch.nn.LSTM"]),
    "projection to linen": ("linen", PROJECTED, ["projection", "torch.nn.LSTM"]),
    "projection to haiku": ("haiku", PROJECTED, ["projection", "torch.nn.LSTM"]),
    "reverse": ("torch", ({**GRU, "reverse": True}, WEIGHTS), ["reverse=True", "flip"]),
    "reversed directions": (
        "equinox",
        ({"name": "bidirectional", "layer": GRU, "reverse": True}, WEIGHTS),
        ["'bidirectional' with reverse=True", "exchange"],
    ),
    "merge to torch": (
        "torch",
        (
            {"name": "bidirectional", "layer": GRU, "merge": "sum"},
            {"params": {side: WEIGHTS["params"] for side in ("forward", "backward")}},
        ),
        ["merge='sum'", "concatenates"],
    ),
    "residual": ("torch", ({**STACK, "residual": True}, STACK_WEIGHTS), ["residual=True of stack"]),
    "zoneout": ("torch", ({**GRU, "zoneout_rate": 0.1}, WEIGHTS), ["zoneout_rate=0.1"]),
    "learned carry": (
        "torch",
        ({**GRU, "learned_carry": True}, WEIGHTS),
        ["'initial_h'", "carry_to_"],
    ),
    "gate": ("torch", ({**GRU, "gate_fn": "hard_sigmoid"}, WEIGHTS), ["gate_fn='hard_sigmoid'"]),
    "activation": (
        "equinox",
        ({**GRU, "activation_fn": jax.nn.relu}, WEIGHTS),
        ["activation_fn='relu'", "'tanh'"],
    ),
    "activation of keras": (
        "keras",
        ({**GRU, "activation_fn": "gelu"}, WEIGHTS),
        ["activation_fn", "'gelu'"],
    ),
    "layer norm": (
        "torch",
        ({"name": "scan_layer_norm_gru", "features": 2}, WEIGHTS),
        ["scan_layer_norm_gru", "no converter writes it", "'scan_gru'"],
    ),
    "nesting": (
        "torch",
        ({"name": "bidirectional", "layer": STACK}, WEIGHTS),
        ["'stack'", "'bidirectional'", "one leaf"],
    ),
    "no config": ("torch", ({"features": 2}, WEIGHTS), ["'name'"]),
    "missing": (
        "torch",
        (GRU, edited(WEIGHTS, "params/hz/kernel", None)),
        ["'hz/kernel'", "(2, 2)", "missing"],
    ),
    "leftover": (
        "torch",
        (GRU, edited(WEIGHTS, "params/hz/bias", zeros(2))),
        ["'hz/bias'", "(2,)", "left over"],
    ),
    "bias where the config has none": (
        "torch",
        ({**GRU, "use_bias": False}, WEIGHTS),
        ["bias'", "left over"],
    ),
    "shape": (
        "torch",
        (GRU, edited(WEIGHTS, "params/hz/kernel", zeros(2, 3))),
        ["'hz/kernel'", "(2, 3)", "(2, 2)"],
    ),
    "features": ("torch", ({**GRU, "features": 3}, WEIGHTS), ["2 features", "3"]),
    "collections": ("torch", (GRU, WEIGHTS["params"]), ["'params'"]),
    "other collections": (
        "torch",
        (GRU, {**WEIGHTS, "batch_stats": {"mean": zeros(2)}}),
        ["'batch_stats'"],
    ),
    "too few layers": (
        "torch",
        ({**STACK, "num_layers": 2}, STACK_WEIGHTS),
        ["'rest/", "leading axis of 1"],
    ),
    "no rest": (
        "torch",
        (STACK, {"params": {"first": STACK_WEIGHTS["params"]["first"]}}),
        ["'rest'", "['first']"],
    ),
    "directions": (
        "torch",
        ({"name": "bidirectional", "layer": GRU}, {"params": {"forward": WEIGHTS["params"]}}),
        ["backward"],
    ),
}


@pytest.mark.parametrize("case", TO)
def test_to_other_libraries(case: str) -> None:
    library, layer, parts = TO[case]
    with pytest.raises(ConversionError) as caught:
        getattr(convert, f"to_{library}")(*layer)
    for part in parts:
        assert part in str(caught.value)


def test_torch_cell_is_one_layer() -> None:
    with pytest.raises(ConversionError, match="3 layers of 1 directions"):
        convert.to_torch(STACK, STACK_WEIGHTS, cell=True)


def test_haiku_names() -> None:
    with pytest.raises(ConversionError, match="expected 1 module names"):
        convert.to_haiku(*SIMPLIFIED, modules=["a", "b"])


BOTH = {"name": "bidirectional", "layer": {"name": "scan_lstm", "features": 2}}
H = zeros(5, 2)
CARRIES = {
    "number": ("from_torch", STACK, zeros(2, 5, 2), ["h_n", "(2, 5, 2)", "(3, *batch, H)"]),
    "width": ("from_torch", GRU, zeros(1, 5, 3), ["h of layer 0", "(5, 3)", "(5, 2)"]),
    "c alone": ("from_torch", BOTH, zeros(2, 5, 2), ["(h_n, c_n)"]),
    "c too much": ("from_torch", GRU, (H[None], H[None]), ["expected h_n"]),
    "batch": ("from_equinox", {**BOTH["layer"]}, (zeros(4, 2), H), ["c of layer 0", "(4, 2)"]),
    "keras": ("from_keras", BOTH, [H] * 3, ["found 3"]),
    "layers": ("from_haiku", STACK, [H, H], ["expected 3 entries", "list of 2"]),
    "directions": ("from_nnx", BOTH, H, ["expected 2 entries", "(5, 2)"]),
    "lstm": ("from_linen", BOTH, (H, H), ["layer 0", "h and c"]),
    "no lstm": ("from_linen", GRU, (H, H), ["layer 0", "one array"]),
    "onnx": ("from_onnx", GRU, H, ["initial_h", "(5, 2)"]),
    "ours": ("to_torch", STACK, (H, H), ["expected 3 entries"]),
    "ours, width": ("to_onnx", GRU, zeros(5, 3), ["(5, 3)", "(5, 2)"]),
    "torch, mgu": ("to_torch", MGU_LAYER[0], H, ["scan_mgu"]),
}


@pytest.mark.parametrize("case", CARRIES)
def test_carries(case: str) -> None:
    call, config, carry, parts = CARRIES[case]
    with pytest.raises(ConversionError) as caught:
        getattr(convert, f"carry_{call}")(config, carry)
    for part in parts:
        assert part in str(caught.value)
