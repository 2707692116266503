"""What was released once still works: names, options, parameters, and imports."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import registry
from registry.text import value_text
from tests.released import snapshot

FILES = sorted(Path(__file__).parent.glob("*.json"))
RELEASES = {path.stem: json.loads(path.read_text()) for path in FILES}
CASES = [(version, name) for version, all_of in RELEASES.items() for name in all_of["layers"]]


def smallest(name: str) -> dict[str, Any]:
    """A configuration that builds the layer, before options are added to it."""
    (config, *_) = snapshot.configs(name, {})
    return config


def test_the_first_release_is_among_them() -> None:
    assert "0.1.0" in RELEASES and len(RELEASES["0.1.0"]["layers"]) == 9


@pytest.mark.parametrize("version", RELEASES)
@pytest.mark.parametrize("module", snapshot.MODULES)
def test_imports(version: str, module: str) -> None:
    found = importlib.import_module(module)
    assert [x for x in RELEASES[version]["imports"][module] if not hasattr(found, x)] == []


@pytest.mark.parametrize(("version", "name"), CASES)
def test_names_and_options(version: str, name: str) -> None:
    """Every name and alias means the same layer, and options have the defaults that they had."""
    released = RELEASES[version]["layers"][name]
    spec = registry.spec(name)
    assert all(registry.spec(alias).factory is spec.factory for alias in released["aliases"])
    for option, default in released["options"].items():
        if default is None:
            assert option in smallest(name)
            continue
        now = spec.defaults[option]
        assert value_text(now) == default, option
        if option != "layers" or "layers" in smallest(name):
            config = smallest(name)
            registry.build({option: now, **config})


def built() -> Iterator[Any]:
    for version, name in CASES:
        for row in RELEASES[version]["layers"][name]["built"]:
            given = {key: x for key, x in row["config"].items() if key not in ("name", "features")}
            yield pytest.param(row, id=f"{version}-{name}-{json.dumps(given)}")


@pytest.mark.parametrize("row", list(built()))
def test_parameters(row: dict[str, Any]) -> None:
    """Checkpoints fit: every array has the path and the shape that it had."""
    layer = registry.build(row["config"])
    now = snapshot.shapes(layer, tuple(row["input_shape"]))
    assert now == {kind: row[kind] for kind in now}
