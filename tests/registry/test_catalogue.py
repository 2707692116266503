"""What the catalogue says of a leaf layer, against the file in which the layer is written."""

import dataclasses
import inspect
import re

import pytest

import registry
from zoo.catalogue import LAYERS
from zoo.recurrent import layers

LEAVES = [name for name in LAYERS if name.startswith("scan_")]


def docstring(name: str) -> str:
    return inspect.getdoc(registry.spec(name).factory) or ""


def check_entry(name: str) -> None:
    """The catalogue's summary is the docstring's, and its papers are among the docstring's."""
    about, text = LAYERS[name], docstring(name)
    assert text.splitlines()[0] == about["summary"]
    written = text.partition("References:")[2]
    for paper in about["references"]:
        (where,) = re.findall(r"(?:arXiv|doi):([\w./]+)", paper)
        assert where in written, paper
    for part in (".. math::", "When to choose it:", "Example:", "References:"):
        assert part in text, part


@pytest.mark.parametrize("name", LEAVES)
def test_the_docstring_says_what_the_catalogue_says(name: str) -> None:
    check_entry(name)


@pytest.mark.parametrize("name", LEAVES)
def test_a_cells_options_are_those_of_its_layer(name: str) -> None:
    layer = registry.spec(name).factory
    defaults = {f.name: f.default for f in dataclasses.fields(layer)}
    shared = {"features", "gate_fn", "activation_fn", "use_bias", "heads"}
    for field in dataclasses.fields(layer.cell_class):
        # Those of every cell mean nothing to one that is a linear recurrence.
        assert field.name in defaults or field.name in shared
        # A layer takes 1 for (1, 1), and None for a number that it chooses.
        if field.name not in shared and field.name not in ("strides", "dilation"):
            assert field.default == defaults[field.name], field.name


def test_every_layer_is_an_attribute_of_the_package() -> None:
    import zoo.recurrent

    assert set(layers.class_names()) <= set(dir(zoo.recurrent))
    for name in LEAVES:
        factory = registry.spec(name).factory
        assert getattr(zoo.recurrent, factory.__name__) is factory
    with pytest.raises(AttributeError, match=r"module 'zoo\.recurrent' has no attribute 'ScanX'"):
        zoo.recurrent.ScanX  # noqa: B018
