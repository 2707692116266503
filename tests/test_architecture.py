"""The drawing in docs/architecture.md, held against what the code really imports."""

import ast
import copy
import graphlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"registry", "zoo"}
CORE = {"absl", "chex", "flax", "jax", "jaxlib", "numpy"}
LIGHT = {"registry", "catalogue", "zoo"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {
    module_name(path): path
    for package in sorted(PACKAGES)
    for path in (ROOT / package).rglob("*.py")
}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}


def room(module: str) -> str:
    """The name that a module has in the drawing."""
    package, *parts = module.split(".")
    if package == "registry":
        return package
    if parts[:1] == ["recurrent"]:
        return parts[1] if len(parts) > 1 else "recurrent"
    return parts[0] if parts else package


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported anywhere below a node; names of packages' modules in full."""
    for node in ast.walk(_at_run_time(tree)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in FILES else node.module


def _at_run_time(tree: ast.AST) -> ast.AST:
    """The tree without what type checkers alone see."""

    class Running(ast.NodeTransformer):
        def visit_If(self, node: ast.If) -> ast.If | None:
            only_types = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
            return None if only_types else self.generic_visit(node)

    return Running().visit(copy.deepcopy(tree))


def at_import(tree: ast.Module) -> Iterator[str]:
    """The modules that are imported when this one is: nothing inside of functions."""

    class Functionless(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        visit_AsyncFunctionDef = visit_FunctionDef

    yield from imports(Functionless().visit(ast.parse(ast.unparse(tree))))


def top(module: str) -> str:
    return module.partition(".")[0]


def ours(tree: ast.AST) -> set[str]:
    return {module for module in imports(tree) if top(module) in PACKAGES}


def drawn() -> dict[str, int]:
    """Every room of the drawing and its line, counted from the top."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    (drawing,) = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    lines = [line.split() for line in drawing.splitlines()]
    rooms = [name for line in lines for name in line]
    assert len(rooms) == len(set(rooms)), "a room is drawn twice"
    return {name: number for number, line in enumerate(lines) for name in line}


def test_every_room_is_drawn_and_described():
    # zoo/__init__.py imports nothing and nobody imports it.
    rooms = {room(name) for name in FILES} - {"zoo"}
    assert set(drawn()) == rooms
    table = re.findall(r"^\| (`.*?) \|", (ROOT / "docs" / "architecture.md").read_text(), re.M)
    assert {name for row in table for name in re.findall(r"`(\w+)`", row)} == rooms - {"recurrent"}


@pytest.mark.parametrize("name", sorted(FILES))
def test_imports_go_down(name):
    lines = drawn() | {"zoo": len(FILES)}
    here = room(name)
    upwards = {
        module
        for module in ours(TREES[name])
        if room(module) != here and lines[room(module)] <= lines[here]
    }
    assert not upwards, f"{name} imports what is not below it in docs/architecture.md"


def test_files_import_one_another_without_cycles():
    graph = {name: ours(tree) - {name} for name, tree in TREES.items()}
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("name", sorted(FILES))
def test_what_is_foreign_at_import(name):
    foreign = {top(module) for module in at_import(TREES[name])} - PACKAGES
    foreign -= set(sys.stdlib_module_names)
    assert foreign <= (set() if room(name) in LIGHT else CORE)


@pytest.mark.parametrize("name", sorted(set(FILES) - {n for n in FILES if room(n) == "registry"}))
def test_the_registry_is_used_through_its_public_names(name):
    assert not {module for module in imports(TREES[name]) if module.startswith("registry.")}


def test_chex_is_for_the_checks():
    users = {name for name, tree in TREES.items() if "chex" in map(top, imports(tree))}
    checks = "zoo.recurrent.call.checks"
    assert checks in users
    assert {room(name) for name in users - {checks}} <= {"testing"}


def test_one_place_calls_flax_scan():
    calls = {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in ("scan", "remat_scan")
        and ast.unparse(node.value) in ("nn", "linen", "flax.linen", "nn.transforms")
    }
    assert calls == {"zoo.recurrent.convention"}
    assert not {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("flax.linen")
        and {alias.name for alias in node.names} & {"scan", "remat_scan", "transforms"}
    }


@pytest.mark.parametrize("name", sorted(FILES))
def test_files_are_rooms(name):
    """One subject per file, said in its first line, short enough to be read in one go."""
    assert (ast.get_docstring(TREES[name]) or "").partition("\n")[0].endswith((".", ":"))
    assert len(FILES[name].read_text().splitlines()) <= 400
