"""The public modules and names, found in the packages themselves."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType

PACKAGES = ("registry", "zoo.recurrent")
"""What users import; of a package's modules, those are public that are not named below."""

INTERNAL = {
    "registry": None,
    "zoo.recurrent": {
        "call",
        "cell",
        "composites",
        "contract",
        "convention",
        "engine",
        "jaxprs",
        "layers",
        "unstable",
    },
}
"""Modules that only other modules import; None for all. Their public names are exported above."""


def modules() -> list[str]:
    """The public modules by name: a module that is added is one of them, unless it is internal."""
    found = []
    for package in PACKAGES:
        found.append(package)
        internal = INTERNAL[package]
        if internal is not None:
            below = pkgutil.iter_modules(importlib.import_module(package).__path__)
            own = {module.name for module in below if not module.name.startswith("_")}
            found += sorted(f"{package}.{name}" for name in own - internal)
    return found


def names(module: str) -> list[str]:
    """The public names of a module, in the order of its source.

    They are what it exports (``from x import y as y``), the functions and classes that it defines,
    the constants below which it says what they are, and what its ``__dir__`` adds of the package.
    """
    loaded = importlib.import_module(module)
    tree = ast.parse(Path(str(loaded.__file__)).read_text(encoding="utf-8"))
    found = dict.fromkeys(name for name in _written(tree) if not name.startswith("_"))
    if any(isinstance(node, ast.FunctionDef) and node.name == "__dir__" for node in tree.body):
        found |= dict.fromkeys(name for name in dir(loaded) if _own(loaded, name))
    return list(found)


def base_classes() -> list[type]:
    """The internal classes that public ones inherit their options from, the lowest first."""
    public = {
        id(getattr(importlib.import_module(module), name))
        for module in modules()
        for name in names(module)
    }
    found: dict[type, None] = {}
    for module in modules():
        for name in names(module):
            value = getattr(importlib.import_module(module), name)
            for base in reversed(inspect.getmro(value) if inspect.isclass(value) else ()):
                ours = base.__module__.startswith("zoo.") and not base.__name__.startswith("_")
                if ours and id(base) not in public:
                    found[base] = None
    return list(found)


def _written(tree: ast.Module) -> list[str]:
    found: list[str] = []
    for node, below in zip(tree.body, [*tree.body[1:], None], strict=True):
        match node:
            case ast.ImportFrom(names=aliases):
                found += [alias.name for alias in aliases if alias.name == alias.asname]
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.append(name)
            case ast.Assign(targets=[ast.Name(id=name)]) if _is_text(below):
                found.append(name)
            case ast.AnnAssign(target=ast.Name(id=name)) if _is_text(below):
                found.append(name)
    return found


def _is_text(node: ast.stmt | None) -> bool:
    match node:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
    return False


def _own(module: ModuleType, name: str) -> bool:
    value = getattr(module, name, None)
    return (
        not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__.startswith(module.__name__)
    )
