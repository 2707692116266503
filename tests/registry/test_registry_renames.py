"""Former names and options: they work, and say what they are called now."""

import re
import subprocess
import sys
import warnings

import pytest

import registry


def scan_sum(features, *, scale=1.0):
    return ("sum", features, scale)


NOW = {
    "renamed_from": {"acme.scan_add": "1.3", "scan_total": "1.4"},
    "renamed_options": {"width": ("features", "1.2"), "factor": ("scale", "1.5")},
}


@pytest.fixture
def renamed():
    with registry.temporary("acme.scan_sum", scan_sum, aliases=["acme.sum"], **NOW):
        yield


@pytest.mark.parametrize(
    ("old", "version"), [("acme.scan_add", "1.3"), ("scan_total", "1.4")], ids=str
)
def test_a_former_name_works_and_warns_where_it_stands(renamed, old, version):
    words = rf"'{old}', a former name, is 'acme\.scan_sum' since version {version}"
    for look in (registry.build, registry.describe, registry.spec):
        options = {} if look is registry.spec else {"features": 8}
        with pytest.warns(DeprecationWarning, match=words) as caught:
            found = look(old, **options)
        assert [warning.filename for warning in caught] == [__file__]
        assert found == look("acme.scan_sum", **options)
    with pytest.warns(DeprecationWarning, match=words):
        assert registry.build({"name": old, "features": 8}) == ("sum", 8, 1.0)


def test_former_names_are_not_listed(renamed):
    assert registry.names("*sum*") == ["acme.scan_sum"]
    assert registry.names("*add") == registry.names("*total") == []
    spec = registry.spec("acme.sum")
    assert spec.aliases == ("acme.sum",) and spec.renamed_from == NOW["renamed_from"]
    assert "scan_add" not in registry.describe("acme.scan_sum")


@pytest.mark.parametrize(
    ("options", "expected", "words"),
    [
        ({"width": 8}, ("sum", 8, 1.0), [r"'width', a former option of 'acme\.scan_sum', is "]),
        (
            {"width": 8, "factor": 2.0},
            ("sum", 8, 2.0),
            [
                "'width', .* is 'features' since version 1.2",
                "'factor', .* 'scale' since version 1.5",
            ],
        ),
    ],
)
def test_a_former_option_works_and_warns_where_it_stands(renamed, options, expected, words):
    with pytest.warns(DeprecationWarning) as caught:
        assert registry.build("acme.scan_sum", **options) == expected
        assert registry.build({"name": "acme.sum", **options}) == expected
        registry.describe("acme.scan_sum", **options)
    assert {warning.filename for warning in caught} == {__file__}
    texts = [str(warning.message) for warning in caught]
    assert len(texts) == 3 * len(words)
    assert all(re.search(line, text) for line, text in zip(words * 3, texts, strict=True))


def test_a_former_option_beside_the_one_it_has_become_is_refused(renamed):
    with pytest.raises(registry.WrongOptionError, match="no option 'width'"):
        registry.build("acme.scan_sum", width=8, features=8)


def test_what_is_current_warns_of_nothing(renamed):
    with warnings.catch_warnings(action="error"):
        registry.build("acme.sum", features=8, scale=2.0)
        registry.describe("acme.scan_sum", features=8)
        assert registry.names()


def test_former_names_are_taken_and_given_back():
    registry.register("acme.other", len)
    with pytest.raises(registry.DuplicateNameError, match=r"'acme\.other' is taken by a name"):
        registry.register("acme.scan_sum", scan_sum, renamed_from={"acme.other": "1.3"})
    registry.register("acme.twin", len, aliases=["acme.scan_add"])
    with pytest.raises(registry.DuplicateNameError, match=r"taken by an alias of 'acme\.twin'"):
        registry.register("acme.scan_sum", scan_sum, renamed_from={"acme.scan_add": "1.3"})
    with registry.temporary("acme.scan_sum", scan_sum, **NOW), pytest.warns(DeprecationWarning):
        assert registry.spec("acme.scan_add").name == "acme.scan_sum"
    assert registry.spec("acme.scan_add").name == "acme.twin"
    with pytest.raises(registry.UnknownNameError):
        registry.spec("scan_total")


def test_a_plugin_that_renames_itself_needs_no_second_factory(install):
    source = (
        "import registry\n"
        "def scan_sum(features): return ('sum', features)\n"
        "registry.register('acme.scan_sum', scan_sum, renamed_from={'acme.scan_add': '1.3'})\n"
    )
    entries = "acme.scan_sum = acme_sums:scan_sum\nacme.scan_add = acme_sums:scan_sum\n"
    install("acme-sums", entries, acme_sums=source)
    with pytest.warns(DeprecationWarning, match="since version 1.3"):
        assert registry.build("acme.scan_add", features=3) == ("sum", 3)
    assert registry.names("acme.*") == ["acme.scan_sum"]


INSIDE = """
import warnings, jax, jax.numpy as jnp, registry
from zoo.recurrent import ScanGRU

registry.register(
    "acme.gru", ScanGRU, renamed_from={"acme.old": "1.3"},
    renamed_options={"width": ("features", "1.3")},
)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    layer = registry.build("stack", layer="acme.old", width=4, num_layers=2)
    variables = layer.init(jax.random.key(0), None, jnp.ones((3, 2, 5)))
texts = {str(warning.message).partition(" since")[0] for warning in caught}
assert texts == {
    "'acme.old', a former name, is 'acme.gru'",
    "'width', a former option of 'acme.gru', is 'features'",
}, texts
assert {warning.filename for warning in caught} == {"<string>"}, caught[0]
"""


def test_names_and_options_inside_of_a_composite_too():
    done = subprocess.run([sys.executable, "-c", INSIDE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nothing_was_renamed_since_the_first_release():
    """Where something is, tests/released says that it still works; this says that it warns."""
    for name in registry.names(family="recurrent"):
        spec = registry.spec(name)
        for option, (now, _) in spec.renamed_options.items():
            assert now in spec.defaults and option not in spec.defaults
        for old in spec.renamed_from:
            with pytest.warns(DeprecationWarning, match=old):
                registry.spec(old)
