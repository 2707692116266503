"""Modules made of Linen's variables and of NNX's own layers, and back; and checkpoints of them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import registry
from tests.recurrent.layers import assert_close
from tests.rows import rows
from zoo.recurrent import convert
from zoo.recurrent.nnx import from_linen, from_nnx, to_linen

from .layers import XS, D, H, config, inputs, module, params, paths

NAMES = rows(registry.names(family="recurrent"), ["scan_lstm", "stack"])


@pytest.mark.parametrize("name", NAMES)
def test_to_linen_and_back(name):
    xs, built = inputs(name), module(name)
    given, variables = to_linen(built)
    assert given == config(name)
    layer = registry.build(given)
    assert jax.tree.structure(variables) == jax.tree.structure(
        jax.eval_shape(layer.init, jax.random.key(0), None, xs)
    )
    again = from_linen(given, variables)
    assert again.definition == built.definition and paths(again) == paths(built)
    expected = layer.apply(variables, None, xs)
    jax.tree.map(np.testing.assert_array_equal, again(None, xs), expected)


def test_what_stays_in_linen_is_not_needed():
    built = module(dropout_rate=0.5, carry_init=nn.initializers.normal())
    given, variables = to_linen(built)
    assert set(variables) == {"params"}
    again = from_linen(given, variables, rngs=nnx.Rngs(3))
    assert paths(again) == paths(built)
    without = from_linen(given, variables)
    assert paths(without) == paths(built, nnx.Param)
    call = {"deterministic": False, "rngs": nnx.Rngs(4)}
    assert without(None, XS, **call)[1].shape == (*XS.shape[:2], H)


CELLS = {
    "GRUCell": (nnx.GRUCell, "scan_gru"),
    "LSTMCell": (nnx.LSTMCell, "scan_lstm"),
    "OptimizedLSTMCell": (nnx.OptimizedLSTMCell, "scan_lstm"),
    "SimpleCell": (nnx.SimpleCell, "scan_elman"),
}


@pytest.mark.parametrize("name", CELLS)
def test_layers_of_flax_nnx(name):
    cell, ours = CELLS[name]
    xs = jnp.moveaxis(XS, 0, 1)
    old = nnx.RNN(cell(D, H, rngs=nnx.Rngs(0)))
    new = from_nnx(old)
    assert new.definition.config["name"] == ours
    assert_close(new(None, xs)[1], old(xs), 1e-6)

    lengths = jnp.array([6, 3, 1])
    old = nnx.RNN(cell(D, H, rngs=nnx.Rngs(1)), return_carry=True)
    carry, _ = old(xs, seq_lengths=lengths)
    assert_close(from_nnx(old)(None, xs, seq_lengths=lengths)[0], carry, 1e-6)

    backward = nnx.RNN(cell(D, H, rngs=nnx.Rngs(2)))
    both = nnx.Bidirectional(nnx.RNN(cell(D, H, rngs=nnx.Rngs(3))), backward)
    new = from_nnx(both)
    assert new.definition.config["name"] == "bidirectional"
    assert_close(new(None, xs)[1], both(xs), 1e-6)

    time_first = from_nnx(cell(D, H, rngs=nnx.Rngs(4)), time_axis=0)
    assert time_first(None, XS)[1].shape == (*XS.shape[:2], H)


def test_what_is_not_exact_is_refused():
    with pytest.raises(convert.ConversionError, match="is missing"):
        from_nnx(nnx.Linear(D, H, rngs=nnx.Rngs(0)))
    with pytest.raises(TypeError, match="from_nnx: expected"):
        from_nnx(XS)


@pytest.mark.interop
def test_a_layer_of_pytorch_in_one_line():
    torch = pytest.importorskip("torch")
    old = torch.nn.LSTM(D, H, num_layers=2, bidirectional=True)
    new = from_linen(*convert.from_torch(old))
    expected = old(torch.from_numpy(np.array(XS)))[0].detach().numpy()
    assert_close(new(None, XS)[1], expected, 1e-5)


@pytest.mark.parametrize("options", [{}, {"dropout_rate": 0.5}], ids=str)
def test_orbax_saves_and_restores(options, tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint")
    built = module("scan_lstm", **options)
    built(None, XS)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", nnx.state(built))
    abstract = nnx.eval_shape(lambda: module("scan_lstm", seed=1, **options))
    graphdef, like = nnx.split(abstract)
    with ocp.StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(tmp_path / "state", like)
    again = nnx.merge(graphdef, restored)
    jax.tree.map(np.testing.assert_array_equal, params(again), params(built))
    np.testing.assert_array_equal(again(None, XS)[1], built(None, XS)[1])
