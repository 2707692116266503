"""Layers work, with the same values, where JAX has lost what it does not promise to keep."""

import ast
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import registry
from tests.rows import rows
from zoo.recurrent import jaxprs, scanned, unstable

from .layers import LEAVES, assert_close, some

XS = some((7, 3, 4))
LENGTHS, RESETS = jnp.array([7, 0, 4]), jnp.zeros((7, 3), bool).at[2].set(True)
SOURCES = sorted(Path(unstable.__file__).parents[1].rglob("*.py"))


def outcomes():
    """Variables, outputs and gradients, in every way that analyses programs."""
    layers = {
        "gru": LEAVES["gru"].build(implementation="fused"),
        "lstm projected": LEAVES["lstm projected"].build(implementation="fused"),
        "lru": LEAVES["lru"].build(implementation="fused"),
        "min gru": LEAVES["min gru"].build(implementation="parallel"),
        "checkpointed": registry.build("scan_lstm", features=4, checkpoint_every=3),
        "stack": registry.build("stack", layer="scan_gru", features=4, num_layers=3),
        "scanned": scanned(nn.GRUCell)(features=4),
    }
    found = {}
    for name, layer in layers.items():
        variables = layer.init(jax.random.key(0), None, XS)

        def loss(variables, layer=layer):
            _, ys = layer.apply(variables, None, XS, seq_lengths=LENGTHS, resets=RESETS)
            return jnp.sum(ys**2)

        found[name] = variables, jax.jit(jax.value_and_grad(loss))(variables)
    return found


@pytest.fixture(scope="module")
def wanted():
    return outcomes()


@pytest.mark.parametrize(
    "path",
    rows([*unstable.INTERFACES, "the attributes of a jaxpr"], ["jax.extend.core:Primitive"]),
)
def test_layers_do_without(path, wanted, monkeypatch):
    find = unstable.find

    def unknown(*_):
        raise jaxprs.UnknownProgramError

    if path in unstable.INTERFACES:
        monkeypatch.setattr(unstable, "find", lambda asked: None if asked == path else find(asked))
    else:
        monkeypatch.setattr(jaxprs, "trace", unknown)
    jax.clear_caches()
    try:
        got = outcomes()
    finally:
        jax.clear_caches()
    for name in wanted:
        assert all(map(jnp.array_equal, *map(jax.tree.leaves, (wanted[name][0], got[name][0]))))
        assert_close(got[name][1], wanted[name][1], 1e-5)


@pytest.mark.parametrize("path", unstable.INTERFACES)
def test_what_is_listed_is_there(path):
    assert unstable.find(path) is not None


def test_what_is_not_listed_is_not_looked_for():
    with pytest.raises(KeyError):
        unstable.find("jax.core:Jaxpr")


UNSTABLE = ("jax._src", "jax.core", "jax.extend", "jax.interpreters", "flax.core.scope")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_nothing_unstable_is_imported_elsewhere(path):
    tree = ast.parse(path.read_text())
    imported = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported += [
        a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names
    ]
    used = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    found = {n for n in (*filter(None, imported), *used) if n.startswith(UNSTABLE)}
    assert not found | {name for name in used if name.startswith("nn.module._")}
