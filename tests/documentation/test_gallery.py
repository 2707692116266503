"""The gallery's pages: what they say is what the layers are."""

import dataclasses
import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest

import registry
from docs.extensions.gallery import (
    conversions,
    docstring,
    example,
    layers,
    memory,
    options,
    overview,
    page,
    pictures,
    shapes,
    speed,
)
from zoo.recurrent import convert
from zoo.recurrent.layers.linear import LinearLayer

ROOT = Path(__file__).parents[2]
NAMES = layers.names()


def test_every_built_in_layer_has_a_page() -> None:
    built_in = {n for n in registry.names(family="recurrent") if "." not in n}
    assert built_in == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_says_what_its_page_needs(name: str) -> None:
    written = docstring.parse(layers.layer_class(name))
    assert written.summary == registry.spec(name).summary or not layers.is_leaf(name)
    assert bool(written.equations) == layers.is_leaf(name)
    assert re.match(r"[A-Z].*\.$", written.advice)
    assert ">>>" in written.example
    own, shared = options.rows(name)
    fields = {f.name for f in dataclasses.fields(layers.layer_class(name))} - {"parent", "name"}
    assert {row.name for row in [*own, *shared]} == fields
    assert all(row.meaning for row in [*own, *shared])


@pytest.mark.parametrize("name", NAMES)
def test_formulas_give_the_number_of_parameters(name: str) -> None:
    found = [shape for _, shape in shapes.parameters(name)]
    formula = shapes.total(found).replace("^", "**")
    formula = re.sub(r"(?<=[\dDH])(?=[DH])", "*", formula)
    assert eval(formula, {"D": 97, "H": 104}) == sum(map(np.prod, found))
    if layers.is_leaf(name):
        assert all(shapes.text(shape)[1] in "DH134(8" for shape in found)


def test_lines_of_an_equation_are_aligned() -> None:
    assert docstring.aligned("a = b") == "a = b"
    text = "r = x, \\quad\n z = y \\\\\n h = r"
    assert docstring.aligned(text) == (
        "\\begin{aligned}\n& r = x, \\quad z = y \\\\\n& h = r\n\\end{aligned}"
    )


def test_an_example_shows_what_it_printed() -> None:
    assert example.session(">>> a = 1\n>>> a + 1\n2\n", "here") == ">>> a = 1\n>>> a + 1\n2"
    with pytest.raises(ValueError, match="the example of here: expected '3"):
        example.session(">>> 1 + 1\n3\n", "here")


def test_gradients_by_lag_are_those_of_the_recurrence(monkeypatch) -> None:
    class Decay:
        feature_axes = 1

        def init(self, key, carry, xs):
            return {}

        def apply(self, variables, carry, xs):
            weights = 0.5 ** np.arange(len(xs))[::-1, None, None]
            return None, (weights * xs).sum(0, keepdims=True)

    monkeypatch.setattr(memory, "SEEDS", 1)
    monkeypatch.setattr(layers, "build", lambda name, features, **options: Decay())
    norms = memory.gradients("decay")
    np.testing.assert_allclose(norms / norms[0], 0.5 ** np.arange(256.0), rtol=1e-5, atol=1e-17)
    assert memory.reach(norms) == 7  # 2 ** -7 is less than a hundredth
    assert memory.reach(np.ones(5)) is None


def test_a_picture_is_the_same_in_every_build() -> None:
    norms = {"one": np.array([1.0, 0.1, 0.0]), "two": np.array([1.0, 0.5, 0.2])}
    first = pictures.draw("one", norms, "light")
    assert first.startswith(b"<?xml") and first == pictures.draw("one", norms, "light")
    assert pictures.COLOURS["dark"]["line"].encode() in pictures.draw("one", norms, "dark")


def gradient(cell: str, **seconds: float) -> dict:
    size = {"batch": 1, "steps": 2, "inputs": 3, "features": 4}
    case = {"cell": cell, "size": size, "dtype": "float32", "platform": "cpu"}
    names = {"auto": "ours auto", "scan": "ours scan", "linen": "nn.RNN GRUCell"}
    libraries = {"auto": "ours", "scan": "ours", "linen": "linen"}
    series = [
        {"name": names[key], "library": libraries[key], "values": [value]}
        for key, value in seconds.items()
    ]
    return {"case": {**case, "checkpoint_every": None}, "quantity": "gradient", "series": series}


def measured(*results: dict, date: str = "2026-01-01", jax: str = "0.10.2") -> str:
    machine = {"backend": "cpu", "cpu": "a processor", "cores": 2, "date": date}
    return json.dumps({"machine": {**machine, "versions": {"jax": jax}}, "results": results})


def test_speeds_are_the_youngest_files(tmp_path) -> None:
    young, old = (gradient("gru", auto=2.0, scan=1.0, linen=peer) for peer in (6.0, 9.0))
    (tmp_path / "a.json").write_text(measured(young, date="2026-02-01"))
    (tmp_path / "b.json").write_text(measured(old))
    (own,) = speed.comparisons(speed.runs(tmp_path))["scan_gru"]
    assert (own.peer, own.ratios) == ("nn.RNN GRUCell", {"gradient": pytest.approx(3.0)})
    assert speed.nearest([own]) is own and speed.nearest([]) is None


def test_a_layer_that_is_ours_alone_stands_beside_its_own_scan(tmp_path) -> None:
    (tmp_path / "a.json").write_text(measured(gradient("slstm", auto=2.0, scan=5.0)))
    (own,) = speed.comparisons(speed.runs(tmp_path))["scan_slstm"]
    assert (own.peer, own.ratios) == (speed.OWN_SCAN, {"gradient": pytest.approx(2.5)})


def test_times_are_relative_to_a_gru_of_the_newest_run(tmp_path) -> None:
    for jax, seconds in (("0.9.2", 9.0), ("0.10.2", 3.0)):
        run = gradient("gru", auto=2.0, linen=7.0), gradient("slstm", auto=seconds)
        (tmp_path / f"{jax}.json").write_text(measured(*run, jax=jax))
    (tmp_path / "other.json").write_text(measured(gradient("mgu", auto=1.0), jax="0.11.0"))
    assert speed.times(speed.runs(tmp_path)) == {"scan_gru": 1.0, "scan_slstm": 1.5}


def test_every_file_of_measurements_can_be_read() -> None:
    runs = speed.runs(ROOT / "docs" / "measurements")
    assert {"scan_gru", "scan_lstm"} <= set(speed.comparisons(runs))
    assert speed.times(runs)["scan_gru"] == 1.0


def test_conversions_are_those_of_the_table() -> None:
    table = ROOT / "docs" / "convert.md"
    found = {own.library: own for own in conversions.conversions(table, "scan_gru")}
    assert found["PyTorch"].functions == ("from_torch", "to_torch")
    assert found["ONNX"].functions == ("from_onnx",)
    assert found["Keras 3"].remark == "`reset_after=True`"
    for name in NAMES:
        for own in conversions.conversions(table, name):
            assert all(hasattr(convert, function) for function in own.functions)
    assert not conversions.conversions(table, "scan_slstm")
    (keras,) = conversions.conversions(table, "scan_conv_lstm")
    assert (keras.functions, keras.remark) == (("from_keras",), "")


@pytest.mark.parametrize("name", ["scan_lstm", "scan_conv_gru", "scan_s5", "stack"])
def test_a_page_holds_all_that_is_known(name: str, monkeypatch) -> None:
    # The examples are doctests of the layers' own files.
    monkeypatch.setattr(example, "session", lambda text, where: text)
    norms = {n: np.geomspace(1, 1e-4, 256) for n in NAMES if layers.is_leaf(n)}
    text = page.write(name, ROOT / "docs", {}, norms)
    equation = "Equation" if layers.is_leaf(name) else "What it does"
    for title in ("When to choose it", equation, "Parameters", "Carry", "Options", "Papers"):
        assert f"\n## {title}\n" in text
    assert "## How far back it remembers" in text and "``" not in text.replace("```", "")
    assert inspect.cleandoc(registry.spec(name).references[0])[:20] in text


def test_the_overview_compares_all_layers() -> None:
    norms = {n: np.geomspace(1, 1e-4, 256) for n in NAMES if layers.is_leaf(n)}
    text = overview.write({}, {}, norms)
    for name in NAMES:
        assert f"[{name}]({name}.md)" in text
        parallel = re.search(rf"\| \[{name}\].*?\| 128 \| (\w+) ", text)
        if parallel:
            linear = issubclass(layers.layer_class(name), LinearLayer)
            assert parallel[1] == ("yes" if linear else "no")
