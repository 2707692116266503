"""Building from names and mappings, and what is said about wrong options."""

import json
from types import MappingProxyType

import pytest

import registry
from zoo.catalogue import LAYERS


def scan_sum(features, *, scale=1.0, use_bias=True):
    return ("sum", features, scale, use_bias)


def takes_anything(**options):
    return options


@pytest.fixture(autouse=True)
def fakes():
    registry.register("acme.scan_sum", scan_sum, aliases=["total"])
    registry.register("acme.anything", takes_anything)


@pytest.mark.parametrize(
    "what",
    [
        {"name": "acme.scan_sum", "features": 64, "scale": 0.5},
        {"name": "total", "features": 64, "scale": 0.5},
        MappingProxyType({"name": "acme.scan_sum", "features": 64, "scale": 0.5}),
        json.loads('{"name": "acme.scan_sum", "features": 64, "scale": 0.5}'),
    ],
)
def test_a_mapping_is_the_same_as_a_name_and_options(what):
    before = dict(what)
    assert registry.build(what) == registry.build("acme.scan_sum", features=64, scale=0.5)
    assert registry.build(what, scale=2.0, use_bias=False) == ("sum", 64, 2.0, False)
    assert dict(what) == before


def test_nested_mappings_and_lists_reach_the_factory_untouched():
    inner = {"name": "acme.scan_sum", "features": [1, 2]}
    built = registry.build({"name": "acme.anything", "layer": inner, "sizes": [3, 4]})
    assert built["layer"] is inner
    assert inner == {"name": "acme.scan_sum", "features": [1, 2]}
    assert built["sizes"] == [3, 4]
    assert isinstance(built["sizes"], list)


def test_a_factory_can_build_its_parts():
    def stack(layer, depth):
        return [registry.build(layer) for _ in range(depth)]

    registry.register("acme.stack", stack)
    config = {
        "name": "acme.stack",
        "depth": 2,
        "layer": {"name": "acme.stack", "depth": 1, "layer": {"name": "total", "features": 8}},
    }
    text = json.dumps(config)
    assert registry.build(json.loads(text)) == [[("sum", 8, 1.0, True)]] * 2
    assert json.dumps(config) == text


def test_name_by_keyword_is_an_option_of_the_layer():
    assert registry.build("acme.anything", name="encoder") == {"name": "encoder"}
    mapping = {"name": "acme.anything", "features": 8}
    assert registry.build(mapping, name="encoder") == {"features": 8, "name": "encoder"}
    with pytest.raises(registry.WrongOptionError, match="has no option 'name'"):
        registry.build("acme.scan_sum", features=8, name="encoder")


@pytest.mark.parametrize(
    "what", [None, 3, ["scan_gru"], scan_sum, {}, {"features": 8}, {"name": 3}, {"name": "x", 3: 4}]
)
def test_neither_a_name_nor_a_mapping_with_one(what):
    with pytest.raises(TypeError, match="expected a registered name, or a mapping"):
        registry.build(what)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            {"feature": 8},
            r"'acme.scan_sum' has no option 'feature' \(did you mean 'features'\?\) and needs "
            r"'features'; its signature is "
            r"acme.scan_sum\(features, \*, scale=1.0, use_bias=True\)$",
        ),
        ({}, "'acme.scan_sum' needs 'features';"),
        ({"features": 8, "Scale": 2}, r"has no option 'Scale' \(did you mean 'scale'\?\);"),
        ({"features": 8, "zzz": 2}, "has no option 'zzz'; its"),
        ({"features": 8, "zzz": 2, "yyy": 2}, "has no option 'zzz' and has no option 'yyy'; its"),
    ],
)
def test_wrong_options_are_named_with_near_ones_and_the_signature(config, expected):
    with pytest.raises(TypeError, match=expected) as caught:
        registry.build("total", **config)
    assert isinstance(caught.value, registry.WrongOptionError)
    assert set(caught.value.unknown) == config.keys() - {"features"}
    assert caught.value.missing == (() if "features" in config else ("features",))


def test_a_factory_may_need_options_and_take_any_others():
    registry.register("acme.open", lambda features, **others: (features, others))
    assert registry.build("acme.open", features=1, other=2) == (1, {"other": 2})
    with pytest.raises(registry.WrongOptionError, match="needs 'features'"):
        registry.build("acme.open", other=2)


def test_a_positional_only_parameter_is_no_option():
    registry.register("acme.positional", lambda features=3, /: features)
    assert registry.build("acme.positional") == 3
    with pytest.raises(registry.WrongOptionError, match="has no option 'features'"):
        registry.build("acme.positional", features=4)


def test_errors_of_the_factory_itself_come_out_as_they_are():
    error = TypeError("scan_sum() got an unexpected keyword argument 'features'")

    def raises(features):
        raise error

    registry.register("acme.raises", raises)
    with pytest.raises(TypeError) as caught:
        registry.build("acme.raises", features=8)
    assert caught.value is error
    assert caught.value.__cause__ is None


def test_a_factory_whose_signature_python_cannot_tell_is_called_as_it_is():
    registry.register("acme.mapping", dict)
    assert registry.build("acme.mapping", a=1) == {"a": 1}


@pytest.mark.parametrize("name", LAYERS)
def test_every_built_in_loads(name):
    linen = pytest.importorskip("flax.linen")
    made_of = {
        "bidirectional": {"layer": "scan_gru"},
        "stack": {"layer": "scan_gru", "num_layers": 2},
    }
    layer = registry.build(name, features=4, **made_of.get(name, {}))
    assert isinstance(layer, linen.Module)
    assert "\noptions\n" in registry.describe(name)


def test_flax_modules_take_their_name_and_hide_it_from_the_defaults():
    linen = pytest.importorskip("flax.linen")
    registry.register("acme.cell", "flax.linen:GRUCell")
    cell = registry.build("acme.cell", features=8, name="encoder")
    assert isinstance(cell, linen.GRUCell)
    assert (cell.features, cell.name) == (8, "encoder")
    assert registry.build({"name": "acme.cell", "features": 8}, name="encoder") == cell
    defaults = registry.spec("acme.cell").defaults
    assert defaults["gate_fn"] is linen.sigmoid
    assert not {"features", "name", "parent"} & defaults.keys()
    with pytest.raises(registry.WrongOptionError) as caught:
        registry.build("acme.cell", feature=8)
    assert "acme.cell(features, gate_fn=sigmoid, " in str(caught.value)
    assert "parent" not in str(caught.value)
