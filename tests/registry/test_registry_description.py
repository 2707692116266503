"""What people read: descriptions, the table, the command line."""

import functools
import inspect
from collections.abc import Callable

import pytest

import registry
from registry.__main__ import main
from registry.text import columns, signature_text, type_text, value_text


class FakeLayer:
    """A layer that describes itself.

    Not only in one line.
    """

    def __init__(self, features: int, scale: float | None = None, act: Callable = abs, **others):
        self.features, self.scale, self.others = features, scale, others

    def describe(self, input_shape):
        assert isinstance(input_shape, tuple)
        return f"ys {(*input_shape[:-1], self.features)}\n{self.scale!r} {self.others}"


@pytest.fixture(autouse=True)
def fakes():
    registry.register(
        "acme.fake",
        FakeLayer,
        family="fakes",
        inputs="carry, xs (T, *batch, D)",
        outputs="carry, ys (T, *batch, H)",
        references=["First, 1997", "Second, 2014"],
        aliases=["fake"],
    )
    registry.register("acme.plain", lambda: object())


def test_a_description_in_full():
    where = registry.spec("fake").where
    assert registry.describe("fake", features=8) == (
        "A layer that describes itself.\n"
        "\n"
        "name        acme.fake\n"
        "aliases     fake\n"
        "family      fakes\n"
        f"factory     {__name__}:FakeLayer\n"
        f"registered  {where}\n"
        "inputs      carry, xs (T, *batch, D)\n"
        "outputs     carry, ys (T, *batch, H)\n"
        "references  First, 1997\n"
        "            Second, 2014\n"
        "\n"
        "options\n"
        "  features  8     int\n"
        "  scale     None  float | None\n"
        "  act       abs   Callable\n"
        "  **others"
    )


def test_a_description_without_config_says_what_is_required():
    assert "features  required  int" in registry.describe("acme.fake")
    assert registry.describe("acme.plain").endswith("options: none")
    assert "name        acme.plain" in registry.describe("acme.plain")


def test_with_an_input_shape_the_layer_is_asked():
    text = registry.describe("fake", input_shape=[10, 4, 3], features=8, scale=2.0, extra=1)
    assert text.endswith("ys (10, 4, 8)\n2.0 {'extra': 1}")
    mapping = {"name": "fake", "features": 8}
    assert registry.describe(mapping, input_shape=(3,)).endswith("ys (8,)\nNone {}")
    assert "ys (" not in registry.describe(mapping).partition("options")[2]


def test_a_layer_that_does_not_describe_itself_is_excused():
    text = registry.describe("acme.plain", input_shape=(3,))
    assert "object has no method describe(input_shape)" in text


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"feature": 8, "input_shape": (3,)}, registry.WrongOptionError),
        ({"input_shape": (3,)}, registry.WrongOptionError),
        ({"features": 8, "input_shape": (3, 2.5)}, TypeError),
        ({"features": 8, "input_shape": "abc"}, TypeError),
    ],
)
def test_what_describe_refuses(arguments, error):
    with pytest.raises(error):
        registry.describe("acme.fake", **arguments)


def test_describe_refuses_unknown_options_without_a_shape_too():
    with pytest.raises(registry.WrongOptionError, match="no option 'x'"):
        registry.describe("acme.plain", x=1)


class Callee:
    def __call__(self):
        """Does nothing."""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, "1"),
        ("a", "'a'"),
        (len, "len"),
        (int, "int"),
        (FakeLayer.describe, "FakeLayer.describe"),
        ((lambda: lambda: 0)(), "<lambda>(...)"),
        (functools.partial(len), "len(...)"),
        (object(), "<object object>"),
        (Callee(), f"<{__name__}.Callee object>"),
    ],
)
def test_values_are_written_without_addresses(value, expected):
    assert value_text(value) == expected


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (int, "int"),
        (FakeLayer, "FakeLayer"),
        (Callable[..., int], "Callable[..., int]"),
        ("jax.typing.DTypeLike | None", "DTypeLike | None"),
        (inspect.Parameter.empty, ""),
    ],
)
def test_types_are_written_without_modules(annotation, expected):
    assert type_text(annotation) == expected


def test_signatures_hide_what_every_flax_module_has():
    def module(features, *, act=len, parent=None, name=None): ...

    def function(features, name="x"): ...

    assert signature_text(module) == "(features, *, act=len)"
    assert signature_text(function) == "(features, name='x')"


def test_columns_are_aligned_and_end_without_blanks():
    assert columns([("a", "b", ""), ("long", "", "c")], indent=" ") == " a     b\n long     c"


def run(capsys, *arguments):
    status = main(arguments)
    out, err = capsys.readouterr()
    return status, out, err


def test_the_table_has_a_line_per_name(capsys):
    status, out, err = run(capsys)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *registry.names()]
    assert lines[0].split() == ["name", "aliases", "family", "summary"]
    (fake,) = [line for line in lines if line.startswith("acme.fake")]
    assert fake.split(maxsplit=3) == [
        "acme.fake",
        "fake",
        "fakes",
        "A layer that describes itself.",
    ]


def test_the_table_takes_a_pattern_and_a_family(capsys):
    _, out, _ = run(capsys, "--pattern=scan_mg*")
    assert [line.split()[0] for line in out.splitlines()] == ["name", "scan_mgu"]
    _, out, _ = run(capsys, "--family=fakes")
    assert [line.split()[0] for line in out.splitlines()] == ["name", "acme.fake"]


def test_the_table_tells_of_plugins_and_of_those_that_are_ignored(capsys, install):
    install(
        "acme-layers", "acme.foo = acme_none:Foo\nscan_gru = acme_none:Gru\nbar = acme_none:Bar\n"
    )
    _, out, _ = run(capsys)
    assert "(entry point of acme-layers 1.2)" in out
    assert "ignored: the entry point of acme-layers 1.2 claims 'scan_gru'" in out
    assert "ignored: the entry point of acme-layers 1.2 claims 'bar'" in out
    assert "claims 'acme.foo'" not in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--features=8", "--input_shape=10,4,3"], "ys (10, 4, 8)\nNone {}"),
        (["--features=8", "--input-shape=3"], "ys (8,)\nNone {}"),
        (["--features=8", "--input_shape=(3, 4)"], "ys (3, 8)\nNone {}"),
        (["--features=8", "--input_shape=3", "--scale=bfloat16"], "'bfloat16' {}"),
        (["--features=8", "--input_shape=3", "--scale=[1, 2]"], "[1, 2] {}"),
        (["--features=8", "--input_shape=3", "--scale=false"], "False {}"),
        (["--features=8", "--input_shape=3", "--scale="], "'' {}"),
        (
            ["--features=8", "--input_shape=3", '--layer={"name": "gru", "on": true}', "--name=n"],
            "None {'layer': {'name': 'gru', 'on': True}, 'name': 'n'}",
        ),
    ],
)
def test_options_on_the_command_line(capsys, arguments, expected):
    status, out, err = run(capsys, "describe", "fake", *arguments)
    assert (status, err) == (0, "")
    assert out.endswith(expected + "\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["describe", "scan_gro"], "UnknownNameError: nothing is registered as 'scan_gro'"),
        (["describe", "fake", "--input_shape=3"], "WrongOptionError: 'acme.fake' needs 'features'"),
        (["describe", "acme.plain", "--x=1"], "WrongOptionError: 'acme.plain' has no option 'x'"),
        (["describe", "acme.broken"], "LoadError: cannot load 'acme.broken'"),
        (["describe", "fake", "--x"], "ValueError: expected --option=value, got '--x'"),
        (["describe"], "ValueError: expected nothing or 'describe NAME'"),
        (["describe", "a", "b"], "ValueError: expected nothing or 'describe NAME'"),
        (["-x"], "ValueError: expected nothing or 'describe NAME'"),
        (["--x=1"], "TypeError: "),
        (["describe", "acme.raises", "--input_shape=3"], "ValueError: two lines"),
    ],
)
def test_errors_of_users_are_one_line_and_status_two(capsys, arguments, expected):
    def raises():
        raise ValueError("two\n  lines")

    registry.register("acme.broken", "acme_not_there:Nothing")
    registry.register("acme.raises", raises)
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith(expected)
    assert err.count("\n") == 1


def test_help(capsys):
    for flag in ("-h", "--help"):
        status, out, _ = run(capsys, flag)
        assert status == 0
        assert "python -m registry describe" in out
