"""Registering, listing, looking up and restoring names."""

import pickle
import statistics
from dataclasses import FrozenInstanceError, make_dataclass
from functools import partial

import pytest

import registry
from zoo.catalogue import LAYERS

BUILT_INS = sorted(LAYERS)
ALIASES = {
    "gru": "scan_gru",
    "lstm": "scan_lstm",
    "simplified_gru": "scan_simplified_gru",
    "scan_simple_gru": "scan_simplified_gru",
}


def scan_sum(features, *, scale=1.0):
    """Sums over time.

    More about it.
    """
    return ("sum", features, scale)


def scan_max(features):
    return ("max", features)


@pytest.mark.parametrize(
    ("pattern", "family", "expected"),
    [
        ("*", None, BUILT_INS),
        ("*", "recurrent", BUILT_INS),
        ("*", "attention", []),
        ("scan_*gru", None, [name for name in BUILT_INS if name.endswith("gru")]),
        ("SCAN_*", None, []),
        (
            "scan_[lm]*u",
            None,
            [n for n in BUILT_INS if n[:6] in ("scan_l", "scan_m") and n.endswith("u")],
        ),
        ("gru", None, []),
    ],
)
def test_names_filters_by_pattern_and_family(pattern, family, expected):
    assert registry.names(pattern, family) == expected


def test_own_names_are_listed_in_order_with_the_built_ins():
    registry.register("acme.scan_sum", scan_sum, family="sums")
    registry.register("zeta", scan_max)
    assert registry.names() == sorted([*BUILT_INS, "acme.scan_sum", "zeta"])
    assert registry.names(family="sums") == ["acme.scan_sum"]


def test_the_catalogue_says_everything_a_person_needs():
    for name, about in LAYERS.items():
        assert about["factory"].startswith("zoo.recurrent"), name
        for field in ("family", "summary", "inputs", "outputs", "references"):
            assert about[field], (name, field)
        assert "xs (T, *batch, " in about["inputs"], name
        assert "ys (T, *batch, " in about["outputs"], name
        assert about["summary"].endswith("."), name


def test_spec_tells_what_was_registered():
    references = ["A paper, 1999"]
    registry.register(
        "acme.scan_sum",
        scan_sum,
        family="sums",
        inputs="xs (T, D)",
        outputs="ys (D,)",
        references=references,
        aliases=["sum"],
    )
    spec = registry.spec("sum")
    assert spec == registry.spec("acme.scan_sum")
    assert (spec.name, spec.factory, spec.family) == ("acme.scan_sum", scan_sum, "sums")
    assert (spec.inputs, spec.outputs) == ("xs (T, D)", "ys (D,)")
    assert (spec.references, spec.aliases) == (("A paper, 1999",), ("sum",))
    assert spec.summary == "Sums over time."
    assert dict(spec.defaults) == {"scale": 1.0}
    with pytest.raises(FrozenInstanceError):
        spec.name = "other"
    with pytest.raises(TypeError):
        spec.defaults["scale"] = 2.0


@pytest.mark.parametrize("value", ["one paper", ("one paper",)])
def test_one_string_is_not_taken_for_its_letters(value):
    registry.register("acme.scan_sum", scan_sum, references=value, aliases="total")
    spec = registry.spec("total")
    assert (spec.references, spec.aliases) == (("one paper",), ("total",))


class Documented:
    """Has a docstring."""


@pytest.mark.parametrize(
    ("factory", "summary", "defaults"),
    [
        (Documented, "Has a docstring.", {}),
        (scan_max, "", {}),
        (partial(scan_sum, scale=2.0), "Sums over time.", {"scale": 2.0}),
        (type("Plain", (Documented,), {}), "", {}),
        (make_dataclass("Made", [("features", int)]), "", {}),
        (dict, "", {}),
    ],
)
def test_summary_and_defaults_come_from_the_factory(factory, summary, defaults):
    registry.register("acme.x", factory)
    spec = registry.spec("acme.x")
    assert (spec.summary, dict(spec.defaults)) == (summary, defaults)


def test_register_says_where():
    registry.register("acme.plain", scan_sum)

    @registry.register("acme.decorated")
    def decorated():
        """Not called."""

    with registry.temporary("acme.temporary", scan_sum):
        where = [registry.spec(f"acme.{x}").where for x in ("plain", "decorated", "temporary")]
    line = test_register_says_where.__code__.co_firstlineno
    assert where == [f"{__name__}:{line + offset}" for offset in (1, 3, 7)]


def test_register_returns_the_factory_as_function_and_as_decorator():
    assert registry.register("acme.one", scan_sum) is scan_sum
    assert registry.register("acme.two")(scan_max) is scan_max
    assert registry.build("acme.two", features=3) == ("max", 3)


def test_an_import_path_is_resolved_when_needed():
    registry.register("acme.mean", "statistics:fmean")
    registry.register("acme.nothing", "acme_not_there:Nothing")
    assert registry.spec("acme.mean").factory.__name__ == "fmean"
    assert "acme.nothing" in registry.names()
    with pytest.raises(registry.LoadError, match="acme_not_there"):
        registry.spec("acme.nothing")


@pytest.mark.parametrize("alias", sorted(ALIASES))
def test_built_in_aliases(alias):
    with registry.temporary(ALIASES[alias], scan_max):
        assert registry.spec(alias).name == ALIASES[alias]
        assert alias in registry.spec(alias).aliases
        assert registry.build(alias, features=1) == ("max", 1)


@pytest.mark.parametrize(
    ("name", "aliases", "expected"),
    [
        ("acme.x", (), r"'acme.x' is taken by .*:scan_sum \(.*:\d+\)"),
        ("scan_gru", (), r"zoo.recurrent.layers.gru:ScanGRU \(built-in catalogue\)"),
        ("gru", (), "an alias of 'scan_gru'"),
        ("acme.y", ("gru",), "an alias of 'scan_gru'"),
        ("acme.y", ("scan_lstm",), "a name, not an alias"),
        ("acme.y", ("acme.y",), None),
    ],
)
def test_duplicates_raise_and_change_nothing(name, aliases, expected):
    registry.register("acme.x", scan_sum)
    before = registry.names()
    with pytest.raises(ValueError, match=expected) as caught:
        registry.register(name, scan_max, aliases=aliases)
    assert isinstance(caught.value, registry.DuplicateNameError)
    assert registry.names() == before
    assert registry.spec("acme.x").factory is scan_sum


def test_the_same_object_again_is_no_duplicate():
    registry.register("acme.x", scan_sum, family="sums")
    registry.register("acme.x", scan_sum)
    assert registry.spec("acme.x").family == "sums"
    with pytest.raises(registry.DuplicateNameError):
        registry.register("acme.x", partial(scan_sum))
    papers = ["bound methods are made anew at every look, and equal"]
    registry.register("acme.bound", papers.copy)
    registry.register("acme.bound", papers.copy)


def test_the_same_object_is_known_behind_its_import_path():
    registry.register("acme.mean", "statistics:fmean", family="means")
    registry.register("acme.mean", statistics.fmean)
    registry.register("acme.mean", "statistics:fmean")
    assert registry.spec("acme.mean").family == "means"
    with pytest.raises(registry.DuplicateNameError):
        registry.register("acme.mean", statistics.mean)


def test_override_replaces_and_keeps_aliases():
    registry.register("scan_gru", scan_sum, override=True, aliases=["sum_gru"])
    for name in ("scan_gru", "gru", "sum_gru"):
        assert registry.spec(name).factory is scan_sum
    assert registry.spec("gru").aliases == ("gru", "sum_gru")


def test_override_lets_a_name_take_the_place_of_an_alias_but_never_the_reverse():
    registry.register("gru", scan_sum, override=True)
    assert registry.spec("gru").name == "gru"
    with registry.temporary("scan_gru", scan_max):
        assert registry.spec("scan_gru").aliases == ()
    with pytest.raises(registry.DuplicateNameError) as caught:
        registry.register("acme.x", scan_sum, aliases=["scan_lstm"], override=True)
    assert "override" not in str(caught.value)
    registry.register("acme.x", scan_max, aliases=["lstm"], override=True)
    assert registry.spec("lstm").name == "acme.x"


@pytest.mark.parametrize("name", ["", "acme.", ".x", "acme..x", "a b", "1x", "acme.x\n", "a-b"])
def test_malformed_names_are_refused(name):
    with pytest.raises(ValueError, match="identifiers joined by dots"):
        registry.register(name, scan_sum)
    with pytest.raises(ValueError, match="identifiers joined by dots"):
        registry.register("acme.x", scan_sum, aliases=[name])
    assert "acme.x" not in registry.names()


def test_what_cannot_be_registered():
    with pytest.raises(TypeError, match=r"@registry.register\('acme.scan_foo'\)"):

        @registry.register
        def bare():
            """Never registered."""

    with pytest.raises(TypeError, match="expected a class, a function or an import path"):
        registry.register("acme.x", 3)


def test_unregister_forgets_a_name_and_its_aliases():
    registry.unregister("scan_gru")
    assert "scan_gru" not in registry.names()
    for name in ("scan_gru", "gru"):
        with pytest.raises(registry.UnknownNameError):
            registry.spec(name)
        with pytest.raises(registry.UnknownNameError):
            registry.unregister(name)


def test_unregister_forgets_an_alias_alone():
    registry.unregister("gru")
    assert "scan_gru" in registry.names()
    with pytest.raises(registry.UnknownNameError):
        registry.spec("gru")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("scan_gro", "scan_gru"),
        ("ScanGRU", "scan_gru"),
        ("scan-lstm", "scan_lstm"),
        ("LSTM", "lstm"),
        ("bidirectonal", "bidirectional"),
    ],
)
def test_unknown_names_are_answered_with_near_ones(name, near):
    with pytest.raises(LookupError) as caught:
        registry.spec(name)
    assert isinstance(caught.value, registry.UnknownNameError)
    assert caught.value.near[0] == near
    for text in (repr(name), "did you mean", repr(near), "is the plugin installed?", "imported?"):
        assert text in str(caught.value)


def test_a_name_near_to_nothing_gets_no_suggestion():
    with pytest.raises(registry.UnknownNameError) as caught:
        registry.build("qqqq")
    assert caught.value.near == ()
    assert "did you mean" not in str(caught.value)


def test_temporary_restores_a_name_whatever_happens_inside():
    registry.register("acme.x", scan_sum, aliases=["x"])
    before = registry.spec("acme.x")
    with pytest.raises(RuntimeError), registry.temporary("acme.x", scan_max, aliases=["y", "gru"]):
        assert registry.build("y", features=1) == registry.build("x", features=1) == ("max", 1)
        assert registry.spec("gru").name == "acme.x"
        registry.register("acme.kept", scan_max)
        registry.unregister("acme.x")
        raise RuntimeError
    assert registry.spec("x") == before
    with registry.temporary("scan_gru", scan_max):
        assert registry.spec("gru").name == "scan_gru"
    assert "acme.kept" in registry.names()
    with pytest.raises(registry.UnknownNameError):
        registry.spec("y")


def test_temporary_removes_a_name_that_was_new():
    with registry.temporary("acme.x", "statistics:fmean", family="means", aliases="x"):
        assert registry.names(family="means") == ["acme.x"]
        assert registry.spec("x").family == "means"
    for name in ("acme.x", "x"):
        with pytest.raises(registry.UnknownNameError):
            registry.spec(name)


def test_temporary_without_arguments_restores_everything():
    with pytest.raises(RuntimeError), registry.temporary():
        registry.register("acme.x", scan_sum)
        registry.register("gru", scan_sum, override=True)
        registry.unregister("scan_lstm")
        raise RuntimeError
    assert registry.names() == BUILT_INS
    with registry.temporary("scan_gru", scan_max):
        assert registry.spec("gru").name == "scan_gru"


@pytest.mark.parametrize(
    ("arguments", "about"), [(("x",), {}), ((None, scan_sum), {}), ((), {"aliases": ("y",)})]
)
def test_temporary_takes_all_or_nothing(arguments, about):
    with pytest.raises(TypeError, match="name and a factory, or nothing"):  # noqa: SIM117
        with registry.temporary(*arguments, **about):
            pass


@pytest.mark.parametrize(
    "provoke",
    [
        lambda: registry.build("scan_gro"),
        lambda: registry.build("acme.sum", feature=1),
        lambda: registry.build("acme.broken"),
        lambda: registry.register("acme.sum", scan_max),
    ],
)
def test_errors_cross_process_boundaries(provoke):
    registry.register("acme.sum", scan_sum)
    registry.register("acme.broken", "acme_not_there:Nothing")
    with pytest.raises(registry.RegistryError) as caught:
        provoke()
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is type(caught.value)
    assert str(copy) == str(caught.value)
    assert copy.__dict__ == caught.value.__dict__
