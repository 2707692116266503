"""Tags say what a layer can do, and no layer can do what its tags do not say."""

import pytest

import registry
from registry.__main__ import main
from zoo.catalogue import LAYERS

LEAVES = [name for name in LAYERS if name.startswith("scan_")]


def accepts(name: str, **options: object) -> bool:
    try:
        registry.build(name, features=4, **options)
    except ValueError:
        return False
    return True


CAN = {
    "parallel": lambda name: accepts(name, implementation="parallel"),
    "kernel": lambda name: accepts(name, implementation="kernel"),
    "intervals": lambda name: registry.build(name, features=4).reads_intervals,
    "convolutional": lambda name: registry.build(name, features=4).feature_axes > 1,
}


@pytest.mark.parametrize("tag", CAN)
def test_a_tag_is_true_of_exactly_the_layers_that_have_it(tag: str) -> None:
    assert registry.names(tag=tag) == sorted(name for name in LEAVES if CAN[tag](name))


def test_composites_are_what_takes_a_layer() -> None:
    from zoo.recurrent.composites.composition import Composite

    made = {"layer": {"name": "scan_gru", "features": 4}}
    built = {
        "bidirectional": registry.build("bidirectional", **made),
        "stack": registry.build("stack", num_layers=1, **made),
    }
    assert registry.names(tag="composite") == sorted(built)
    assert all(isinstance(layer, Composite) for layer in built.values())


def test_every_tag_is_known() -> None:
    tags = {tag for name in LAYERS for tag in registry.spec(name).tags}
    assert tags == {*CAN, "composite"}
    assert all(f'"{tag}"' in registry.names.__doc__ for tag in tags)


def test_tags_select_beside_patterns_and_families() -> None:
    registry.register("acme.scan_foo", len, family="foos", tags=["parallel", "odd"])
    assert registry.names("*gru", tag="parallel") == ["scan_min_gru"]
    assert registry.names(tag="odd") == ["acme.scan_foo"]
    assert registry.names(family="foos", tag="parallel") == ["acme.scan_foo"]
    assert registry.names(family="recurrent", tag="odd") == registry.names(tag="none") == []
    assert registry.spec("acme.scan_foo").tags == ("parallel", "odd")
    registry.register("acme.scan_bar", len, tags="odd")
    assert registry.names(tag="odd") == ["acme.scan_bar", "acme.scan_foo"]
    assert "\ntags        parallel, odd\n" in registry.describe("acme.scan_foo")


def test_the_command_line_selects_by_tag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tag=intervals"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", "scan_cfc", "scan_s5"]
