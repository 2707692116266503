"""What a release promises to keep, as JSON: names, options, parameters, and what can be imported.

    python -m tests.released.snapshot > tests/released/0.2.0.json

is run once for every release, with the code of that release, and the file is never changed again.
It uses nothing but the public interface, so that it runs with any version.
"""

import importlib
import inspect
import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

import registry
from registry.text import value_text

MODULES = ("registry", "zoo.recurrent", "zoo.recurrent.convert", "zoo.recurrent.testing")
FEATURES, INPUTS = 8, 5
# Besides the defaults, every option that decides which parameters there are.
DECIDING = (
    {"learned_carry": True},
    {"use_bias": False},
    {"projection": 4},
    {"heads": 2},
    {"peepholes": True},
    {"coupled_gates": True},
)
COMPOSITES: dict[str, list[dict[str, Any]]] = {
    "bidirectional": [
        {"layer": {"name": "scan_gru", "features": FEATURES}},
        {"layer": "scan_lstm", "features": FEATURES, "merge": "sum"},
    ],
    "stack": [
        {"layer": {"name": "scan_gru", "features": FEATURES}, "num_layers": 3},
        {
            "layer": "scan_lstm",
            "features": FEATURES,
            "num_layers": 2,
            "layer_norm": True,
            "residual": True,
        },
        {
            "layers": [
                {"name": "scan_gru", "features": FEATURES},
                {"name": "scan_gru", "features": FEATURES},
                {"name": "scan_gru", "features": FEATURES},
                {"name": "bidirectional", "layer": {"name": "scan_elman", "features": 3}},
            ],
            "skip": True,
        },
    ],
}


def snapshot() -> dict[str, Any]:
    """Everything that can be broken, of the version that is imported."""
    return {
        "imports": {module: importable(module) for module in MODULES},
        "layers": {name: about(name) for name in registry.names(family="recurrent")},
    }


def importable(module: str) -> list[str]:
    """What of a module is the project's own, and public."""
    found = importlib.import_module(module)
    own = []
    for name in dir(found):
        value = getattr(found, name)
        where = getattr(value, "__module__", None) or type(value).__module__
        if not name.startswith("_") and not inspect.ismodule(value):
            own += [name] if where.startswith(("registry", "zoo")) else []
    return own


def about(name: str) -> dict[str, Any]:
    """A layer's aliases, its options with their defaults, and what it makes of some of them."""
    spec = registry.spec(name)
    parameters = inspect.signature(spec.factory).parameters.values()
    options = {
        p.name: None if p.default is p.empty else value_text(p.default)
        for p in parameters
        if p.name not in ("parent", "name") and p.kind is not p.VAR_KEYWORD
    }
    built = [describe(config, name) for config in configs(name, options)]
    return {"aliases": list(spec.aliases), "options": options, "built": built}


def configs(name: str, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Configurations, one for every set of parameters that the layer can have."""
    if name in COMPOSITES:
        yield from ({"name": name, **options} for options in COMPOSITES[name])
        return
    yield {"name": name, "features": FEATURES}
    for more in DECIDING:
        config = {"name": name, "features": FEATURES, **more}
        try:
            registry.build(config)
        except (TypeError, ValueError):
            continue  # it has no such option, or no such value of it
        yield config


def describe(config: dict[str, Any], name: str) -> dict[str, Any]:
    """The shapes of everything, by path."""
    space = (6,) * (2 if "conv" in name else 0)
    shape = (3, 2, *space, INPUTS)
    return {"config": config, "input_shape": list(shape), **shapes(registry.build(config), shape)}


def shapes(layer: Any, input_shape: tuple[int, ...]) -> dict[str, dict[str, list[int]]]:
    """The shapes of a layer's variables, of its carry and of ys, by path."""
    xs = jax.ShapeDtypeStruct(input_shape, jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    (carry, ys), variables = jax.eval_shape(
        lambda key, xs: layer.init_with_output(key, None, xs), key, xs
    )
    return {"variables": by_path(variables), "carry": by_path(carry), "ys": by_path(ys)}


def by_path(tree: Any) -> dict[str, list[int]]:
    """Path, as JAX writes it → shape."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): list(leaf.shape) for path, leaf in leaves}


if __name__ == "__main__":
    text = json.dumps(snapshot(), indent=1)
    # A shape stands on one line.
    text = re.sub(r"\[[\d,\s]+\]", lambda found: re.sub(r"\s+", "", found[0]), text)
    sys.stdout.write(text + "\n")
