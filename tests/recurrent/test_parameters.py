"""The parameter trees that checkpoints depend on, and how parameters are initialised."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import registry
from zoo.recurrent import scanned

from .layers import assert_same, inputs_for, some

D, H, P = 3, 4, 2
XS = some((5, 2, D))
KEY = jax.random.key(0)


def tree(layer, xs=None):
    """{path: shape} of a layer's parameters."""
    xs = inputs_for(layer, *XS.shape) if xs is None else xs
    params = jax.eval_shape(layer.init, KEY, None, xs)["params"]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]
    }


def kernels(rows, *names):
    return {f"{name}/kernel": (rows, H) for name in names}


def vectors(kind, *names, width=H):
    return {f"{name}/{kind}": (width,) for name in names}


GRU = kernels(D, "ir", "iz", "in") | kernels(H, "hr", "hz", "hn")
LSTM = kernels(D, "ii", "if", "ig", "io") | kernels(H, "hi", "hf", "hg", "ho")
LSTMP = (
    kernels(D, "ii", "if", "ig", "io")
    | kernels(P, "hi", "hf", "hg", "ho")
    | {"proj/kernel": (H, P)}
)
GRU_BIASES = vectors("bias", "ir", "iz", "in", "hn")
LSTM_BIASES = vectors("bias", "hi", "hf", "hg", "ho")
GRU_SCALES = vectors("scale", "ir", "iz", "in", "hr", "hz", "hn")
LSTM_SCALES = vectors("scale", "ii", "if", "ig", "io", "hi", "hf", "hg", "ho", "c")
STATE = {"c/bias": (H,)}


def under(name, tree, stacked=()):
    return {f"{name}/{path}": (*stacked, *shape) for path, shape in tree.items()}


GOLDEN = {
    "scan_gru": ({}, GRU | GRU_BIASES),
    "scan_gru, no bias": ({"use_bias": False}, GRU),
    "scan_gru, learned carry": (
        {"learned_carry": True},
        GRU | GRU_BIASES | {"initial_h": (H,)},
    ),
    "scan_lstm": ({}, LSTM | LSTM_BIASES),
    "scan_lstm, projected": ({"projection": P}, LSTMP | LSTM_BIASES),
    "scan_lstm, projected, learned carry": (
        {"projection": P, "learned_carry": True},
        LSTMP | LSTM_BIASES | {"initial_c": (H,), "initial_h": (P,)},
    ),
    "scan_simplified_gru": ({}, GRU | vectors("bias", "ir", "iz", "in")),
    "scan_elman": ({}, kernels(D, "i") | kernels(H, "h") | vectors("bias", "i")),
    "scan_mgu": (
        {},
        kernels(D, "if", "in") | kernels(H, "hf", "hn") | vectors("bias", "if", "in", "hn"),
    ),
    "scan_mgu, no reset gate": (
        {"reset_gate": False},
        kernels(D, "if", "in") | kernels(H, "hf", "hn") | vectors("bias", "if", "in"),
    ),
    "scan_layer_norm_gru": ({}, GRU | GRU_BIASES | GRU_SCALES),
    "scan_layer_norm_lstm": ({}, LSTM | LSTM_BIASES | LSTM_SCALES | STATE),
    "scan_layer_norm_lstm, projected": (
        {"projection": P},
        LSTMP | LSTM_BIASES | LSTM_SCALES | STATE,
    ),
    "scan_gru, heads": (
        {"heads": 2},
        kernels(D, "ir", "iz", "in")
        | {f"{name}/kernel": (2, H // 2, H // 2) for name in ("hr", "hz", "hn")}
        | GRU_BIASES,
    ),
    "scan_lstm, peepholes": (
        {"peepholes": True},
        LSTM | LSTM_BIASES | {name: (H,) for name in ("pi", "pf", "po")},
    ),
    "scan_lstm, coupled gates": (
        {"coupled_gates": True, "peepholes": True},
        {k: v for k, v in (LSTM | LSTM_BIASES).items() if k[:2] not in ("if", "hf")}
        | {name: (H,) for name in ("pi", "po")},
    ),
    "scan_dreamer_gru": (
        {},
        kernels(D, "ir", "iz", "in")
        | {f"{name}/kernel": (H, 1, 1) for name in ("hr", "hz", "hn")}
        | vectors("bias", "ir", "iz", "in"),
    ),
    "scan_slstm": (
        {},
        kernels(D, "ii", "if", "iz", "io")
        | kernels(H, "hi", "hf", "hz", "ho")
        | vectors("bias", "ii", "if", "iz", "io"),
    ),
    "scan_indrnn": ({}, kernels(D, "i") | vectors("bias", "i") | {"u": (H,)}),
    "scan_ligru": (
        {},
        kernels(D, "iz", "in") | kernels(H, "hz", "hn") | vectors("bias", "iz", "in"),
    ),
    "scan_ugrnn": (
        {},
        kernels(D, "ig", "in") | kernels(H, "hg", "hn") | vectors("bias", "ig", "in"),
    ),
    "scan_janet": (
        {},
        kernels(D, "if", "in") | kernels(H, "hf", "hn") | vectors("bias", "if", "in"),
    ),
    "scan_cfc": (
        {"backbone_features": 6, "backbone_layers": 2},
        {"i/kernel": (D, 6), "h/kernel": (H, 6), "b1/kernel": (6, 6)}
        | vectors("bias", "i", "b1", width=6)
        | kernels(6, "w1", "w2", "wa", "wb")
        | vectors("bias", "w1", "w2", "wa", "wb"),
    ),
    "scan_conv_lstm": (
        {},
        {"ih/kernel": (3, 3, D, 4 * H), "hh/kernel": (3, 3, H, 4 * H)}
        | vectors("bias", "ih", "hh", width=4 * H),
    ),
    "scan_conv_gru": (
        {"kernel_size": (5,)},
        {f"i{gate}/kernel": (5, D, H) for gate in "rzn"}
        | {f"h{gate}/kernel": (5, H, H) for gate in "rzn"}
        | vectors("bias", "ir", "iz", "in"),
    ),
    "scan_min_gru": ({}, kernels(D, "iz", "in") | vectors("bias", "iz", "in")),
    "scan_min_gru, positive": (
        {"candidate": "positive", "use_bias": False},
        kernels(D, "iz", "in"),
    ),
    "scan_min_lstm": ({}, kernels(D, "ii", "if", "ig") | vectors("bias", "ii", "if", "ig")),
    "scan_lru": (
        {"state_features": 6},
        {name: (6,) for name in ("nu_log", "theta_log", "gamma_log")}
        | {"B_re/kernel": (D, 6), "B_im/kernel": (D, 6)}
        | kernels(6, "C_re", "C_im")
        | kernels(D, "D"),
    ),
    "scan_lru, learned carry": (
        {"learned_carry": True},
        {name: (H,) for name in ("nu_log", "theta_log", "gamma_log", "initial_re", "initial_im")}
        | kernels(D, "B_re", "B_im", "D")
        | kernels(H, "C_re", "C_im"),
    ),
    "scan_s5": (
        {"state_features": 6},
        {name: (6,) for name in ("Lambda_re", "Lambda_im", "log_step")}
        | {"B_re/kernel": (D, 6), "B_im/kernel": (D, 6)}
        | kernels(6, "C_re", "C_im")
        | kernels(D, "D"),
    ),
    "scan_rg_lru": (
        {"heads": 2},
        kernels(D, "in")
        | {f"{name}/kernel": (2, H // 2, H // 2) for name in ("ia", "ix")}
        | vectors("bias", "ia", "ix")
        | {"Lambda": (H,)},
    ),
    "bidirectional": (
        {"layer": "scan_elman"},
        under("forward", kernels(D, "i") | kernels(H, "h") | vectors("bias", "i"))
        | under("backward", kernels(D, "i") | kernels(H, "h") | vectors("bias", "i")),
    ),
    "stack": (
        {"layer": "scan_gru", "num_layers": 3},
        under("first", GRU | GRU_BIASES)
        | under("rest", GRU | GRU_BIASES | kernels(H, "ir", "iz", "in"), (2,)),
    ),
    "stack, of one": ({"layer": "scan_gru", "num_layers": 1}, under("first", GRU | GRU_BIASES)),
    "stack, normalised": (
        {"layer": "scan_elman", "num_layers": 2, "layer_norm": True},
        under("first", kernels(D, "i") | kernels(H, "h") | vectors("bias", "i"))
        | under("rest", kernels(H, "i", "h") | vectors("bias", "i"), (1,))
        | under("rest", {"norm/bias": (H,), "norm/scale": (H,)}, (1,)),
    ),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_golden_trees(case):
    options, expected = GOLDEN[case]
    layer = registry.build(case.split(",")[0], features=H, **options)
    assert tree(layer) == expected


def test_golden_trees_are_of_registered_layers():
    """A new layer passes without one, until its checkpoints are a promise."""
    assert {case.split(",")[0] for case in GOLDEN} <= set(registry.names())


@pytest.mark.parametrize(
    "options",
    [
        {"implementation": "scan"},
        {"implementation": "fused"},
        {"checkpoint_every": 2},
        {"truncate_every": 2},
        {"reverse": True},
        {"time_axis": 1},
        {"unroll": 2},
        {"dropout_rate": 0.5, "recurrent_dropout_rate": 0.5, "zoneout_rate": 0.5},
        {"dtype": jnp.bfloat16},
    ],
    ids=str,
)
def test_no_other_option_changes_the_tree(options):
    assert tree(registry.build("scan_gru", features=H, **options)) == GRU | GRU_BIASES


def test_a_scanned_cell_has_the_tree_of_nn_scan():
    layer = scanned(nn.OptimizedLSTMCell)(features=H)
    hand = nn.scan(nn.OptimizedLSTMCell, variable_broadcast="params", split_rngs={"params": False})(
        features=H
    )
    zeros = jnp.zeros((2, H))
    expected = hand.init(KEY, (zeros, zeros), XS)
    assert_same(layer.init(KEY, None, XS), expected)


def test_init_is_the_same_eager_compiled_and_from_shapes():
    layer = registry.build("scan_gru", features=H)
    expected = layer.init(KEY, None, XS)
    # On some machines a compiled initialiser rounds its orthogonal matrices otherwise than an
    # eager one, by 3.5e-7 at most; that is JAX's, and a cell by hand shows it too.
    chex.assert_trees_all_close(jax.jit(layer.init)(KEY, None, XS), expected, rtol=1e-6)
    assert_same(layer.init(KEY, None, np.asarray(XS)), expected)
    assert_same(layer.init({"params": KEY}, jnp.zeros((2, H)), XS), expected)
    (_, ys), variables = layer.init_with_output(KEY, None, XS)
    assert_same(variables, expected)
    np.testing.assert_allclose(ys, layer.apply(expected, None, XS)[1], atol=1e-6)


def test_forget_bias_is_added_at_initialisation_only():
    layer = registry.build("scan_lstm", features=H, forget_bias=1.5)
    plain = registry.build("scan_lstm", features=H)
    params, without = layer.init(KEY, None, XS)["params"], plain.init(KEY, None, XS)["params"]
    assert_same(params["hf"]["bias"], without["hf"]["bias"] + 1.5)
    others = {name: own for name, own in params.items() if name != "hf"}
    assert_same(others, {name: own for name, own in without.items() if name != "hf"})
    assert_same(
        layer.apply({"params": params}, None, XS), plain.apply({"params": params}, None, XS)
    )


def test_initialisers_go_where_they_should():
    constant = nn.initializers.constant
    layer = registry.build(
        "scan_gru",
        features=H,
        kernel_init=constant(1.0),
        recurrent_kernel_init=constant(2.0),
        bias_init=constant(3.0),
        carry_init=constant(4.0),
        learned_carry=True,
    )
    params = layer.init(KEY, None, XS)["params"]
    assert np.all(params.pop("initial_h") == 4.0)
    for name, own in params.items():
        assert np.all(own["kernel"] == (1.0 if name[0] == "i" else 2.0))
        assert np.all(own.get("bias", 3.0) == 3.0)


def test_a_learned_carry_is_where_runs_start_and_what_resets_bring_back():
    layer = registry.build("scan_lstm", features=H, learned_carry=True)
    variables = jax.tree.map(lambda x: x + 0.3, layer.init(KEY, None, XS))
    c, h = (variables["params"][f"initial_{name}"] for name in "ch")
    start = jnp.broadcast_to(c, (2, H)), jnp.broadcast_to(h, (2, H))
    expected = layer.apply(variables, start, XS)
    assert_same(layer.apply(variables, None, XS), expected)
    got = layer.apply(variables, None, (2, D), method="initialize_carry")
    assert_same(got, start)
    elsewhere = jax.tree.map(lambda x: x + 1.0, start)
    resets = jnp.zeros((5, 2), bool).at[0].set(True)
    reset = layer.apply(variables, elsewhere, XS, resets=resets)
    np.testing.assert_allclose(reset[1], expected[1], atol=1e-6)

    def loss(variables):
        return jnp.sum(layer.apply(variables, None, XS)[1])

    gradient = jax.grad(loss)(variables)["params"]
    assert np.all(gradient["initial_c"] != 0) and np.all(gradient["initial_h"] != 0)


def test_a_random_carry_follows_rngs():
    layer = registry.build("scan_gru", features=H, carry_init=nn.initializers.normal(1.0))
    variables = layer.init(KEY, None, XS)

    def ys(**rngs):
        return layer.apply(variables, None, XS, rngs=rngs)[1]

    one, other = jax.random.key(1), jax.random.key(2)
    assert_same(ys(carry=one), ys(carry=one))
    assert np.abs(ys(carry=one) - ys(carry=other)).max() > 1e-2
    assert np.abs(ys(params=one) - ys(params=other)).max() > 1e-2
    carries = [layer.initialize_carry(key, (2, D)) for key in (one, other)]
    assert np.abs(carries[0] - carries[1]).max() > 1e-2
    # Rows of a batch are different draws.
    assert np.abs(carries[0][0] - carries[0][1]).max() > 1e-2


RANDOM = {"features": H, "carry_init": nn.initializers.normal(1.0)}


def test_no_random_carry_is_drawn_where_one_is_given():
    layer = registry.build("scan_gru", **RANDOM)
    variables = layer.init(KEY, None, XS)
    start, plain = jnp.ones((2, H)), registry.build("scan_gru", features=H)
    assert_same(layer.apply(variables, start, XS), plain.apply(variables, start, XS))
    step = layer.apply(variables, start, XS[0], method="step")
    assert_same(step, plain.apply(variables, start, XS[0], method="step"))


@pytest.mark.parametrize("name", ["scan_gru", "stack", "bidirectional"])
def test_the_history_begins_with_the_random_carry_that_was_used(name):
    options = {
        "scan_gru": {},
        "stack": {"layer": "scan_gru", "num_layers": 2},
        "bidirectional": {"layer": "scan_gru"},
    }[name]
    layer = registry.build(name, **options, **RANDOM)
    variables = layer.init(KEY, None, XS)
    rngs = {"carry": jax.random.key(5)}
    history = layer.apply(variables, None, XS, rngs=rngs, method="carries")
    if name == "bidirectional":
        start = history[0][0], history[1][-1]
    else:
        start = jax.tree.map(lambda x: x[0], history)
    plain = registry.build(name, features=H, **options)
    replayed = plain.apply(variables, start, XS, method="carries")
    for got, expected in zip(jax.tree.leaves(history), jax.tree.leaves(replayed), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_partitioned_parameters_are_boxed_and_taken_boxed_or_not():
    layer = registry.build(
        "scan_lstm",
        features=H,
        forget_bias=1.0,
        kernel_init=nn.with_partitioning(nn.initializers.lecun_normal(), ("in", "out")),
        bias_init=nn.with_partitioning(nn.initializers.zeros_init(), ("out",)),
    )
    variables = layer.init(KEY, None, XS)
    assert variables["params"]["ii"]["kernel"].names == ("in", "out")
    assert variables["params"]["hf"]["bias"].names == ("out",)
    bare = nn.meta.unbox(variables)
    assert_same(layer.apply(variables, None, XS), layer.apply(bare, None, XS))
    assert_same(bare, registry.build("scan_lstm", features=H, forget_bias=1.0).init(KEY, None, XS))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_norms_between_layers_keep_the_dtype_of_the_layers(dtype):
    layer = registry.build(
        "stack", layer="gru", features=4, dtype=dtype, num_layers=2, layer_norm=True
    )
    xs = jnp.ones((5, 2, 3), dtype)
    _, ys = jax.eval_shape(lambda: layer.init_with_output(jax.random.key(0), None, xs)[0])
    assert ys.dtype == dtype
