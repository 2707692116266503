"""Variables and keys that do not fit: which one it is, what was expected, and what to do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import registry
from tests.rows import rows
from zoo.recurrent.call.checks import DTypeError, ShapeError

from .layers import assert_same, inputs_for, some

H = 4
XS = some((3, 2, 5))
KEY = jax.random.key(0)

LAYERS = {
    # One of every kind of parameter: kernels with biases, vectors, scales, blocks, convolutions.
    **{
        name: (name, {})
        for name in ("scan_gru", "scan_indrnn", "scan_layer_norm_lstm", "scan_conv_gru")
    },
    "heads": ("scan_slstm", {"heads": 2}),
    "learned carry": ("scan_lstm", {"learned_carry": True, "projection": 2}),
    "bidirectional": ("bidirectional", {"layer": "scan_gru", "learned_carry": True}),
    "stack": ("stack", {"layer": "scan_gru", "num_layers": 3, "layer_norm": True}),
    "stack of one": ("stack", {"layer": "scan_elman", "num_layers": 1}),
    "stack of bidirectional": (
        "stack",
        {"layer": {"name": "bidirectional", "layer": "scan_elman"}, "num_layers": 3},
    ),
}

# (what becomes of an array, the class of the error, words of its message)
BAD = {
    "missing": (None, ValueError, ["expected it among the variables", "Likely cause"]),
    "None": (lambda x: None, TypeError, ["got None", "jnp.asarray"]),
    "a list": (lambda x: np.asarray(x).tolist(), TypeError, ["of type list", "jnp.asarray"]),
    "text": (lambda x: "zeros", TypeError, ["'zeros' of type str"]),
    "integers": (lambda x: x.astype(jnp.int8), TypeError, ["int8[", "quantised", "cast"]),
    "booleans": (lambda x: x > 0, TypeError, ["bool["]),
    "complex": (lambda x: x.astype(jnp.complex64), TypeError, ["complex64["]),
    "float8": (lambda x: x.astype(jnp.float8_e4m3fn), TypeError, ["float8_e4m3fn[", "astype("]),
    "another rank": (lambda x: x[None], ValueError, ["expected shape", "got (1, "]),
    "another width": (lambda x: jnp.concatenate([x, x], -1), ValueError, ["expected shape"]),
}
NO_MAPPING = {"None": None, "a list": [1.0], "text": "kernel", "an array": np.zeros(3)}


@pytest.fixture(scope="module")
def built():
    layers = {}
    for what, (name, options) in LAYERS.items():
        layer = registry.build(name, features=H, **options)
        layers[what] = layer, layer.init(KEY, None, inputs_for(layer, *XS.shape))
    return layers


def paths(tree):
    """The path of every array, and those of the mappings around them."""
    arrays = [tuple(k.key for k in path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    return arrays, sorted({path[:n] for path in arrays for n in range(1, len(path))})


def edited(tree, path, change):
    """A copy of a tree of dictionaries with one entry changed, or without it."""
    name, *rest = path
    new = dict(tree)
    if rest:
        new[name] = edited(tree[name], rest, change)
    elif change is None:
        del new[name]
    else:
        new[name] = change(tree[name])
    return new


def call(layer, variables):
    """A call that computes nothing: what is wrong is found while tracing."""
    xs = inputs_for(layer, *XS.shape)
    return jax.eval_shape(lambda xs: layer.apply(variables, None, xs), xs)


@pytest.mark.parametrize("wrong", BAD)
@pytest.mark.parametrize("what", rows(LAYERS, ("scan_gru", "stack")))
def test_a_wrong_array_is_named(what, wrong, built):
    layer, variables = built[what]
    change, kind, words = BAD[wrong]
    params = variables["params"]
    for path in paths(params)[0]:
        with pytest.raises(kind) as caught:
            call(layer, {"params": edited(params, path, change)})
        text = str(caught.value)
        for word in (f"parameter {'/'.join(path)}: ", *words):
            assert word in text


@pytest.mark.parametrize("what", LAYERS)
def test_no_mapping_where_one_should_be(what, built):
    layer, variables = built[what]
    for path in paths(variables["params"])[1]:
        for value in NO_MAPPING.values():
            given = edited(variables["params"], path, lambda _, value=value: value)
            # Of several layers in one, an array is first looked at for their number.
            kinds = (TypeError, ShapeError)
            with pytest.raises(kinds, match=r"expected (a mapping|a floating|shape)") as caught:
                call(layer, {"params": given})
            assert "/".join(path) in str(caught.value)
        # Without all parameters of the upper layers, a stack is one of another depth.
        words = r"expected (it among the variables|those of a stack)"
        with pytest.raises(ValueError, match=words) as caught:
            call(layer, {"params": edited(variables["params"], path, None)})
        assert "/".join(path) in str(caught.value)


@pytest.mark.parametrize("what", LAYERS)
def test_a_step_checks_them_as_well(what, built):
    layer, variables = built[what]
    if not layer.causal:
        return
    wrong = jax.tree.map(lambda x: x.astype(jnp.int8), variables)
    with pytest.raises(DTypeError, match=r"parameter .*int8"):
        layer.apply(wrong, None, inputs_for(layer, *XS.shape)[0], method="step")


@pytest.mark.parametrize("what", LAYERS)
def test_variables_of_no_layer(what, built):
    layer, variables = built[what]
    for given in (None, [variables], 3, XS, {"params": None}, {"params": [1.0]}, {"params": XS}):
        with pytest.raises(TypeError, match=r"^variables.*expected a mapping"):
            layer.apply(given, None, XS)
    for given in ({}, {"params": {}}, variables["params"]):
        with pytest.raises(
            (TypeError, ValueError), match=r'variables\["params"\] where variables is'
        ):
            call(layer, given)


@pytest.mark.parametrize("what", LAYERS)
def test_numpy_arrays_and_half_precision_are_taken(what, built):
    layer, variables = built[what]
    xs = inputs_for(layer, *XS.shape)
    expected = layer.apply(variables, None, xs)
    assert_same(layer.apply(jax.tree.map(np.asarray, variables), None, xs), expected)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), variables)
    assert layer.apply(half, None, xs)[1].shape == expected[1].shape


def test_the_number_of_a_stacks_layers_is_that_of_its_variables(built):
    layer, variables = built["stack"]
    with pytest.raises(ValueError, match=r"those of a stack of 5: .*got shape \(2, .* at rest/"):
        layer.clone(num_layers=5).apply(variables, None, XS)


def test_a_model_around_a_layer_says_where_it_is(built):
    import flax.linen as nn

    class Model(nn.Module):
        @nn.compact
        def __call__(self, xs):
            return registry.build("scan_gru", features=H, name="memory")(None, xs)[1]

    variables = Model().init(KEY, XS)
    for change, kind in ((None, ValueError), (lambda x: None, TypeError)):
        given = {"params": edited(variables["params"], ("memory", "hn"), change)}
        with pytest.raises(kind, match="memory/hn"):
            Model().apply(given, XS)
    with pytest.raises(TypeError, match="parameters memory: expected a mapping"):
        Model().apply({"params": {"memory": None}}, XS)


def test_a_missing_parameter_is_drawn_where_parameters_may_be_written(built):
    layer, variables = built["scan_gru"]
    given = {"params": edited(variables["params"], ("hn", "bias"), None)}
    _, written = layer.apply(given, None, XS, mutable=["params"], rngs={"params": KEY})
    assert written["params"]["hn"]["bias"].shape == (H,)


NO_KEYS = [
    *(0, 1.5, "key", [0, 1], (KEY,), jnp.ones(2), np.uint32(0), jax.random.split(KEY)),
    *({"dropout": 0}, {"dropout": None}, {"params": KEY, "dropout": "key"}),
    *({"dropout": jnp.zeros(2, jnp.int32)}, {"dropout": jax.random.split(KEY)}),
]
KEYS = [KEY, jax.random.PRNGKey(0), np.asarray(jax.random.PRNGKey(0))]


@pytest.mark.parametrize("what", ["scan_gru", "scan_layer_norm_lstm", "stack", "bidirectional"])
def test_what_is_no_key_is_refused(what, built):
    layer, variables = built[what]
    for rngs in NO_KEYS:
        for call in (
            lambda rngs=rngs: layer.init(rngs, None, XS),
            lambda rngs=rngs: layer.apply(variables, None, XS, rngs=rngs),
        ):
            with pytest.raises(TypeError, match=r"^rngs.*: expected a key, got .*jax.random.key"):
                call()


@pytest.mark.parametrize("what", ["scan_gru", "stack", "bidirectional"])
def test_keys_of_every_kind_are_taken(what, built):
    name, options = LAYERS[what]
    layer = registry.build(name, features=H, **{**options, "dropout_rate": 0.5})
    for key in KEYS:
        variables = layer.init(key, None, XS)
        assert jax.tree.leaves(layer.init({"params": key, "dropout": key}, None, XS))
        for rngs in (key, {"dropout": key}):
            layer.apply(variables, None, XS, deterministic=False, rngs=rngs)
    assert layer.apply(variables, None, XS, rngs=None)


def test_an_initial_carry_is_drawn_from_a_key():
    layer = registry.build("scan_gru", features=H, carry_init=jax.nn.initializers.normal(1.0))
    with pytest.raises(TypeError, match=r"^rng: expected a key, got 3"):
        layer.initialize_carry(3, (2, 5))
    assert layer.initialize_carry(KEY, (2, 5)).shape == (2, H)
