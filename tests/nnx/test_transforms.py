"""Modules under the transformations of NNX and of JAX, as graphs and as trees."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from tests.recurrent.layers import assert_close, some
from tests.rows import rows
from zoo.recurrent.nnx import build

from .layers import XS, D, H, module, params

GRAPH = pytest.mark.parametrize("graph", [True, False], ids=["graph", "tree"])
MODULES = {
    "gru": functools.partial(module, "scan_gru"),
    "stack": functools.partial(module, "stack", layer="scan_gru", num_layers=2),
}
OVER = pytest.mark.parametrize("name", rows(MODULES, ["gru"]))
RESETS = jnp.zeros(XS.shape[:2], bool).at[3].set(True)


def outputs(module, xs):
    return module(None, xs, resets=RESETS)[1]


def loss(module, xs=XS):
    return jnp.mean(jnp.square(outputs(module, xs)))


@GRAPH
@OVER
def test_jit_and_gradients(name, graph):
    plain = MODULES[name]()
    assert_close(nnx.jit(outputs, graph=graph)(plain, XS), outputs(plain, XS), 1e-6)

    graphdef, state = nnx.split(plain)
    expected = jax.value_and_grad(lambda state: loss(nnx.merge(graphdef, state)))(state)
    for transform in (
        nnx.jit(nnx.value_and_grad(loss, graph=graph), graph=graph),
        nnx.value_and_grad(nnx.remat(loss, graph=graph), graph=graph),
        lambda module: (loss(module), nnx.grad(loss, graph=graph)(module)),
        jax.jit(jax.value_and_grad(loss)),
    ):
        found = transform(plain)
        leaves = [jax.tree.leaves(tree) for tree in (found, expected)]
        jax.tree.map(lambda a, b: assert_close(a, b, 1e-5), *leaves)


@GRAPH
def test_scan_over_an_environment(graph):
    plain = module()

    @nnx.scan(in_axes=(None, nnx.Carry, 0), out_axes=(nnx.Carry, 0), graph=graph)
    def rollout(module, carry, x):
        return module.step(carry, x)

    carry, ys = rollout(plain, plain.initialize_carry(None, XS[0].shape), XS)
    expected = plain(None, XS)
    assert_close(carry, expected[0], 1e-6)
    assert_close(ys, expected[1], 1e-6)


@GRAPH
@OVER
def test_an_ensemble(name, graph):
    @nnx.split_rngs(splits=3, graph=graph)
    @nnx.vmap(graph=graph)
    def make(rngs):
        plain = MODULES[name]()
        config = dict(plain.definition.config)
        return build(config, D, rngs=rngs)

    members = make(nnx.Rngs(0))
    run = nnx.vmap(outputs, in_axes=(0, None), graph=graph)
    ys = run(members, XS)
    assert ys.shape == (3, *XS.shape[:2], H)
    graphdef, state = nnx.split(members)
    for index, expected in enumerate(ys):
        member = nnx.merge(graphdef, jax.tree.map(lambda x, index=index: x[index], state))
        assert_close(outputs(member, XS), expected, 1e-6)
    assert not jnp.allclose(ys[0], ys[1])


@OVER
def test_split_merge_state_clone(name):
    plain = MODULES[name]()
    expected = outputs(plain, XS)
    graphdef, given, rest = nnx.split(plain, nnx.Param, ...)
    assert not jax.tree.leaves(rest)
    for again in (nnx.merge(graphdef, given, rest), nnx.clone(plain)):
        np.testing.assert_array_equal(outputs(again, XS), expected)
    other = MODULES[name](seed=1)
    nnx.update(other, nnx.state(plain))
    np.testing.assert_array_equal(outputs(other, XS), expected)
    leaves, tree = jax.tree.flatten(plain)
    np.testing.assert_array_equal(outputs(jax.tree.unflatten(tree, leaves), XS), expected)
    run = jax.jit(lambda state, xs: outputs(nnx.merge(graphdef, state, rest), xs))
    assert_close(run(given, XS), expected, 1e-6)


def test_equal_modules_are_compiled_once():
    traced = []

    @nnx.jit
    def run(module):
        traced.append(module)
        return module(None, XS)

    for seed in range(3):
        run(module(seed=seed))
    assert len(traced) == 1
    run(module(reverse=True))
    assert len(traced) == 2


class Model(nnx.Module):
    """A layer below a linear one of NNX."""

    def __init__(self, rngs: nnx.Rngs, **options):
        self.memory = build("scan_gru", D, rngs=rngs, features=H, **options)
        self.readout = nnx.Linear(self.memory.output_features, 2, rngs=rngs)

    def __call__(self, xs):
        return self.readout(self.memory(None, xs)[1])


@GRAPH
def test_an_optimizer_trains_a_model(graph):
    model = Model(nnx.Rngs(0), dropout_rate=0.1)
    optimizer = nnx.Optimizer(model, optax.sgd(0.3, momentum=0.9), wrt=nnx.Param)
    targets = some((*XS.shape[:2], 2), seed=1)
    before = params(model)

    def loss(model):
        return jnp.mean(jnp.square(model(XS) - targets))

    def with_graphs(model):
        return nnx.value_and_grad(loss)(model)

    def with_trees(model):
        graphdef, given, rest = nnx.split(model, nnx.Param, ...)
        merged = lambda given: loss(nnx.merge(graphdef, given, rest, copy=True))  # noqa: E731
        return jax.value_and_grad(merged)(given)

    @nnx.jit(graph=graph)
    def train(model, optimizer):
        value, grads = (with_graphs if graph else with_trees)(model)
        optimizer.update(model, grads)
        return value

    losses = [float(train(model, optimizer)) for _ in range(20)]
    assert losses[-1] < 0.9 * losses[0]
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), before, params(model))
    assert all(jax.tree.leaves(changed))


def test_dropout_follows_train_and_eval():
    model = Model(nnx.Rngs(0), dropout_rate=0.5)
    count = model.memory.rngs.dropout.count
    first, second = model(XS), model(XS)
    assert not jnp.allclose(first, second) and count[...] == 2

    model.eval()
    quiet = model(XS)
    np.testing.assert_array_equal(quiet, model(XS))
    assert count[...] == 2
    without = Model(nnx.Rngs(0))
    nnx.update(without, nnx.state(model, nnx.Param))
    assert_close(quiet, without(XS), 1e-6)

    model.train()
    assert not jnp.allclose(model(XS), quiet) and count[...] == 3
    memory = nnx.view(model.memory, deterministic=True)
    np.testing.assert_array_equal(memory(None, XS)[1], memory(None, XS)[1])
    loud = memory(None, XS, deterministic=False)[1]
    assert not jnp.allclose(loud, memory(None, XS)[1]) and count[...] == 4

    # Of the module, of a call's streams and of a key, the nearest one is drawn from.
    a, b = (memory(None, XS, deterministic=False, rngs=nnx.Rngs(7))[1] for _ in range(2))
    c = memory(None, XS, deterministic=False, rngs=jax.random.key(7))[1]
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(a, c)
    assert count[...] == 4
    assert not jnp.allclose(memory.carries(None, XS, deterministic=False)[1:], loud)


@GRAPH
def test_dropout_is_drawn_anew_in_every_compiled_call(graph):
    model = module(dropout_rate=0.5)
    run = nnx.jit(outputs, graph=graph)
    assert not jnp.allclose(run(model, XS), run(model, XS))
    assert model.rngs.dropout.count[...] == 2
