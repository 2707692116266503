"""Wrong options and wrong calls: the class of every error, and what its message says."""

import subprocess
import sys
import textwrap

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import registry
from zoo.recurrent import scan_rnn_forward
from zoo.recurrent.call.checks import DTypeError, ShapeError

from .layers import some

T, B, D, H = 6, 3, 5, 4
XS = some((T, B, D))
MASK = jnp.ones((T, B), bool)
LENGTHS = jnp.full((B,), T, jnp.int32)
CARRY = jnp.zeros((B, H))


@pytest.fixture(scope="module")
def built():
    layers = {}
    for name in ("scan_gru", "scan_lstm"):
        layer = registry.build(name, features=H)
        layers[name] = layer, layer.init(jax.random.key(0), None, XS)
    return layers


OPTIONS = [
    ({"features": 0}, ValueError, ["features must be a positive int", "got 0"]),
    ({"features": -1}, ValueError, ["features", "got -1"]),
    ({"features": 2.5}, TypeError, ["features", "2.5", "float"]),
    ({"features": 4.0}, TypeError, ["features", "4.0", "float"]),
    ({"features": True}, TypeError, ["features", "True", "bool"]),
    ({"features": "8"}, TypeError, ["features", "'8'", "str"]),
    ({"features": None}, TypeError, ["features", "None"]),
    ({"unroll": 0}, ValueError, ["unroll", "got 0"]),
    ({"checkpoint_every": 0}, ValueError, ["checkpoint_every", "got 0"]),
    ({"checkpoint_every": 2.0}, TypeError, ["checkpoint_every", "or None", "float"]),
    ({"truncate_every": -3}, ValueError, ["truncate_every", "got -3"]),
    ({"dropout_rate": 1.0}, ValueError, ["dropout_rate", "[0, 1)", "1.0"]),
    ({"recurrent_dropout_rate": -0.1}, ValueError, ["recurrent_dropout_rate", "[0, 1)"]),
    ({"zoneout_rate": "half"}, ValueError, ["zoneout_rate", "[0, 1)", "'half'"]),
    ({"zoneout_rate": float("nan")}, ValueError, ["zoneout_rate", "[0, 1)", "nan"]),
    ({"implementation": "cudnn"}, ValueError, ["implementation", "'scan'", "'cudnn'"]),
    ({"gate_fn": "sigmoyd"}, ValueError, ["gate_fn", "jax.nn", "'sigmoyd'"]),
    ({"activation_fn": 3}, TypeError, ["activation_fn", "function", "3"]),
    ({"unit": 8}, TypeError, ["unit"]),
]


@pytest.mark.parametrize(("options", "kind", "words"), OPTIONS, ids=[str(o[0]) for o in OPTIONS])
def test_wrong_options(options, kind, words):
    with pytest.raises(kind) as caught:
        registry.build("scan_gru", **{"features": H, **options})
    for word in words:
        assert word in str(caught.value)


def test_wrong_options_of_the_lstm():
    with pytest.raises(ValueError, match="projection must be a positive int, got 0"):
        registry.build("scan_lstm", features=H, projection=0)
    with pytest.raises(TypeError, match="projection must be a positive int or None"):
        registry.build("scan_lstm", features=H, projection=1.5)


# (layer, (carry, xs), keyword arguments, class, words of the message)
CALLS = {
    "xs transposed": ("scan_gru", (None, XS.T), {}, ShapeError, ["xs", "5 features", "(5, 3, 6)"]),
    "xs (D, T)": (
        "scan_gru",
        (None, XS[:, 0].T),
        {},
        ShapeError,
        ["xs", "expected 5 features on the last axis", "(5, 6)", "(D, T) instead of (T, D)"],
    ),
    "xs of one axis": ("scan_gru", (None, XS[:, 0, 0]), {}, ShapeError, ["(T, *batch, D)", "(6,)"]),
    "xs of integers": (
        "scan_gru",
        (None, XS.astype(jnp.int32)),
        {},
        DTypeError,
        ["xs", "floating", "int32", "token ids"],
    ),
    "xs of booleans": ("scan_gru", (None, XS > 0), {}, DTypeError, ["xs", "floating", "bool"]),
    "xs a list": ("scan_gru", (None, [[1.0]]), {}, TypeError, ["xs", "list", "(carry, xs)"]),
    "xs forgotten": ("scan_gru", (XS, None), {}, TypeError, ["xs", "NoneType", "carry=None"]),
    "xs batch-major": (
        "scan_gru",
        (jnp.zeros((T, H)), XS),
        {},
        ShapeError,
        ["carry", "(3, 4)", "(6, 4)", "time_axis=1", "batch-major"],
    ),
    "carry of another width": (
        "scan_gru",
        (jnp.zeros((B, H + 1)), XS),
        {},
        ShapeError,
        ["carry", "(3, 4)", "(3, 5)", "another width"],
    ),
    "carry of another batch": (
        "scan_gru",
        (jnp.zeros((2, H)), XS),
        {},
        ShapeError,
        ["carry", "(3, 4)", "(2, 4)", "another batch"],
    ),
    "carry without its batch": ("scan_gru", (jnp.zeros(H), XS), {}, ShapeError, ["carry", "(4,)"]),
    "carry of integers": (
        "scan_gru",
        (jnp.zeros((B, H), jnp.int32), XS),
        {},
        DTypeError,
        ["carry", "floating", "int32"],
    ),
    "carry a list": ("scan_gru", ([CARRY], XS), {}, DTypeError, ["carry", "structure"]),
    "LSTM carry a pair for a GRU": (
        "scan_gru",
        ((CARRY, CARRY), XS),
        {},
        DTypeError,
        ["carry", "structure", "initialize_carry"],
    ),
    "LSTM carry a single array": (
        "scan_lstm",
        (CARRY, XS),
        {},
        DTypeError,
        ["carry", "(c, h)", "structure"],
    ),
    "mask of integers": (
        "scan_gru",
        (None, XS),
        {"mask": MASK.astype(jnp.int32)},
        DTypeError,
        ["mask", "bool", "int32", "!= 0"],
    ),
    "mask of floats": ("scan_gru", (None, XS), {"mask": XS[..., 0]}, DTypeError, ["mask", "bool"]),
    "mask batch-major": (
        "scan_gru",
        (None, XS),
        {"mask": MASK.T},
        ShapeError,
        ["mask", "(6, 3)", "(3, 6)", "time_axis"],
    ),
    "mask with features": (
        "scan_gru",
        (None, XS),
        {"mask": MASK[..., None]},
        ShapeError,
        ["mask", "(6, 3)", "(6, 3, 1)", "feature axis"],
    ),
    "mask a list": ("scan_gru", (None, XS), {"mask": [True]}, TypeError, ["mask", "jnp.asarray"]),
    "resets per sequence": (
        "scan_gru",
        (None, XS),
        {"resets": MASK[0]},
        ShapeError,
        ["resets", "(6, 3)", "(3,)"],
    ),
    "resets of integers": (
        "scan_gru",
        (None, XS),
        {"resets": MASK.astype(jnp.uint8)},
        DTypeError,
        ["resets", "bool", "uint8"],
    ),
    "lengths of floats": (
        "scan_gru",
        (None, XS),
        {"seq_lengths": LENGTHS.astype(jnp.float32)},
        DTypeError,
        ["seq_lengths", "int", "float32"],
    ),
    "lengths of booleans": (
        "scan_gru",
        (None, XS),
        {"seq_lengths": LENGTHS > 0},
        DTypeError,
        ["seq_lengths", "int", "bool"],
    ),
    "lengths of another batch": (
        "scan_gru",
        (None, XS),
        {"seq_lengths": LENGTHS[1:]},
        ShapeError,
        ["seq_lengths", "(3,)", "(2,)"],
    ),
    "lengths a list": (
        "scan_gru",
        (None, XS),
        {"seq_lengths": [6, 6, 6]},
        TypeError,
        ["seq_lengths", "list", "jnp.asarray"],
    ),
    "lengths beyond T": (
        "scan_gru",
        (None, XS),
        {"seq_lengths": LENGTHS + 1},
        ShapeError,
        ["seq_lengths", "[0, T]", "T=6", "maximum of 7"],
    ),
    "lengths below zero": (
        "scan_gru",
        (None, XS),
        {"seq_lengths": LENGTHS - 7},
        ShapeError,
        ["seq_lengths", "[0, T]", "minimum of -1"],
    ),
}


@pytest.mark.parametrize("what", CALLS)
def test_wrong_calls(what, built):
    name, args, options, kind, words = CALLS[what]
    layer, variables = built[name]
    with pytest.raises(kind) as caught:
        layer.apply(variables, *args, **options)
    for word in words:
        assert word in str(caught.value)


def test_chex_style_handlers_catch_them_as_well(built):
    layer, variables = built["scan_gru"]
    for _, args, options, kind, _ in CALLS.values():
        if kind in (ShapeError, DTypeError):
            with pytest.raises(AssertionError):
                layer.apply(variables, *args, **options)
            break
    assert issubclass(ShapeError, ValueError) and issubclass(ShapeError, AssertionError)
    assert issubclass(DTypeError, TypeError) and issubclass(DTypeError, AssertionError)


def test_a_swapped_lstm_carry_is_named(built):
    layer = registry.build("scan_lstm", features=H, projection=2)
    variables = layer.init(jax.random.key(0), None, XS)
    swapped = jnp.zeros((B, 2)), jnp.zeros((B, H))
    with pytest.raises(ShapeError, match=r"\(c, h\); this looks like \(h, c\)"):
        layer.apply(variables, swapped, XS)


@pytest.mark.parametrize(
    ("time_axis", "shape"), [(1, (T, D)), (2, (T, B, D)), (-1, (T, B, D)), (-4, (T, B, D))]
)
def test_a_time_axis_that_xs_does_not_have(time_axis, shape):
    layer = registry.build("scan_gru", features=H, time_axis=time_axis)
    with pytest.raises(ShapeError, match=f"time_axis={time_axis} does not fit xs"):
        layer.init(jax.random.key(0), None, jnp.zeros(shape))


STEPS = {
    "x of a whole sequence": ((CARRY, XS), ShapeError, ["carry", "(6, 3, 4)", "(3, 4)"]),
    "x of other features": ((CARRY, XS[0, :, :2]), ShapeError, ["x:", "5 features", "(3, 2)"]),
    "x a scalar": ((CARRY, XS[0, 0, 0]), ShapeError, ["x:", "(*batch, D)", "()"]),
    "x of integers": ((CARRY, LENGTHS[:, None]), DTypeError, ["x:", "floating", "int32"]),
    "carry of another width": ((CARRY[:, :2], XS[0]), ShapeError, ["carry", "another width"]),
}


@pytest.mark.parametrize("what", STEPS)
def test_wrong_steps(what, built):
    args, kind, words = STEPS[what]
    layer, variables = built["scan_gru"]
    with pytest.raises(kind) as caught:
        layer.apply(variables, *args, method="step")
    for word in words:
        assert word in str(caught.value)


def test_variables_of_another_width_are_named(built):
    _, variables = built["scan_gru"]
    with pytest.raises(ShapeError, match=r"parameter .*kernel: expected shape"):
        registry.build("scan_gru", features=H + 1).apply(variables, None, XS)


def test_a_learned_carry_needs_its_variables():
    layer = registry.build("scan_gru", features=H, learned_carry=True)
    with pytest.raises(ValueError, match=r'method="initialize_carry"'):
        layer.initialize_carry(None, (B, D))


def test_a_random_carry_needs_a_key():
    layer = registry.build("scan_gru", features=H, carry_init=jax.nn.initializers.normal(1.0))
    variables = layer.init(jax.random.key(0), None, XS)
    with pytest.raises(ValueError, match=r'rngs=\{"carry": key\}'):
        layer.apply(variables, None, XS)
    with pytest.raises(ValueError, match="expected a key for the initial carry, got none"):
        layer.initialize_carry(None, (B, D))


def test_scan_rnn_forward_refuses_integers_and_vectors():
    with pytest.raises(TypeError, match="floating"):
        scan_rnn_forward(0, jnp.ones((5, 3), jnp.int32), 4)
    with pytest.raises(ValueError, match="xs"):
        scan_rnn_forward(0, jnp.ones((5,)), 4)
    with pytest.raises(ValueError, match="features"):
        scan_rnn_forward(0, jnp.ones((5, 3)), 0)


@pytest.mark.parametrize("name", ["bidirectional", "stack"])
def test_composites_refuse_wrong_options(name):
    options = {"stack": {"num_layers": 2}, "bidirectional": {}}[name]
    with pytest.raises(TypeError, match="layer: expected a registered name"):
        registry.build(name, layer=3, **options)
    with pytest.raises(registry.UnknownNameError, match="did you mean 'scan_gru'"):
        registry.build(name, layer="scan_gry", features=H, **options)
    with pytest.raises(TypeError, match="unit"):
        registry.build(name, layer="scan_gru", features=H, unit=3, **options)
    with pytest.raises(ValueError, match="features must be a positive int"):
        registry.build(name, layer="scan_gru", features=0, **options)
    with pytest.raises(ValueError, match="time_axis"):
        inner = {"name": "scan_gru", "features": H, "time_axis": 1}
        registry.build(name, layer=inner, **options)


def test_only_the_stack_counts_its_layers():
    for count, kind in ((0, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(kind, match="num_layers must be a positive int"):
            registry.build("stack", layer="scan_gru", features=H, num_layers=count)


def test_a_bidirectional_layer_cannot_step():
    layer = registry.build("bidirectional", layer="scan_gru", features=H)
    variables = layer.init(jax.random.key(0), None, XS)
    with pytest.raises(TypeError, match="causal"):
        layer.apply(variables, None, XS[0], method="step")


def test_what_must_always_hold_holds_without_chex(built):
    """``chex.disable_asserts`` turns shape checks off, but not those that are plain raises."""
    layer, variables = built["scan_gru"]
    always = [
        (ValueError, "features", lambda: registry.build("scan_gru", features=0)),
        (TypeError, "structure", lambda: layer.apply(variables, (CARRY, CARRY), XS)),
        (ValueError, "[0, T]", lambda: layer.apply(variables, None, XS, seq_lengths=LENGTHS + 1)),
        (ValueError, "(T, *batch, D)", lambda: layer.apply(variables, None, XS[:, 0, 0])),
        (TypeError, "list", lambda: layer.apply(variables, None, [[1.0]])),
        (ValueError, "parameter", lambda: layer.clone(features=H + 1).apply(variables, None, XS)),
    ]
    chex.disable_asserts()
    try:
        for kind, word, call in always:
            with pytest.raises(kind) as caught:
                call()
            assert word in str(caught.value)
    finally:
        chex.enable_asserts()


UNDER_O = """
    import jax, jax.numpy as jnp, registry
    layer = registry.build("scan_gru", features=4)
    variables = layer.init(jax.random.key(0), None, jnp.zeros((6, 3, 5)))
    def refused(kind, call):
        try:
            call()
        except kind:
            return
        raise SystemExit(f"{kind} was expected")
    xs = jnp.zeros((6, 3, 5))
    refused(ValueError, lambda: layer.apply(variables, None, xs[..., :2]))
    refused(TypeError, lambda: layer.apply(variables, None, xs.astype(jnp.int32)))
    refused(ValueError, lambda: layer.apply(variables, jnp.zeros((3, 5)), xs))
    refused(TypeError, lambda: layer.apply(variables, None, xs, mask=jnp.ones((6, 3), jnp.int32)))
    refused(ValueError, lambda: layer.apply(variables, None, xs, seq_lengths=jnp.array([7, 1, 1])))
    refused(ValueError, lambda: registry.build("scan_gru", features=0))
"""


def test_errors_hold_under_python_O():
    program = textwrap.dedent(UNDER_O)
    done = subprocess.run(
        [sys.executable, "-O", "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_numpy_arrays_are_taken_as_they_are(built):
    layer, variables = built["scan_gru"]
    got = layer.apply(
        variables,
        np.asarray(CARRY),
        np.asarray(XS),
        seq_lengths=np.asarray(LENGTHS),
        mask=np.asarray(MASK),
        resets=np.asarray(~MASK),
    )
    expected = layer.apply(variables, CARRY, XS)
    np.testing.assert_allclose(got[1], expected[1], atol=1e-6)
