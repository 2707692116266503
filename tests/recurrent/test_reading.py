"""What a person reads in a session: layers, signatures, help, descriptions, refused options."""

import dataclasses
import inspect
import pydoc
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import registry
from zoo.recurrent import Bidirectional, ScanGRU, ScanLSTM, Stack, build_stack, scanned
from zoo.recurrent.call.options import TABLE, table

NAMES = registry.names(family="recurrent")
LEAVES = [name for name in NAMES if name.startswith("scan_")]
INNER = {"layer": {"name": "scan_gru", "features": 4}}
NEEDED: dict[str, dict[str, Any]] = {
    "bidirectional": INNER,
    "stack": {**INNER, "num_layers": 2},
}
normal = jax.nn.initializers.normal(0.1)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (ScanGRU(features=64), "ScanGRU(features=64)"),
        (ScanGRU(features=4, reverse=False, gate_fn=nn.sigmoid), "ScanGRU(features=4)"),
        (
            ScanLSTM(4, time_axis=1, kernel_init=normal, carry_dtype=jnp.float16, name="encoder"),
            "ScanLSTM(features=4, time_axis=1, kernel_init=normal(...), carry_dtype=float16, "
            "name='encoder')",
        ),
        (
            ScanGRU(4, gate_fn=jax.nn.hard_sigmoid, activation_fn="relu"),
            "ScanGRU(features=4, gate_fn=hard_sigmoid, activation_fn='relu')",
        ),
        (
            registry.build("stack", layer="scan_gru", features=4, num_layers=2, bias_init=normal),
            "Stack(layer={'name': 'scan_gru', 'features': 4, 'bias_init': normal(...)}, "
            "num_layers=2)",
        ),
        (
            Stack(layers=[INNER["layer"], jax.nn.relu, {"name": nn.Dense, "features": 3}]),
            "Stack(layers=({'name': 'scan_gru', 'features': 4}, relu, "
            "{'name': Dense, 'features': 3}))",
        ),
        (
            Bidirectional({"name": ScanGRU, "features": 4}, merge=jnp.maximum),
            "Bidirectional(layer={'name': ScanGRU, 'features': 4}, merge=maximum)",
        ),
        (scanned(nn.GRUCell)(features=4, unroll=2), "ScannedGRUCell(features=4, unroll=2)"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_a_layer_is_its_class_and_what_differs_from_the_defaults(layer, expected):
    assert repr(layer) == str(layer) == expected


def test_bound_layers_say_the_same_and_their_name():
    seen = []

    class Model(nn.Module):
        def setup(self) -> None:
            self.encoder = registry.build("stack", num_layers=2, **INNER)

        def __call__(self, xs: jax.Array) -> None:
            seen.append(repr(self.encoder))
            self.encoder(None, xs)

    Model().init(jax.random.key(0), jnp.ones((3, 2, 5)))
    plain = repr(registry.build("stack", num_layers=2, **INNER))
    assert {*seen} == {f"{plain[:-1]}, name='encoder')"}
    layer = ScanGRU(features=4)
    assert repr(layer.bind(layer.init(jax.random.key(0), None, jnp.ones((3, 5))))) == repr(layer)


def test_options_that_are_arrays_and_modules_stay_short():
    class Cell(nn.GRUCell):
        scale: Any = None
        inside: Any = None

    layer = scanned(Cell)(features=4, scale=np.arange(2), inside=nn.Dense(3))
    assert repr(layer) == "ScannedCell(features=4, scale=array([0, 1]), inside=Dense(features=3))"
    lifted = nn.vmap(ScanGRU, variable_axes={"params": 0}, split_rngs={"params": True})
    assert repr(lifted(features=4)) == "VmapScanGRU(features=4)"


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_for_people_and_keep_what_they_are_read_for(name):
    factory = registry.spec(name).factory
    signature = inspect.signature(factory)
    for text in (str(signature), signature.format(max_width=80)):
        assert " at 0x" not in text and "typing." not in text and "parent" not in text
        assert "Sentinel" not in text
    in_lines = signature.format(max_width=80).replace("    *,\n", "").splitlines()
    assert len(in_lines) == len(signature.parameters) + 1
    if isinstance(factory, type):
        fields = {field.name: field for field in dataclasses.fields(factory)}
        assert all(
            x.default is fields[x.name].default
            for x in signature.parameters.values()
            if x.default is not x.empty
        )
        assert {*signature.parameters} == {key for key, x in fields.items() if x.init}


def test_signatures_in_full():
    text = str(inspect.signature(ScanGRU))
    assert text.startswith("(features: int, time_axis: int = 0, reverse: bool = False, ")
    assert ", gate_fn: Callable[[Array], Array] | str = sigmoid, " in text
    assert text.endswith(", heads: int = 1, name: str | None = None) -> None")
    text = str(inspect.signature(build_stack))
    assert text.endswith("*, name: str | None = None, **options: Any) -> Stack")
    assert str(inspect.signature(registry.build)).startswith("(name_or_mapping: str | ")

    class Mine(ScanGRU):
        width: int = 3

    assert "width: int = 3" in str(inspect.signature(Mine))
    assert "width" not in str(inspect.signature(ScanGRU))


@pytest.mark.parametrize("name", NAMES)
def test_help_begins_with_the_signature_and_the_docstring(name):
    layer = registry.build(name, **NEEDED.get(name, {"features": 4}))
    for what in (layer, type(layer)):
        text = pydoc.render_doc(what, renderer=pydoc.plaintext)
        top, _, rest = text.partition("Method resolution order")
        assert inspect.getdoc(type(layer)).splitlines()[0] in top
        assert " at 0x" not in top and "typing." not in top
        assert rest


@pytest.mark.parametrize("name", NAMES)
def test_descriptions_fit_a_screen(name):
    options = NEEDED.get(name, {"features": 4})
    shape = (7, 2, *(6,) * (2 if "conv" in name else 0), 5)
    plain = registry.describe(name, **options).splitlines()
    assert len(plain) <= 50
    built = registry.describe(name, input_shape=shape, **options).splitlines()
    assert built[: len(plain)] == plain
    assert max(map(len, built)) <= 100
    # Cut are types with many alternatives, never a value.
    for line in plain:
        if line.endswith("..."):
            assert " | " in line[-60:]


def test_what_is_longer_than_a_screen_is_wrapped_or_cut():
    words = " ".join(["many words"] * 20)
    registration = registry.temporary(
        "acme.long", lambda features, act=None: None, inputs=words, references=[words, "one"]
    )
    with registration:
        text = registry.describe("acme.long", act="x" * 200)
    lines = text.splitlines()
    assert max(map(len, lines)) == 100 and lines[-1].endswith("xxx...")
    assert " ".join(text.split()).count(words) == 2


WRONG = (object(), "no such thing", -1, 0, 1.5, None, [], {}, float("nan"), float("inf"), True, int)


@pytest.mark.parametrize("name", NAMES)
def test_a_refused_option_is_named(name):
    """Whatever is wrong with an option, the error begins with its name."""
    needed = NEEDED.get(name, {"features": 4})
    known = table(type(registry.build(name, **needed)))
    spec = registry.spec(name)
    for option in [*spec.defaults, *set(needed) - {*spec.defaults}]:
        refused = []
        for value in WRONG:
            try:
                registry.build(name, **{**needed, option: value})
            except (TypeError, ValueError) as error:
                refused.append(str(error))
            except registry.UnknownNameError as error:
                assert "'no such thing'" in str(error)
        assert refused, f"{option} takes anything"
        assert option in known
        assert [text for text in refused if option.rstrip("s") not in text] == []
    assert set(TABLE) <= set(known)
