"""Checks that a layer's parameters depend on its options alone, and not on where it is built."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from zoo.recurrent.contract import RecurrentLayer
from zoo.recurrent.testing.case import Case, promise
from zoo.recurrent.testing.compare import paths, require, same, same_paths

_COMPILED = "/jax/core/compile/backend_compile_duration"
_NAME = "memory"


@promise("parameters depend neither on T nor on the batch, nor on how the layer is run")
def check_parameters(case: Case) -> None:
    """Trees and values from one key, over lengths, batches, conditions and options."""
    key = jax.random.key(0)
    expected = case.layer.init(key, None, case.xs)
    shape = (case.steps + 1, 2, 1, *case.features)
    lengths = jnp.zeros(shape[1:3], jnp.int32)
    xs = jnp.zeros(shape, case.xs.dtype)
    got = case.layer.init(key, None, xs, seq_lengths=lengths)
    same(got, expected, f"variables for xs of shape {shape}, against {case.xs.shape}")

    tree = paths(expected)
    for steps_and_batch in ((1,), (100, 1)):
        xs = jax.ShapeDtypeStruct((*steps_and_batch, *case.features), case.xs.dtype)
        got = jax.eval_shape(case.layer.init, key, None, xs)
        same_paths(paths(got), tree, f"the tree for xs of shape {xs.shape}")
    for options in (
        {"time_axis": -1 - len(case.features)},
        {"reverse": True},
        {"implementation": "scan"},
    ):
        if all(map(case.supports, options)):
            layer = case.variant(**options).layer
            got = jax.eval_shape(layer.init, key, None, case.xs)
            same_paths(paths(got), tree, f"the tree with {options}")


@promise("wherever a layer is built, its parameters lie under its own name, never beside it")
def check_parents(case: Case) -> None:
    """Compact and setup parents, ``nn.remat``, ``nn.jit``, ``nn.vmap`` and ``nnx.bridge.ToNNX``."""
    alone = jax.eval_shape(case.layer.init, jax.random.key(0), None, case.xs)
    expected = {
        f"{collection}/{_NAME}/{path}": shape
        for collection, tree in alone.items()
        for path, shape in paths(tree).items()
    }
    for where, place in _PLACES.items():
        parent = place(case.build)
        got = jax.eval_shape(parent.init, jax.random.key(0), case.xs)
        same_paths(paths(got), expected, f"the tree of a layer {where}")

    def bridged() -> Any:
        module = nnx.bridge.ToNNX(case.build(), rngs=nnx.Rngs(0))
        return nnx.state(nnx.bridge.lazy_init(module, None, case.xs), nnx.Param)

    state = nnx.to_pure_dict(nnx.eval_shape(bridged))
    same_paths(paths(state), paths(alone["params"]), "the tree of nnx.bridge.ToNNX")


@promise("initialising costs the same for any T")
def check_init_cost(case: Case) -> None:
    """What ``init`` compiles for another T: nothing."""
    key = jax.random.key(0)
    longer = jnp.zeros((case.steps * 50 + 1, *case.xs.shape[1:]), case.xs.dtype)
    case.layer.init(key, None, case.xs)
    compiled = []
    for xs in (case.xs, longer):
        with _compilations() as found:
            case.layer.init(key, None, xs)
        compiled.append(found)
    again, other = compiled
    require(
        len(other) <= len(again),
        f"init for T={longer.shape[0]} after T={case.steps}: expected to compile nothing more "
        f"than for T={case.steps} again ({again}), because parameters do not depend on T; it "
        f"compiled {other}. Likely cause: it runs the sequence.",
    )


@promise("describe() says what the layer makes of an input")
def check_describe(case: Case) -> None:
    """Shapes, parameter paths and their count in the text of ``describe``."""
    text = case.layer.describe(case.xs.shape)
    params = case.variables["params"]
    total = sum(x.size for x in jax.tree.leaves(params))
    for part in (str(list(case.whole[1].shape)), *paths(params), f"{total:,}"):
        require(part in text, f"describe: expected {part!r} in it, got\n{text}")


def _compact(build: Callable[..., RecurrentLayer]) -> nn.Module:
    class Parent(nn.Module):
        @nn.compact
        def __call__(self, xs: jax.Array) -> Any:
            return build(name=_NAME)(None, xs)

    return Parent()


def _setup(build: Callable[..., RecurrentLayer]) -> nn.Module:
    class Parent(nn.Module):
        def setup(self) -> None:
            self.memory = build()

        def __call__(self, xs: jax.Array) -> Any:
            return self.memory(None, xs)

    return Parent()


def _passed(build: Callable[..., RecurrentLayer]) -> nn.Module:
    class Parent(nn.Module):
        memory: nn.Module

        def __call__(self, xs: jax.Array) -> Any:
            return self.memory(None, xs)

    return Parent(build())


def _lifted(lift: Callable[[Any], Any]) -> Callable[[Callable[..., RecurrentLayer]], nn.Module]:
    def place(build: Callable[..., RecurrentLayer]) -> nn.Module:
        layer = build()
        options = {
            f.name: getattr(layer, f.name)
            for f in dataclasses.fields(layer)
            if f.init and f.name not in ("parent", "name")
        }

        class Parent(nn.Module):
            @nn.compact
            def __call__(self, xs: jax.Array) -> Any:
                return lift(type(layer))(**options, name=_NAME)(None, xs)

        return Parent()

    return place


def _vmap(layer_class: type) -> type:
    lift: Any = nn.vmap
    return lift(
        layer_class,
        variable_axes={"params": None},
        split_rngs={"params": False},
        in_axes=(None, 1),
        out_axes=(0, 1),
    )


_PLACES = {
    "in a compact parent": _compact,
    "in a parent's setup": _setup,
    "given to a parent as an attribute": _passed,
    "under nn.remat": _lifted(nn.remat),
    "under nn.jit": _lifted(nn.jit),
    "under nn.vmap": _lifted(_vmap),
}


@contextlib.contextmanager
def _compilations() -> Iterator[list[str]]:
    found: list[str] = []

    def listen(event: str, duration_secs: float, **about: Any) -> None:
        if event == _COMPILED:
            found.append(about.get("fun_name", event))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
