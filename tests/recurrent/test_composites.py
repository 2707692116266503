"""What all layers made of layers have in common: values, shapes of all kinds, lifting."""

import copy
import dataclasses
import functools
import pickle

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import registry
from tests.rows import rows
from zoo.recurrent import RecurrentLayer, ScanGRU, scanned

from .layers import assert_close, assert_same, finite, some, variables_of

T, B, D, H = 5, 3, 2, 4
XS = some((T, B, D))
CONDITIONS = (
    jnp.array([5, 0, 3]),
    jnp.ones((T, B), bool).at[1].set(False),
    jnp.zeros((T, B), bool).at[3].set(True),
)


def shift(x, by=1.0):
    return x + by


def mixed(forward, backward):
    return forward - 2 * backward


def shapes(tree):
    return jax.tree.map(lambda x: x.shape, tree)


INITIAL = {"kernel_init": nn.initializers.ones, "precision": ["highest", "highest"]}
CONFIGS = {
    "bidirectional": {"name": "bidirectional", "layer": {"name": "scan_gru", "features": H}},
    "merged": {"name": "bidirectional", "layer": ScanGRU, "features": H, "merge": mixed},
    "stack": {"name": "stack", "layer": "scan_gru", "features": H, "num_layers": 3, **INITIAL},
    "nested": {
        "name": "stack",
        "num_layers": 2,
        "layer": {"name": "bidirectional", "layer": {"name": "scan_lstm", "features": H}},
    },
    "list": {
        "name": "stack",
        "layers": [
            {"name": "scan_gru", "features": H},
            {"name": "scan_gru", "features": H},
            shift,
            {"name": nn.Dense, "features": 3},
            {"name": "bidirectional", "layer": {"name": "scan_elman", "features": 3}},
        ],
        "skip": True,
    },
}


class Parent(nn.Module):
    config: dict

    def setup(self):
        self.memory = registry.build(self.config)

    def __call__(self, xs):
        return self.memory(None, xs)[1]

    def kept(self, xs):
        return self.memory.clone(parent=None)


class Holder(nn.Module):
    memory: nn.Module

    @nn.compact
    def __call__(self, xs):
        return self.memory(None, xs)[1]


@pytest.mark.parametrize("name", CONFIGS)
def test_composites_are_values(name):
    config = CONFIGS[name]
    layer, same = registry.build(config), registry.build(copy.deepcopy(config))
    assert layer == same and hash(layer) == hash(same)
    other = layer.clone(time_axis=1)
    assert layer != other and other.clone(time_axis=0) == layer
    assert dataclasses.replace(layer) == layer and layer.copy() == layer
    assert pickle.loads(pickle.dumps(layer)) == layer
    assert {layer: 1}[same] == 1
    assert type(layer).__name__ in repr(layer)
    again = {k: v for k, v in vars(layer).items() if k in type(layer).__dataclass_fields__}
    again = {k: v for k, v in again.items() if k not in ("parent", "name") and k[0] != "_"}
    assert registry.build({"name": config["name"], **again}) == layer


@pytest.mark.parametrize("name", CONFIGS)
def test_composites_in_a_parent_are_the_same_values(name):
    layer = registry.build(CONFIGS[name])
    parent = Parent(CONFIGS[name])
    variables = variables_of(layer, XS)
    own = {"params": {"memory": variables["params"]}}
    assert_same(parent.apply(own, XS), layer.apply(variables, None, XS)[1])
    kept = parent.apply(own, XS, method="kept")
    assert kept == layer.clone(name="memory") and hash(kept) == hash(layer.clone(name="memory"))
    holder, same = Holder(layer), Holder(registry.build(CONFIGS[name]))
    assert holder == same and hash(holder) == hash(same)
    assert_same(holder.apply(own, XS), layer.apply(variables, None, XS)[1])


@pytest.mark.parametrize("name", CONFIGS)
def test_composites_are_static_arguments(name):
    traced = []

    @functools.partial(jax.jit, static_argnames="net")
    def forward(net, variables, xs):
        traced.append(net)
        return net.apply(variables, None, xs)[1]

    @functools.cache
    def shape_of(net):
        traced.append(net)
        return net.output_features

    variables = registry.build(CONFIGS[name]).init(jax.random.key(0), None, XS)
    for _ in range(2):
        net = registry.build(CONFIGS[name])
        assert forward(net, variables, XS).shape[-1] == shape_of(net)
    assert len(traced) == 2


def test_what_was_given_is_read_back_and_cannot_change():
    config = {"name": lambda **options: ScanGRU(H), "features": H, "more": [1, {"a": [2]}]}
    layer = registry.build("bidirectional", layer=config)
    config["more"].append(3)
    assert layer.layer["features"] == H and layer.layer["more"] == (1, {"a": (2,)})
    assert dict(registry.build(CONFIGS["bidirectional"]).layer) == CONFIGS["bidirectional"]["layer"]
    with pytest.raises(ValueError, match="immutable"):
        layer.layer["features"] = 3


def test_builders_show_their_options():
    text = registry.describe("stack", layer="scan_gru", num_layers=2)
    for option in ("num_layers", "layers", "skip", "residual", "**options"):
        assert option in text
    assert "parent" not in text
    with pytest.raises(TypeError, match="layer"):
        registry.build("bidirectional", features=4)


INSTANCES = {"recurrent": lambda: ScanGRU(H), "dense": lambda: nn.Dense(H)}
CLASSES = {
    "dense": (nn.Dense, r'"layers" of a stack'),
    "cell": (nn.GRUCell, r"scanned\(GRUCell\)"),
    "flax rnn": (nn.RNN, "the class RNN"),
    "no module": (dict, "the class dict"),
    "function": (jnp.tanh, "got a function"),
    "factory": (lambda **options: 3, "got int"),
}
OUTER = {"bidirectional": {}, "stack": {"num_layers": 2}}


@pytest.mark.parametrize("name", OUTER)
@pytest.mark.parametrize("given", INSTANCES)
def test_a_module_that_is_built_is_refused(name, given):
    for layer in (INSTANCES[given](), {"name": INSTANCES[given]()}):
        with pytest.raises(TypeError, match="already built cannot be repeated"):
            registry.build(name, layer=layer, **OUTER[name])


@pytest.mark.parametrize("name", OUTER)
@pytest.mark.parametrize("given", CLASSES)
def test_what_builds_no_recurrent_layer_is_refused(name, given):
    layer, message = CLASSES[given]
    with pytest.raises(TypeError, match=f"to build a RecurrentLayer, got .*{message}|{message}"):
        registry.build(name, layer=layer, features=H, **OUTER[name])


# Both outputs.


def test_both_outputs_are_a_pair():
    pair = registry.build("bidirectional", layer="scan_gru", features=H, merge=None)
    variables = variables_of(pair, XS)
    names = ("seq_lengths", "mask", "resets")
    given = dict(zip(names, CONDITIONS, strict=True))
    carry, (forward, backward) = pair.apply(variables, None, XS, **given)
    wanted = pair.clone(merge="concat").apply(variables, None, XS, **given)
    assert_same((carry, jnp.concatenate([forward, backward], -1)), wanted)
    _, both = pair.apply(variables, None, XS, **given, method="history")
    assert_same(both, (forward, backward))
    assert "ys[0]" in pair.describe(XS.shape)
    with pytest.raises(ValueError, match="merge=None"):
        _ = pair.output_features
    for name, options in OUTER.items():
        with pytest.raises(TypeError, match="whose ys is one array"):
            registry.build(name, layer=CONFIGS["bidirectional"] | {"merge": None}, **options)


@pytest.mark.parametrize(
    "merge",
    [
        lambda a, b: jnp.stack([a, b]),
        lambda a, b: jnp.concatenate([a, b], 0),
        lambda a, b: None,
        lambda a, b: (a, b),
        lambda a, b: (a * b).sum(),
    ],
    ids=["stacked", "time", "none", "pair", "scalar"],
)
def test_a_merge_that_is_no_array_of_all_steps_is_refused(merge):
    layer = registry.build("bidirectional", layer="scan_gru", features=H, merge=merge)
    with pytest.raises(ValueError, match="merge: expected a function of two arrays"):
        layer.init(jax.random.key(0), None, XS)
    with pytest.raises(ValueError, match="merge: expected a function of two arrays"):
        _ = layer.output_features


# Carries of other kinds.


class Stateless(RecurrentLayer):
    """A recurrent layer that remembers nothing."""

    features: int
    time_axis: int = 0
    reverse: bool = False

    causal = True
    output_features = property(lambda self: self.features)

    @nn.compact
    def __call__(self, carry, xs, seq_lengths=None, mask=None, resets=None, deterministic=True):
        return (), nn.Dense(self.features, name="dense")(xs)

    def history(self, carry, xs, *conditions, **others):
        return self(carry, xs)

    def step(self, carry, x):
        return self(carry, x)

    @nn.nowrap
    def initialize_carry(self, rng, input_shape):
        return ()

    @nn.nowrap
    def carry_spec(self, input_shape):
        return ()


RANKS = {
    "none": (Stateless, {"features": H}, XS),
    "images": (
        scanned(nn.ConvLSTMCell),
        {"features": 2, "kernel_size": (3, 3)},
        some((T, B, 4, 4, 2)),
    ),
}


@pytest.mark.parametrize("outer", rows([*OUTER, "list"], ["stack"]))
@pytest.mark.parametrize(
    "merge",
    ["concat", *(pytest.param(merge, marks=pytest.mark.slow) for merge in ("mul", jnp.maximum))],
    ids=["concat", "mul", "function"],
)
@pytest.mark.parametrize("rank", RANKS)
def test_conditions_reach_carries_of_any_rank(rank, merge, outer):
    inner, options, xs = RANKS[rank]
    if outer == "bidirectional":
        layer = registry.build("bidirectional", layer=inner, merge=merge, **options)
    elif outer == "stack":
        both = {"name": "bidirectional", "layer": inner, "merge": merge}
        layer = registry.build("stack", layer=both, num_layers=3, **options)
    else:
        both = {"name": "bidirectional", "layer": inner, "merge": merge}
        layer = registry.build("stack", layers=[inner, jnp.tanh, both], skip=True, **options)
    variables = layer.init(jax.random.key(0), None, xs)
    names = ("seq_lengths", "mask", "resets")
    given = dict(zip(names, CONDITIONS, strict=True))
    carry, ys = layer.apply(variables, None, xs, **given)
    assert ys.shape == (*xs.shape[:-1], layer.output_features)
    assert shapes(carry) == shapes(layer.carry_spec(xs.shape[1:]))
    again = layer.apply(variables, carry, xs, **given)
    assert jax.tree.structure(again[0]) == jax.tree.structure(carry)
    loss = lambda v: layer.apply(v, None, xs, **given)[1].sum()  # noqa: E731
    assert finite(jax.grad(loss)(variables))


EMPTY = [(T, 0, D), (0, B, D)]
EMPTIER = [(0, 0, D), (T, 2, 0, D), (T, 0, 2, D)]


@pytest.mark.parametrize("shape", rows([*EMPTY, *EMPTIER], EMPTY))
@pytest.mark.parametrize("name", CONFIGS)
def test_nothing_at_all_goes_through_composites(name, shape):
    layer = registry.build(CONFIGS[name])
    variables = layer.init(jax.random.key(0), None, XS)
    xs, steps = jnp.ones(shape), shape[:-1]
    given = (
        jnp.zeros(shape[1:-1], int),
        jnp.ones(steps, bool),
        jnp.zeros(steps, bool),
    )
    for conditions in ((), given):

        def loss(variables, xs, conditions=conditions, steps=steps):
            carry, ys = layer.apply(variables, None, xs, *conditions)
            assert ys.shape == (*steps, layer.output_features)
            assert shapes(carry) == shapes(layer.carry_spec(xs.shape[1:]))
            return ys.sum()

        value, gradients = jax.value_and_grad(loss, argnums=(0, 1))(variables, xs)
        assert value == 0 and all(not np.any(x) for x in jax.tree.leaves(gradients))


# Lifting.


def lifted(lift, layer, **options):
    fields = {f.name: getattr(layer, f.name) for f in dataclasses.fields(layer) if f.init}
    fields = {name: x for name, x in fields.items() if name not in ("parent", "name")}
    return lift(type(layer), **options)(**fields)


@pytest.mark.parametrize("method", rows(["__call__", "history"], ["__call__"]))
@pytest.mark.parametrize("name", rows(CONFIGS, ["list", "bidirectional"]))
def test_lifted_composites_take_conditions_by_position(name, method):
    layer = registry.build(CONFIGS[name])
    variables = variables_of(layer, XS)
    wanted = layer.apply(variables, None, XS, *CONDITIONS, True, method=method)
    names = ("seq_lengths", "mask", "resets")
    given = dict(zip(names, CONDITIONS, strict=True))
    assert_same(wanted, layer.apply(variables, None, XS, **given, method=method))
    for lift in (nn.remat, nn.jit):
        static = lifted(lift, layer, static_argnums=(6,), methods=[method])
        got = static.apply(variables, None, XS, *CONDITIONS, True, method=method)
        assert_close(got, wanted, 1e-6)
    ensemble = lifted(
        nn.vmap,
        layer,
        in_axes=(None,) * 6,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        axis_size=2,
        methods=[method],
    )
    twice = jax.tree.map(lambda x: jnp.stack([x, x]), variables)
    got = ensemble.apply(twice, None, XS, *CONDITIONS, True, method=method)
    assert_close(jax.tree.map(lambda x: x[1], got), wanted, 1e-6)
