"""What is in the state of a module: the Linen layer's parameters, and hardly anything else."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import registry
from tests.recurrent.layers import assert_close
from zoo.recurrent import scanned
from zoo.recurrent.nnx import Recurrent, build, from_linen, to_linen

from .layers import XS, D, H, NoisyCell, config, inputs, module, params, paths

NAMES = registry.names(family="recurrent")


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_those_of_linen(name):
    xs, layer, built = inputs(name), registry.build(config(name)), module(name)
    variables = layer.init(nnx.Rngs(0).params(), None, xs)
    jax.tree.map(np.testing.assert_array_equal, params(built), variables["params"])
    assert paths(built) == paths(built, nnx.Param)
    if name in ("scan_gru", "stack"):
        given = built(None, xs), layer.apply(variables, None, xs)
        jax.tree.map(np.testing.assert_array_equal, *given)


@pytest.mark.parametrize(
    ("rngs", "key"),
    [
        (lambda: nnx.Rngs(1, params=2), lambda: nnx.Rngs(params=2).params()),
        (lambda: jax.random.key(3), lambda: jax.random.key(3)),
        (lambda: jax.random.PRNGKey(3), lambda: jax.random.PRNGKey(3)),
    ],
)
def test_parameters_are_drawn_from_a_stream_or_a_key(rngs, key):
    built = build(config("scan_gru"), D, rngs=rngs())
    expected = registry.build(config("scan_gru")).init(key(), None, XS)["params"]
    jax.tree.map(np.testing.assert_array_equal, params(built), expected)


@pytest.mark.parametrize("axis", [0, 1, 2, -2, -3])
def test_time_may_lie_anywhere(axis):
    built = module(time_axis=axis)
    jax.tree.map(np.testing.assert_array_equal, params(built), params(module()))


@pytest.mark.parametrize(
    ("options", "streams"),
    [
        ({}, set()),
        ({"dropout_rate": 0.5}, {"dropout"}),
        ({"recurrent_dropout_rate": 0.5}, {"dropout"}),
        ({"zoneout_rate": 0.5}, {"dropout"}),
        ({"carry_init": nn.initializers.normal()}, {"carry"}),
        ({"carry_init": nn.initializers.normal(), "dropout_rate": 0.5}, {"carry", "dropout"}),
        ({"carry_init": nn.initializers.normal(), "learned_carry": True}, set()),
    ],
)
@pytest.mark.parametrize("name", ["scan_gru", "stack", "bidirectional"])
def test_a_stream_is_there_where_it_is_read(name, options, streams):
    built = module(name, **options)
    expected = {f"rngs/{name}/{part}" for name in streams for part in ("key", "count")}
    assert paths(built, nnx.RngState) == expected
    assert paths(built) == paths(built, nnx.Param) | expected


def test_somebody_elses_cell_may_read_a_stream_of_its_own():
    layer = scanned(NoisyCell)(features=H, inner="needs_noise")
    built = Recurrent(layer, D, rngs=nnx.Rngs(0, noise=1))
    assert paths(built, nnx.RngState) == {"rngs/noise/key", "rngs/noise/count"}
    first, second = built(None, XS)[1], built(None, XS)[1]
    assert not jnp.allclose(first, second)


def test_inputs_may_be_described_instead_of_counted():
    for given in (XS[0], jax.ShapeDtypeStruct((D,), jnp.float32)):
        built = build(config("scan_gru"), given, rngs=nnx.Rngs(0))
        jax.tree.map(np.testing.assert_array_equal, params(built), params(module()))


def test_metadata_of_parameters_is_kept():
    init = nn.with_partitioning(nn.initializers.lecun_normal(), (None, "model"))
    mesh = jax.make_mesh((1,), ("model",), axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh):
        built = module(kernel_init=init)
        _, variables = to_linen(built)
        again = from_linen(*to_linen(built))
        ys = again(None, XS)[1]
    assert built.ir.kernel.get_value().sharding.spec == P(None, "model")
    assert variables["params"]["ir"]["kernel"].names == (None, "model")
    assert_close(ys, module()(None, XS)[1], 1e-6)


def test_variables_that_a_call_changes_are_written():
    layers = [{"name": nn.BatchNorm, "use_running_average": False}, {"name": "scan_gru"}]
    given = {"name": "stack", "layers": layers, "features": H}
    built = build(given, D, rngs=nnx.Rngs(0))
    assert {path.split("/")[-1] for path in paths(built, nnx.BatchStat)} == {"mean", "var"}
    layer, (_, variables) = registry.build(given), to_linen(built)
    call = nnx.jit(lambda module: module(None, XS))
    for _ in range(2):
        (_, ys), updates = layer.apply(variables, None, XS, mutable=["batch_stats"])
        variables = {**variables, **updates}
        assert_close(call(built)[1], ys, 1e-6)
    found = nnx.to_pure_dict(nnx.state(built, nnx.BatchStat))
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-6), found, variables["batch_stats"])


@pytest.mark.parametrize("inner", ["step", "definition", "train"])
def test_a_parameter_may_not_have_the_name_of_an_attribute(inner):
    with pytest.raises(ValueError, match=f"'{inner}' is the name of a parameter and of an attr"):
        Recurrent(scanned(NoisyCell)(features=H, inner=inner), D, rngs=nnx.Rngs(0))


REFUSED = {
    "no number": (lambda: build("scan_gru", 5.0, rngs=nnx.Rngs(0), features=H), "in_features"),
    "a batch of inputs": (lambda: build("scan_gru", "5", rngs=nnx.Rngs(0), features=H), "5"),
    "no features": (lambda: build("scan_gru", 0, rngs=nnx.Rngs(0), features=H), "in_features"),
    "no streams": (lambda: build("scan_gru", D, rngs=None, features=H), "rngs: expected"),
    "a seed": (lambda: build("scan_gru", D, rngs=0, features=H), "rngs: expected"),
    "no stream of parameters": (
        lambda: build("scan_gru", D, rngs=nnx.Rngs(dropout=0), features=H),
        "'params' or a default one, got \\['dropout'\\]",
    ),
    "a name": (lambda: build("scan_gru", D, rngs=nnx.Rngs(0), features=H, name="a"), "name: "),
    "a class": (lambda: Recurrent(nn.Dense, D, rngs=nnx.Rngs(0)), "a layer of Flax Linen"),
    "another module": (lambda: to_linen(nnx.Linear(2, 3, rngs=nnx.Rngs(0))), "to_linen: expected"),
    "a layer without a name": (
        lambda: to_linen(Recurrent(scanned(nn.GRUCell)(features=H), D, rngs=nnx.Rngs(0))),
        "no configuration builds it",
    ),
    "parameters for variables": (
        lambda: from_linen(config("scan_gru"), to_linen(module())[1]["params"]),
        "ir|params",
    ),
    "variables of another width": (
        lambda: from_linen(config("scan_gru", features=7), to_linen(module())[1]),
        "expected",
    ),
    "no variables": (lambda: from_linen(config("scan_gru"), XS), "variables: expected"),
    "an unknown option": (
        lambda: build("scan_gru", D, rngs=nnx.Rngs(0), features=H, unit=1),
        "unit",
    ),
    "no streams for dropout": (
        lambda: from_linen(config("scan_gru", dropout_rate=0.5), to_linen(module())[1])(None, XS),
        "rngs: expected a stream 'dropout'",
    ),
    "a number for streams": (lambda: module(dropout_rate=0.5)(None, XS, rngs=0), "nnx.Rngs"),
    "other features": (lambda: module()(None, XS[..., :2]), "xs: expected 5 features"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_refused_in_words(case):
    call, words = REFUSED[case]
    with pytest.raises((ValueError, TypeError), match=words):
        call()


def test_repr_says_what_it_is():
    text = repr(module("scan_lstm"))
    assert "Recurrent(" in text and "ScanLSTM(" in text
    assert "deterministic=False" in text and "kernel" in text


class TwiceNamed(nn.Module):
    """A parameter and a running number of the same name."""

    @nn.compact
    def __call__(self, xs):
        self.variable("batch_stats", "scale", jnp.ones, ())
        return xs * self.param("scale", nn.initializers.ones, ())


def test_one_path_for_two_variables_is_refused():
    layers = [{"name": TwiceNamed}, "scan_gru"]
    with pytest.raises(ValueError, match="one variable at layers_0/scale, got several"):
        build("stack", D, rngs=nnx.Rngs(0), layers=layers, features=H)


def test_numpys_bools_turn_dropout_off_too():
    built = module(dropout_rate=0.5)
    quiet = built(None, XS, deterministic=np.True_)[1]
    np.testing.assert_array_equal(quiet, built(None, XS, deterministic=True)[1])
    assert built.rngs.dropout.count[...] == 0
    with pytest.raises(TypeError, match="deterministic: expected a bool"):
        built(None, XS, deterministic="no")
