"""Flax's table of a layer shows every parameter, whichever layer it is."""

import re

import flax.linen as nn
import jax
import pytest

import registry
from tests.recurrent.layers import some
from zoo.recurrent import scanned

from .layers import both, lstm, stack

pytest.importorskip("rich")

D, H = 3, 4
WIDE = {"width": 200}
# Kernels of all gates over inputs and state, then biases, then scales.
COUNTS = {
    "scan_gru": 3 * (D + H) * H + 4 * H,
    "scan_lstm": 4 * (D + H) * H + 4 * H,
    "scan_simplified_gru": 3 * (D + H) * H + 3 * H,
    "scan_elman": (D + H) * H + H,
    "scan_mgu": 2 * (D + H) * H + 3 * H,
    "scan_layer_norm_gru": 3 * (D + H) * H + 4 * H + 6 * H,
    "scan_layer_norm_lstm": 4 * (D + H) * H + 4 * H + 8 * H + 2 * H,
}
COMPOSITES = {
    "bidirectional": ({"layer": "scan_gru"}, 2 * COUNTS["scan_gru"]),
    "stack": (
        {"layer": "scan_gru", "num_layers": 3},
        COUNTS["scan_gru"] + 2 * (3 * (H + H) * H + 4 * H),
    ),
}


def total(table: str) -> int:
    (count,) = re.findall(r"Total Parameters: ([\d,]+)", table)
    return int(count.replace(",", ""))


def first_column(table: str) -> set[str]:
    return {line.split("│")[1].strip() for line in table.splitlines() if line.startswith("│")}


@pytest.mark.parametrize("name", registry.names(family="recurrent"))
def test_every_registered_layer(name: str) -> None:
    options, expected = COMPOSITES.get(name) or ({}, COUNTS.get(name))
    layer = registry.build(name, features=H, **options)
    space = (3, 3)[: layer.feature_axes - 1]
    xs = some((7, 2, *space, D))
    if expected is None:
        variables = jax.eval_shape(layer.init, jax.random.key(0), None, xs)
        expected = sum(x.size for x in jax.tree.leaves(variables))
    table = layer.tabulate(jax.random.key(0), None, xs, console_kwargs=WIDE)
    assert total(table) == expected
    assert f"[{','.join(map(str, (7, 2, *space, layer.output_features)))}]" in table


def test_stacks_in_both_directions() -> None:
    layer = registry.build("bidirectional", layer=stack(lstm(features=H)))
    table = layer.tabulate(jax.random.key(0), None, some((7, 2, D)), console_kwargs=WIDE)
    assert total(table) == 2 * (COUNTS["scan_lstm"] + 2 * (4 * (H + H) * H + 4 * H))


class Model(nn.Module):
    """Layers of every kind, and a carry that is asked for before the call."""

    @nn.compact
    def __call__(self, xs: jax.Array) -> jax.Array:
        deep = registry.build(
            "stack", num_layers=2, layer=both(lstm(features=H)), layer_norm=True, name="deep"
        )
        _, ys = deep(deep.initialize_carry(None, xs[0].shape), xs)
        _, ys = registry.build("scan_gru", features=H, learned_carry=True, name="leaf")(None, ys)
        return scanned(nn.LSTMCell)(features=H, name="cell")(None, ys)[1]


def test_layers_in_a_model_have_rows_of_their_own() -> None:
    table = Model().tabulate(jax.random.key(0), some((7, 2, D)), console_kwargs=WIDE)
    deep = 2 * (4 * (D + H) * H + 4 * H) + 2 * (4 * (2 * H + H) * H + 4 * H) + 2 * 2 * H
    leaf = 3 * (2 * H + H) * H + 4 * H + H
    assert total(table) == deep + leaf + 4 * (H + H) * H + 4 * H
    rows = {"deep", "deep/first/forward", "deep/rest/backward", "deep/rest/norm", "leaf/hn", "cell"}
    assert rows <= first_column(table)
