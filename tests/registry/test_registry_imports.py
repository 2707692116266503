"""What is imported when, seen from a fresh interpreter, and the examples in the docstrings."""

import doctest
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import registry
from zoo.catalogue import LAYERS

ROOT = Path(registry.__file__).parents[1]
LIGHT = """
import sys
before = set(sys.modules)
import registry
listed = registry.names(family="recurrent")
try:
    registry.build("scan_gro")
except registry.UnknownNameError as error:
    near = error.near[0]
new = {name.partition(".")[0] for name in set(sys.modules) - before}
foreign = new - set(sys.stdlib_module_names) - {"registry", "zoo"}
heavy = [name for name in ("jax", "flax", "numpy", "zoo.recurrent") if name in sys.modules]
print(len(listed), near, sorted(foreign), heavy)
"""


def python(*arguments, cwd):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("flags", [[], ["-O"], ["-W", "error"]])
def test_listing_imports_the_standard_library_only(flags, tmp_path):
    done = python(*flags, "-c", LIGHT, cwd=tmp_path)
    expected = f"{len(LAYERS)} scan_gru [] []\n"
    assert (done.stdout, done.stderr, done.returncode) == (expected, "", 0)


@pytest.mark.parametrize("flags", [[], ["-O"]])
def test_the_table_from_an_uninstalled_checkout(flags, tmp_path):
    done = python(*flags, "-m", "registry", cwd=tmp_path)
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == registry.names()


def test_user_errors_leave_no_traceback(tmp_path):
    done = python("-m", "registry", "describe", "scan_gro", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("UnknownNameError: nothing is registered as 'scan_gro'")


@pytest.mark.parametrize(
    "module", [f"registry.{found.name}" for found in pkgutil.iter_modules(registry.__path__)]
)
def test_examples_in_docstrings_run(module):
    results = doctest.testmod(importlib.import_module(module))
    assert results.failed == 0


def test_public_functions_and_classes_are_documented_with_examples():
    for name in ["build", "describe", "names", "register", "spec", "Spec", "temporary"]:
        assert ">>>" in getattr(registry, name).__doc__, name


def test_the_type_marker_is_there():
    for package in ("registry", "zoo"):
        assert (ROOT / package / "py.typed").is_file()
