"""Stacks of listed layers: what they compute, where their variables lie, and what is refused."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import registry
from tests.rows import rows
from zoo.recurrent import ScanGRU

from .layers import assert_close, assert_same, finite, some, variables_of

T, B, D, H = 5, 3, 2, 4
XS = some((T, B, D))
GRU = {"name": "scan_gru", "features": H}
LSTM = {"name": "scan_lstm", "features": 6}
BOTH = {"name": "bidirectional", "layer": "scan_elman", "features": 3}
DENSE = {"name": nn.Dense, "features": 4}
CONDITIONS = {
    "seq_lengths": jnp.array([5, 0, 3]),
    "mask": jnp.ones((T, B), bool).at[1].set(False),
    "resets": jnp.zeros((T, B), bool).at[2].set(True),
}
UNEQUAL = [DENSE, GRU, GRU, GRU, jnp.tanh, LSTM, BOTH, nn.LayerNorm]


def stack(*layers, **options):
    return registry.build({"name": "stack", "layers": list(layers)}, **options)


def by_hand(layers, variables, xs, skip=False, residual=False, **conditions):
    """The same, one layer after the other, each with its own slice of the variables."""
    params, carries, outputs, inputs, below = variables["params"], [], [], xs, xs
    valid = jnp.ones(xs.shape[:2], bool)
    if conditions:
        valid = np.arange(T)[:, None] < np.asarray(conditions["seq_lengths"])
        valid = jnp.asarray(valid) & conditions["mask"]
    equal = 0
    for k, entry in enumerate(layers):
        equal = equal + 1 if k and entry == layers[k - 1] else 0
        own = params.get(f"layers_{k - max(equal - 1, 0)}", {})
        if equal:
            own = jax.tree.map(lambda x, at=equal - 1: x[at], own)
        if entry in UNEQUAL[1:4] + UNEQUAL[5:7]:
            read = jnp.concatenate([inputs, below], -1) if skip and outputs else below
            given = {"params": own}
            carry, ys = registry.build(entry).apply(given, None, read, **conditions)
            below = ys + below if residual and outputs else ys
            carries.append(carry)
            outputs.append(below)
            continue
        carries.append(())
        if isinstance(entry, dict):
            below = nn.Dense(entry["features"]).apply({"params": own}, below)
        elif isinstance(entry, type):
            below = entry().apply({"params": own}, below)
        else:
            below = entry(below)
        below = jnp.where(valid[..., None], below, 0.0)
        if outputs:
            outputs[-1] = below
        else:
            inputs = below
    return tuple(carries), jnp.concatenate(outputs, -1) if skip else below


@pytest.mark.parametrize("skip", rows([False, True], [True]))
@pytest.mark.parametrize("conditions", [{}, CONDITIONS], ids=["plain", "conditions"])
def test_listed_layers_read_what_is_below_them(skip, conditions):
    layer = stack(*UNEQUAL, skip=skip)
    variables = variables_of(layer, XS)
    got = layer.apply(variables, None, XS, **conditions)
    assert_close(got, by_hand(UNEQUAL, variables, XS, skip, **conditions), 1e-5)
    assert got[1].shape[-1] == layer.output_features == (4 + 4 + 4 + 6 + 6 if skip else 6)
    spec = layer.carry_spec((B, D))
    assert len(spec) == len(UNEQUAL)
    assert jax.tree.map(jnp.shape, got[0]) == jax.tree.map(lambda x: x.shape, spec)
    carries = layer.apply(variables, None, XS, method="carries")
    assert jax.tree.leaves(carries)[0].shape == (T + 1, B, H)


def test_residuals_add_what_is_below_recurrent_layers():
    layers = [GRU, jnp.tanh, GRU, GRU]
    layer = stack(*layers, residual=True)
    variables = variables_of(layer, XS)
    got = layer.apply(variables, None, XS)
    assert_close(got, by_hand(layers, variables, XS, residual=True), 1e-5)


@pytest.mark.parametrize("skip", [False, True])
def test_equal_layers_with_skips_are_a_list_of_them(skip):
    listed = stack(GRU, GRU, GRU, skip=skip)
    layer = registry.build("stack", layer=GRU, num_layers=3, skip=skip)
    variables = variables_of(layer, XS)
    renamed = {"layers_0": variables["params"]["first"], "layers_1": variables["params"]["rest"]}
    got = listed.apply({"params": renamed}, None, XS, **CONDITIONS)
    assert_same(got, layer.apply(variables, None, XS, **CONDITIONS))
    assert got[1].shape[-1] == (3 * H if skip else H)


def test_variables_of_listed_layers_lie_under_their_index():
    shapes = jax.eval_shape(stack(*UNEQUAL).init, jax.random.key(0), None, XS)["params"]
    assert set(shapes) == {"layers_0", "layers_1", "layers_2", "layers_5", "layers_6", "layers_7"}
    assert shapes["layers_0"]["kernel"].shape == (D, 4)
    assert shapes["layers_1"]["hr"]["kernel"].shape == (H, H)
    assert shapes["layers_2"]["hr"]["kernel"].shape == (2, H, H)
    assert set(shapes["layers_6"]) == {"forward", "backward"}
    between = stack(GRU, LSTM, layer_norm=True)
    shapes = jax.eval_shape(between.init, jax.random.key(0), None, XS)["params"]
    assert shapes["layers_1"]["norm"]["scale"].shape == (H,)


def test_equal_neighbours_are_one_loop_over_depth():
    def size(count):
        layer = stack(*[GRU] * count, LSTM)
        variables = jax.eval_shape(layer.init, jax.random.key(0), None, XS)
        return len(str(jax.make_jaxpr(lambda v, xs: layer.apply(v, None, xs)[1])(variables, XS)))

    assert size(12) < 1.2 * size(3)


def test_steps_and_initial_carries_of_listed_layers():
    layer = stack(GRU, GRU, jnp.tanh, LSTM, DENSE, skip=True, learned_carry=True)
    variables = variables_of(layer, XS)
    whole = layer.apply(variables, None, XS)
    carry = layer.apply(variables, None, (B, D), method="initialize_carry")
    ys = []
    for x in XS:
        carry, y = layer.apply(variables, carry, x, method="step")
        ys.append(y)
    assert_close((carry, jnp.stack(ys)), whole, 1e-5)
    halves = layer.apply(variables, None, XS[:2])
    assert_close(layer.apply(variables, halves[0], XS[2:])[0], whole[0], 1e-5)


def test_an_inner_reverse_runs_the_other_way():
    layer = stack(GRU, {**GRU, "reverse": True})
    assert not layer.causal
    variables = variables_of(layer, XS)
    own = [{"params": variables["params"][f"layers_{k}"]} for k in range(2)]
    first, ys = ScanGRU(H).apply(own[0], None, XS)
    last, ys = ScanGRU(H, reverse=True).apply(own[1], None, ys)
    assert_close(layer.apply(variables, None, XS), ((first, last), ys), 1e-6)
    backwards = layer.clone(reverse=True).apply(variables, None, XS[::-1])
    assert_close(backwards[1][::-1], ys, 1e-6)


def test_dropout_lies_between_recurrent_layers():
    layer = stack(DENSE, GRU, jnp.tanh, LSTM, dropout_rate=0.9)
    variables = variables_of(layer, XS)
    rngs = {"dropout": jax.random.key(1)}
    carry, ys = layer.apply(variables, None, XS, deterministic=False, rngs=rngs)
    plain_carry, plain_ys = layer.apply(variables, None, XS)
    assert_same(carry[1], plain_carry[1])
    assert np.abs(ys - plain_ys).max() > 1e-3


class Block(nn.Module):
    """A module with a dropout of its own."""

    @nn.compact
    def __call__(self, x, deterministic):
        return nn.Dropout(0.5, deterministic=deterministic)(nn.Dense(3)(x))


def test_modules_between_layers_are_told_about_dropout():
    layer = stack(GRU, Block, LSTM)
    variables = variables_of(layer, XS)
    rngs = {"dropout": jax.random.key(1)}
    _, ys = layer.apply(variables, None, XS, deterministic=False, rngs=rngs)
    assert np.abs(ys - layer.apply(variables, None, XS)[1]).max() > 1e-4


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_what_is_not_run_reaches_no_module_between_layers(bad):
    layer = stack(DENSE, GRU, DENSE, BOTH, DENSE)
    variables = variables_of(layer, XS)
    mask = jnp.ones((T, B), bool).at[1].set(False)

    def loss(variables, xs, **conditions):
        return layer.apply(variables, None, xs, **conditions)[1].sum()

    spoilt = jax.value_and_grad(loss)(variables, XS.at[1].set(bad), mask=mask)
    assert_same(spoilt, jax.value_and_grad(loss)(variables, XS, mask=mask))

    causal = stack(DENSE, GRU, DENSE, LSTM, DENSE)
    variables = variables_of(causal, XS)
    resets = jnp.zeros((T, B), bool).at[2].set(True)

    def later(variables, xs):
        return causal.apply(variables, None, xs, resets=resets)[1][2:].sum()

    assert finite(jax.value_and_grad(later)(variables, XS.at[1].set(bad)))
    ys = causal.apply(variables, None, XS.at[1].set(bad), resets=resets)[1]
    assert not finite(ys[1]) and finite(ys[2:])


def test_time_may_be_anywhere():
    layer = stack(*UNEQUAL, skip=True)
    variables = variables_of(layer, XS)
    _, ys = layer.apply(variables, None, XS, **CONDITIONS)
    turned = {k: x if k == "seq_lengths" else x.T for k, x in CONDITIONS.items()}
    _, got = layer.clone(time_axis=1).apply(variables, None, jnp.swapaxes(XS, 0, 1), **turned)
    assert_close(jnp.swapaxes(got, 0, 1), ys, 1e-6)


def test_a_sequence_of_layers_is_a_stack():
    """In ``nn.Sequential`` a second layer starts from the last carry of the first one."""
    layers = [ScanGRU(H), ScanGRU(H)]
    variables = nn.Sequential(layers).init(jax.random.key(0), None, XS)
    moved = XS.at[-1].add(1.0)
    wrong = [nn.Sequential(layers).apply(variables, None, xs)[1][0] for xs in (XS, moved)]
    assert not np.array_equal(*wrong)
    layer = stack(GRU, {"name": ScanGRU, "features": H})
    got = [layer.apply(variables, None, xs)[1] for xs in (XS, moved)]
    assert_same(got[0][:-1], got[1][:-1])


REFUSED = {
    "nothing": (TypeError, "got neither", {}),
    "both": (TypeError, "got both", {"layers": [GRU], "num_layers": 2}),
    "no list": (TypeError, "expected a list of layers", {"layers": GRU}),
    "empty": (ValueError, "at least one recurrent layer", {"layers": []}),
    "plain only": (ValueError, "at least one recurrent layer", {"layers": [jnp.tanh, DENSE]}),
    "instance": (TypeError, "already built", {"layers": [GRU, nn.Dense(4)]}),
    "cell": (TypeError, r"scanned\(GRUCell\)", {"layers": [{"name": nn.GRUCell, "features": 4}]}),
    "number": (TypeError, "layer: expected a registered name", {"layers": [3]}),
    "no name": (TypeError, "layer: expected a registered name", {"layers": [{"features": 3}]}),
    "unknown": (ValueError, "did you mean", {"layers": ["scan_gry"]}),
    "residual": (
        ValueError,
        "got 6 features at layers_1",
        {"layers": [GRU, LSTM], "residual": True},
    ),
    "time": (ValueError, "time_axis", {"layers": [GRU, {**LSTM, "time_axis": 1}]}),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_stacked_is_refused_in_words(what):
    kind, message, options = REFUSED[what]
    if what == "unknown":
        kind = registry.UnknownNameError
    with pytest.raises(kind, match=message):
        registry.build("stack", **options)


@pytest.mark.parametrize(
    "function",
    [lambda x: x.sum(0), lambda x: (x, x), lambda x: None, lambda x: x.reshape(-1)],
    ids=["less", "pair", "none", "flat"],
)
def test_functions_that_mix_steps_are_refused_in_words(function):
    with pytest.raises(ValueError, match=r"to map an array \(.*'D'\) to one"):
        stack(GRU, function, LSTM).init(jax.random.key(0), None, XS)


def built(form, depth):
    if form == "equal":
        return registry.build("stack", layer=GRU, num_layers=depth)
    if form == "nested":
        inner = {"name": "stack", "layer": GRU, "num_layers": depth}
        return registry.build("stack", layer=inner, num_layers=2, layer_norm=True)
    return stack(*[GRU] * depth) if form == "list" else stack(*[GRU, LSTM] * depth)


@pytest.mark.parametrize("method", ["__call__", "history", "step", "initialize_carry"])
@pytest.mark.parametrize(("of", "depth"), [(3, 1), (1, 4), (3, 4), (4, 2), (2, 1)])
@pytest.mark.parametrize("form", ["equal", "nested", "list", "unequal"])
def test_variables_of_another_depth_are_refused_in_words(form, of, depth, method):
    variables = jax.eval_shape(built(form, of).init, jax.random.key(0), None, XS)
    layer = built(form, depth)
    args = {"step": (None, XS[0]), "initialize_carry": (None, (B, D))}.get(method, (None, XS))
    if method == "initialize_carry":
        if of < depth:
            return pytest.skip("a carry that is no parameter asks for no variables")
        call = lambda variables: layer.apply(variables, *args, method=method)  # noqa: E731
    else:
        call = lambda variables: layer.apply(variables, *args, method=method)[1]  # noqa: E731
    with pytest.raises(ValueError, match=r"variables: expected those of a stack of \d"):
        jax.eval_shape(call, variables)
