"""Every option of every layer against values that it takes and values that it refuses."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax.core import FrozenDict

import registry
from tests.rows import rows
from zoo.recurrent.call import option_checks as takes
from zoo.recurrent.call import options
from zoo.recurrent.composites import bidirectional
from zoo.recurrent.contract import RecurrentLayer

from .layers import ScannedGRU, inputs_for, some

H = 4
XS = some((3, 2, 5))
NAN, INF = float("nan"), float("inf")


class Unhashable:
    __hash__ = None

    def __call__(self, x):
        return jnp.tanh(x)


POSITIVE = [0, -1, 2.0, True, "2", [2], jnp.ones((), int)]
REQUIRED_POSITIVE = (*POSITIVE, None)
BOOL = ["no", "False", "", None, 0, 1, 0.0, [], [True], jnp.ones((), bool)]
RATE = [1.0, -0.1, NAN, INF, True, False, np.bool_(False), "half", None, [0.5], 0.5j]
NUMBER = [NAN, INF, -INF, True, "1", None, [1.0], 1j]
DTYPE = [
    *("int32", jnp.int8, int, "bool", bool, jnp.complex64, complex, "flot32", "", ">f4", {}),
    *(3, True, ["float32"], jnp.float8_e4m3fn, "float8_e5m2", np.longdouble, np.ones(3)),
    *(np.float32(1.0), jnp.ones(3), jnp.float32(1.0), "float32,float32"),
]
REQUIRED_DTYPE = (*DTYPE, None)
FUNCTION = [None, 3, "zeros", jnp.ones(3), [nn.initializers.zeros], True]
ACTIVATION = [
    *(None, 3, True, "sigmoyd", "glu", "one_hot", "logsumexp", "initializers", [jnp.tanh]),
    *(lambda x: (x, x), lambda x: x[..., :1], lambda x: x > 0, lambda x: x.astype(int)),
    *(lambda: 1, lambda x, y: x, lambda x: None, lambda x: 1.0, lambda x: x * 1j),
    *(lambda x: x if x > 0 else -x, lambda x: x[None], Unhashable(), nn.PReLU()),
]
BAD = {
    "features": REQUIRED_POSITIVE,
    "time_axis": [True, False, np.bool_(True), 1.0, "1", None, [0]],
    **dict.fromkeys(
        ("reverse", "use_bias", "learned_carry", "residual", "layer_norm", "skip"), BOOL
    ),
    **dict.fromkeys(("reset_gate", "peepholes", "coupled_gates"), BOOL),
    **dict.fromkeys(("unroll", "num_layers"), REQUIRED_POSITIVE),
    "heads": [*POSITIVE, 3],
    **dict.fromkeys(("checkpoint_every", "truncate_every", "projection"), POSITIVE),
    **dict.fromkeys(("gate_fn", "activation_fn"), ACTIVATION),
    **dict.fromkeys(("kernel_init", "recurrent_kernel_init", "bias_init", "carry_init"), FUNCTION),
    "dtype": DTYPE,
    **dict.fromkeys(("param_dtype", "carry_dtype"), REQUIRED_DTYPE),
    "precision": [True, 3, 1.5, "hihg", "HIGHEST", ("high",), [["high"], "high"], {}, b"high"],
    **dict.fromkeys(("dropout_rate", "recurrent_dropout_rate", "zoneout_rate"), RATE),
    "implementation": ["cudnn", None, True, ["scan"], 0],
    "forget_bias": NUMBER,
    "epsilon": [*NUMBER, -1e-6],
    "merge": ["cat", 3, ["sum"], True],
}

YES = [True, False, np.True_, np.bool_(False)]
SIZE = [1, 4, np.int64(4), np.uint8(4)]
OPTIONAL_SIZE = (*SIZE, None)
RATES = [0, 0.0, 0.5, np.float32(0.5), np.float64(0.5), np.int32(0)]
FLOATS = [
    *(jnp.float32, jnp.bfloat16, np.float16, np.dtype("float32"), "bfloat16", "float16"),
    *(ml_dtypes.bfloat16, jnp.dtype(jnp.bfloat16), float, "f4", "half"),
]
DRAW = [nn.initializers.zeros, nn.initializers.constant(0.5), lambda k, s, d: np.zeros(s, d)]
FUNCTIONS = [
    jnp.tanh,
    nn.relu,
    "relu",
    "hard_sigmoid",
    "softmax",
    jax.nn.soft_sign,
    lambda x: 2 * x,
]
GOOD = {
    "features": SIZE,
    "time_axis": [0, 1, -2, np.int32(1)],
    **dict.fromkeys(
        ("reverse", "use_bias", "learned_carry", "residual", "layer_norm", "skip"), YES
    ),
    **dict.fromkeys(("reset_gate", "peepholes", "coupled_gates"), YES),
    **dict.fromkeys(("unroll", "num_layers", "heads"), SIZE),
    **dict.fromkeys(("checkpoint_every", "truncate_every", "projection"), OPTIONAL_SIZE),
    **dict.fromkeys(("gate_fn", "activation_fn"), FUNCTIONS),
    **dict.fromkeys(("kernel_init", "recurrent_kernel_init", "bias_init", "carry_init"), DRAW),
    "dtype": [*FLOATS, None],
    **dict.fromkeys(("param_dtype", "carry_dtype"), FLOATS),
    "precision": [None, "high", jax.lax.Precision.HIGHEST, ("high", "default"), ["high", "high"]],
    **dict.fromkeys(("dropout_rate", "recurrent_dropout_rate", "zoneout_rate"), RATES),
    "implementation": ["auto", "scan", "fused"],
    "forget_bias": [0, 1, -1.5, np.float32(1.0), np.int64(1)],
    "epsilon": [0, 1e-6, np.float32(1e-3)],
    "merge": ["concat", "sum", "mul", "mean", jnp.maximum, None],
}

# Of options that a layer's own file brings along, by what checks them: (taken, refused).
KINDS = {
    takes.boolean: (YES, BOOL),
    takes.positive_int: (SIZE, REQUIRED_POSITIVE),
    takes.positive_int_or_none: (OPTIONAL_SIZE, POSITIVE),
    takes.finite: (GOOD["forget_bias"], NUMBER),
    takes.finite_not_negative: (GOOD["epsilon"], BAD["epsilon"]),
    takes.finite_positive: ([0.05, np.float32(0.0625)], [*NUMBER, 0, -1e-6]),
    takes.radius: ([0.5, 1, np.float32(1.0)], [*NUMBER, 0, -1e-6, 1.5]),
    takes.rate: (RATES, RATE),
}


def values(name, option):
    """What an option of a layer takes, and what it refuses."""
    if option in GOOD:
        good = GOOD[option]
        if option == "heads" and not divisible(name):
            return [1, np.int64(1)], [*REQUIRED_POSITIVE, 2]
        return good, BAD[option]
    layer = build(name)
    check = options.table(type(layer))[option].check
    return KINDS.get(check, ([getattr(layer, option)], [3.5, object(), jnp.ones(3)]))


def divisible(name):
    """Whether a layer has recurrent kernels that can be cut into heads."""
    cell = build(name).cell
    kinds = cell.declare().values()
    multiplied = [k for k in kinds if k.source != "none"]
    return cell.hidden and not any(k.diagonal or k.window for k in multiplied)


REQUIRED = {
    "bidirectional": {"layer": "scan_gru"},
    "stack": {"layer": "scan_gru", "num_layers": 2},
    "scanned": {},
}
LAYERS = {"layer", "layers"}
NAMES = [*registry.names("scan_*"), "bidirectional", "stack", "scanned"]


def build(name, **given):
    config = {"features": H, **REQUIRED.get(name, {}), **given}
    return ScannedGRU(**config) if name == "scanned" else registry.build(name, **config)


def own_options(name):
    layer = build(name)
    cells = [f.name for f in dataclasses.fields(nn.GRUCell)] if name == "scanned" else ()
    return [
        f.name
        for f in dataclasses.fields(layer)
        if f.name not in ("parent", "name") and f.name not in cells
    ]


CASES = [(name, option) for name in NAMES for option in own_options(name) if option not in LAYERS]


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_in_a_table(name):
    assert set(own_options(name)) <= set(options.table(type(build(name))))


def test_the_table_tells_of_every_option():
    for name, row in options.TABLE.items():
        assert row.name == name and row.accepts and row.description.endswith(".")
    assert set(options.TABLE) - LAYERS == set(BAD) == set(GOOD)


def test_the_table_knows_what_outputs_are_merged_by():
    for merge in bidirectional._MERGES:
        assert options.TABLE["merge"].check("merge", merge) == merge
        assert merge in options.TABLE["merge"].accepts


@pytest.mark.parametrize(("name", "option"), CASES)
def test_wrong_values_are_refused_by_name(name, option):
    for value in values(name, option)[1]:
        with pytest.raises((TypeError, ValueError)) as caught:
            build(name, **{option: value})
        text = str(caught.value)
        assert text.startswith((f"{option} must be", f"{option}: expected")), (value, text)


@pytest.mark.parametrize(("name", "option"), CASES)
def test_possible_values_are_taken(name, option):
    for value in values(name, option)[0]:
        layer = build(name, **{option: value})
        assert isinstance(layer, RecurrentLayer)
        taken = getattr(layer, option)
        assert not isinstance(taken, np.generic)
        assert np.all(np.asarray(taken == value)) or isinstance(value, list)


RUN = {
    "use_bias": np.True_,
    "reverse": np.False_,
    "dropout_rate": np.float64(0.5),
    "zoneout_rate": np.float32(0.5),
    "unroll": np.int64(1),
    "dtype": "bfloat16",
    "carry_dtype": ml_dtypes.bfloat16,
    "param_dtype": np.dtype(jnp.bfloat16),
    "precision": ["high", "high"],
}


@pytest.mark.parametrize(
    "name",
    rows(
        registry.names("scan_*"), ("scan_lstm", "scan_layer_norm_gru", "scan_conv_gru", "scan_s5")
    ),
)
def test_what_is_taken_computes(name):
    """NumPy's scalars would widen half precision, if they were kept as they are."""
    layer = build(name, **RUN)
    python = build(name, **{**RUN, "dropout_rate": 0.5, "zoneout_rate": 0.5, "unroll": 1})
    assert layer == python.clone()
    xs = inputs_for(layer, *XS.shape)
    variables = layer.init(jax.random.key(0), None, xs)
    _, ys = layer.apply(
        variables, None, xs, deterministic=False, rngs={"dropout": jax.random.key(1)}
    )
    assert ys.dtype == jnp.bfloat16 and np.isfinite(np.asarray(ys, np.float32)).all()


def test_a_parent_hands_on_options_of_its_configuration():
    class Model(nn.Module):
        config: FrozenDict

        @nn.compact
        def __call__(self, xs):
            return registry.build("gru", **self.config, activation_fn=nn.tanh)(None, xs)[1]

    config = {"features": H, "dtype": "float32", "precision": ["high", "high"], "reverse": False}
    model = Model(FrozenDict(config))
    ys, variables = model.init_with_output(jax.random.key(0), XS)
    assert ys.shape == (3, 2, H) and list(variables["params"]) == ["ScanGRU_0"]


def test_an_activation_may_close_over_traced_values():
    @jax.jit
    def run(slope, xs):
        layer = registry.build(
            "scan_elman", features=H, activation_fn=lambda x: jnp.broadcast_to(slope, x.shape) * x
        )
        return layer.init_with_output(jax.random.key(0), None, xs)[0][1]

    assert run(jnp.ones(H), XS).shape == (3, 2, H)


def test_an_activation_may_need_the_name_of_an_axis():
    def centred(x):
        return x - jax.lax.pmean(x, "rows")

    layer = registry.build("scan_elman", features=H, activation_fn=centred)
    assert layer.activation_fn is centred


def test_activations_are_evaluated_once():
    seen = []

    def noted(x):
        seen.append(x.shape)
        return jnp.tanh(x)

    for _ in range(3):
        registry.build("scan_gru", features=H, gate_fn=noted, activation_fn=noted).clone()
    assert seen == [(2, H)]


INITIALISERS = {
    "no array": (lambda k, s, d: [0.0] * s[0], TypeError),
    "None": (lambda k, s, d: None, TypeError),
    "a number": (lambda k, s, d: 0.0, TypeError),
    "integers": (lambda k, s, d: jnp.zeros(s, int), TypeError),
    "booleans": (lambda k, s, d: jnp.zeros(s, bool), TypeError),
    "a pair": (lambda k, s, d: (jnp.zeros(s, d),) * 2, TypeError),
    "another shape": (lambda k, s, d: jnp.zeros((*s, 1), d), ValueError),
    "a scalar": (lambda k, s, d: jnp.zeros((), d), ValueError),
    "what makes one": (nn.initializers.normal, TypeError),
    "another signature": (lambda shape: jnp.zeros(shape), TypeError),
    "an error": (nn.initializers.delta_orthogonal(), ValueError),
}


@pytest.mark.parametrize("what", INITIALISERS)
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("name", ["scan_gru", "scan_layer_norm_lstm", "stack", "bidirectional"])
def test_initialisers_that_return_no_parameter(name, learned, what):
    init, kind = INITIALISERS[what]
    wanted = ["carry_init"] if learned else [o for o in BAD if o.endswith("_init")]
    for option in wanted:
        layer = build(name, **{option: init, "learned_carry": learned})
        with pytest.raises(kind, match=f"^{option}: expected a function"):
            layer.init(jax.random.key(0), None, XS)


@pytest.mark.parametrize("name", ["scan_gru", "scan_lstm", "stack"])
def test_options_of_the_inner_layer_are_named(name):
    outer = {"bidirectional": {}, "stack": {"num_layers": 2}}
    for composite, more in outer.items():
        with pytest.raises(TypeError, match=r"^use_bias must be True or False, got 'no'"):
            inner = {"name": "scan_gru", "features": H, "use_bias": "no"}
            registry.build(composite, layer=inner, **more)


def test_finite_numbers_are_python_floats():
    layer = registry.build("scan_layer_norm_lstm", features=H, epsilon=np.float32(0.5))
    assert type(layer.epsilon) is float and math.isclose(layer.epsilon, 0.5)
