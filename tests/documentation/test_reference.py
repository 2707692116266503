"""Every public name has its entry on a reference page, and a docstring."""

import importlib
import inspect
import re
import sys

import pytest

from docs.extensions import public, reference


def defined(module: str) -> set[str]:
    """The public functions and classes that a module's own attributes hold, found without source.

    What a package holds, it exports; what a module holds, it may have imported for itself.
    """
    loaded = importlib.import_module(module)
    package = hasattr(loaded, "__path__")
    found = set()
    for name in dir(loaded):
        value = getattr(loaded, name)
        if name.startswith("_") or not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        root = module.partition(".")[0] if package else module
        if value.__module__ == root or value.__module__.startswith(f"{root}."):
            found.add(name)
    return found


@pytest.mark.parametrize("module", public.modules())
def test_every_public_name_has_an_entry(module: str) -> None:
    page = reference.pages()[f"{module}.rst"]
    entries = re.findall(r"^\.\. auto\w+:: (\S+)$", page, flags=re.MULTILINE)
    assert len(entries) == len(set(entries)) > 0
    assert {f"{module}.{name}" for name in defined(module)} <= set(entries)


@pytest.mark.parametrize("module", public.modules())
def test_every_public_name_has_a_docstring(module: str) -> None:
    loaded = importlib.import_module(module)
    assert loaded.__doc__
    for name in public.names(module):
        value = getattr(loaded, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), name


def test_known_modules_and_names_are_found() -> None:
    known = {
        "registry": {"build", "names", "Spec", "UnknownNameError"},
        "zoo.recurrent": {"ScanGRU", "Stack", "scanned", "TIME", "RecurrentLayer"},
        "zoo.recurrent.functional": {"linear_recurrence", "gru_step"},
        "zoo.recurrent.convert": {"from_torch", "carry_to_haiku", "ConversionError"},
        "zoo.recurrent.testing": {"check_layer", "CHECKS", "Case"},
    }
    assert known.keys() <= set(public.modules())
    for module, names in known.items():
        assert names <= set(public.names(module))


def test_what_is_internal_exists() -> None:
    internal = public.INTERNAL["zoo.recurrent"]
    for name in internal or ():
        importlib.import_module(f"zoo.recurrent.{name}")


def test_a_module_that_is_added_has_a_page(tmp_path, monkeypatch) -> None:
    package = tmp_path / "menagerie"
    package.mkdir()
    (package / "__init__.py").write_text('"""Animals."""\n')
    (package / "birds.py").write_text(
        '"""Birds."""\n\nimport math\n\nWINGS = 2\n"""How many."""\n\nLEGS = 2\n\n\n'
        'def fly():\n    """Flies."""\n\n\ndef _land():\n    pass\n'
    )
    (package / "keepers.py").write_text('"""Internal."""\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(public, "PACKAGES", ("menagerie",))
    monkeypatch.setattr(public, "INTERNAL", {"menagerie": {"keepers"}})
    assert public.modules() == ["menagerie", "menagerie.birds"]
    assert public.names("menagerie.birds") == ["WINGS", "fly"]
    page = reference.pages()["menagerie.birds.rst"]
    assert ".. autofunction:: menagerie.birds.fly" in page
    assert ".. autodata:: menagerie.birds.WINGS" in page
    for name in [name for name in sys.modules if name.startswith("menagerie")]:
        del sys.modules[name]


def test_shapes_are_no_emphasis_and_code_is_code() -> None:
    written = ["of shape (*batch, D), `f(*batch)`, `build` and ``ScanGRU``", ">>> f(*batch)"]
    block = ["As follows::", "", "    f(*batch)  # `{}`", ""]
    assert reference._escaped([*block, "of (*batch, D)"]) == [*block, r"of (\*batch, D)"]
    assert reference._escaped(written) == [
        r"of shape (\*batch, D), ``f(*batch)``, `build` and "
        ":py:class:`ScanGRU <zoo.recurrent.ScanGRU>`",
        ">>> f(*batch)",
    ]
