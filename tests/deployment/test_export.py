"""Layers exported with any batch size and any length compute the same without this project."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from tests.convert import reference
from tests.recurrent.layers import ScannedGRU, assert_close, some
from zoo.recurrent import RecurrentLayer

from .layers import D, H, both, build, drawn, gru, lstm, stack

# Batch and steps. Every size is compiled anew, so only one function is called with several.
SIZE = (3, 37)
SIZES = {"gru": (SIZE, (1, 1), (2, 8)), "gru step": (SIZE, (1, 2))}


@dataclasses.dataclass(frozen=True)
class Case:
    """A layer, and what of it is exported.

    Attributes:
      config: the layer's, or a function that builds it.
      given: the conditions that the exported function takes.
      use: what is done with it: "call", "gradient" or "stream".
      carry: whether the function takes a carry.
    """

    config: dict[str, Any] | Callable[[], RecurrentLayer]
    given: tuple[str, ...] = ()
    use: str = "call"
    carry: bool = False

    def function(self) -> Callable[..., Any]:
        layer = build(self.config)
        if self.use == "stream":
            return lambda variables, carry, x: layer.apply(variables, carry, x, method="step")

        def run(variables, xs, *rest):
            carry, rest = (rest[0], rest[1:]) if self.carry else (None, rest)
            return layer.apply(variables, carry, xs, **dict(zip(self.given, rest, strict=True)))

        return run

    def exported(self) -> bytes:
        """Returns the function of variables and b sequences of t steps, or of b single steps."""
        b, t = export.symbolic_shape("b, t")
        spec = build(self.config).carry_spec((b, D))
        xs = jax.ShapeDtypeStruct(self.batched(b, t), jnp.float32)
        conditions = {
            "seq_lengths": jax.ShapeDtypeStruct((b,), jnp.int32),
            "mask": jax.ShapeDtypeStruct(xs.shape[:-1], bool),
            "resets": jax.ShapeDtypeStruct(xs.shape[:-1], bool),
        }
        args = (xs, *[spec] * self.carry, *(conditions[name] for name in self.given))
        if self.use == "stream":
            args = (spec, jax.ShapeDtypeStruct((b, D), jnp.float32))
        made = export.export(jax.jit(self.function()))(drawn(self.config), *args)
        return made.serialize(vjp_order=int(self.use == "gradient"))

    def batched(self, b: Any, t: Any) -> tuple[Any, ...]:
        is_batch_major = not callable(self.config) and self.config.get("time_axis") == 1
        return (b, t, D) if is_batch_major else (t, b, D)

    def arguments(self, b: int, t: int) -> tuple[Any, ...]:
        """Returns what the function takes besides the variables; for a stream, all steps of it."""
        xs = some(self.batched(b, t), seed=t)
        spec = build(self.config).carry_spec((b, D))
        carry = jax.tree.map(lambda x: some(x.shape, seed=b), spec)
        if self.use == "stream":
            return carry, xs
        rng = np.random.default_rng(t)
        conditions = {
            "seq_lengths": rng.permutation(np.linspace(t, 0, b).astype(np.int32)),
            "mask": rng.random(xs.shape[:-1]) < 0.7,
            "resets": rng.random(xs.shape[:-1]) < 0.3,
        }
        return xs, *[carry] * self.carry, *(conditions[name] for name in self.given)


CASES = {
    "gru": Case(gru(), ("seq_lengths",)),
    "lstm": Case(lstm(), carry=True),
    "scan": Case(gru(implementation="scan"), ("seq_lengths",)),
    "stack": Case(stack(lstm()), ("seq_lengths",)),
    "bidirectional": Case(both(gru()), ("seq_lengths",)),
}
STREAMS = {
    "gru step": Case(gru(), use="stream"),
    "stack step": Case(stack(lstm()), use="stream"),
}
GRADIENT = Case(gru(), ("seq_lengths",), use="gradient")
ALL = {**CASES, **STREAMS, "gradient": GRADIENT}


def run_alone(folder: Path, cases: dict[str, Case]) -> dict[str, Any]:
    """Exports the cases, and calls them in a process that has nothing but JAX.

    Returns:
      By name, pairs of the arguments and the leaves of the results, one per size.
    """
    listed, arguments = [], {}
    for name, case in cases.items():
        sizes = SIZES.get(name, (SIZE,))
        arguments[name] = [case.arguments(*size) for size in sizes]
        (folder / f"{name}.jax").write_bytes(case.exported())
        listed.append({"name": name, "use": case.use, "calls": len(sizes)})
        for number, args in enumerate(arguments[name]):
            leaves = jax.tree.leaves((drawn(case.config), args))
            np.savez(folder / f"{name}-{number}.npz", *map(np.asarray, leaves))
    (folder / "cases.json").write_text(json.dumps(listed))
    program = Path(__file__).with_name("alone.py")
    done = subprocess.run(
        [sys.executable, "-I", program, folder],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=3000,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n", "what was imported there and should not have been"

    def result(name: str, number: int) -> list[np.ndarray]:
        with np.load(folder / f"{name}-{number}-result.npz") as file:
            return [file[f"arr_{index}"] for index in range(len(file.files))]

    return {
        name: [(given, result(name, number)) for number, given in enumerate(arguments[name])]
        for name in cases
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run_alone(tmp_path_factory.mktemp("exported"), ALL)


def in_numpy(case: Case, args: tuple[Any, ...]) -> Any:
    """The carry and ys by the equations."""
    variables = drawn(case.config)
    if case.use == "stream":
        return reference.run(case.config, variables, args[1], args[0])
    xs, *rest = args
    carry = rest.pop(0) if case.carry else None
    return reference.run(case.config, variables, xs, carry, *rest)


@pytest.mark.parametrize("name", [*CASES, *STREAMS])
def test_runs_without_this_project(alone: dict[str, Any], name: str) -> None:
    for args, results in alone[name]:
        expected = in_numpy(ALL[name], args)
        assert_close(results, jax.tree.leaves(expected), 1e-5)


def gradient(case: Case, args: tuple[Any, ...]) -> Any:
    run = case.function()

    def loss(variables, xs, *rest):
        return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(run(variables, xs, *rest)))

    return jax.jit(jax.grad(loss, (0, 1)))(drawn(case.config), *args)


def test_gradient_comes_along(alone: dict[str, Any]) -> None:
    ((args, results),) = alone["gradient"]
    expected = gradient(GRADIENT, args)
    assert_close(results, jax.tree.leaves(expected), 1e-5)


@pytest.mark.parametrize("implementation", ["scan", "fused"])
def test_one_file_for_several_platforms(implementation: str) -> None:
    layer, variables = build(gru(implementation=implementation)), drawn(gru())
    b, t = export.symbolic_shape("b, t")
    xs = jax.ShapeDtypeStruct((t, b, D), jnp.float32)
    run = jax.jit(lambda xs: layer.apply(variables, None, xs))
    exported = export.export(run, platforms=("cpu", "cuda", "tpu"))(xs)
    read = export.deserialize(exported.serialize())
    assert read.platforms == ("cpu", "cuda", "tpu")
    xs = some((5, 2, D))
    assert_close(read.call(xs)[1], reference.run(gru(), variables, xs)[1], 1e-5)


GRID = {
    "elman, reversed": {"name": "scan_elman", "features": H, "reverse": True},
    "simplified gru, truncated": {
        "name": "scan_simplified_gru",
        "features": H,
        "truncate_every": 4,
    },
    "mgu, batch first": {"name": "scan_mgu", "features": H, "time_axis": 1},
    "layer norm lstm": {"name": "scan_layer_norm_lstm", "features": H},
    "wide gru": gru(features=300),
    "learned carry": lstm(learned_carry=True, projection=2),
    "checkpointed": gru(checkpoint_every=4),
    "checkpointed scan": gru(checkpoint_every=4, implementation="scan"),
    "stack": stack(both(gru()), residual=True, layer_norm=True),
    "bidirectional mul": both(lstm(), merge="mul"),
    "scanned checkpointed": lambda: ScannedGRU(features=H, checkpoint_every=4),
}
WAYS = {
    "plain": {},
    "given all": {"given": ("seq_lengths", "mask", "resets"), "carry": True},
    "gradient": {"given": ("mask", "resets"), "use": "gradient"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", GRID)
def test_every_layer_and_condition(tmp_path: Path, name: str) -> None:
    cases = {way: Case(GRID[name], **options) for way, options in WAYS.items()}
    for way, ((args, results),) in run_alone(tmp_path, cases).items():
        case = cases[way]
        if case.use == "gradient":
            expected = gradient(case, args)
        else:
            expected = jax.jit(case.function())(drawn(case.config), *args)
        assert_close(results, jax.tree.leaves(expected), 1e-4)


DROPPED = lstm(dropout_rate=0.2, recurrent_dropout_rate=0.1, zoneout_rate=0.1)
OTHER_CALLS = {
    "two batch axes": (gru(time_axis=-2), "a, b, t, 3", {}),
    "no batch axis": (lstm(), "t, 3", {}),
    "history": (gru(), "t, b, 3", {"method": "history"}),
    "dropout": (stack(DROPPED, dropout_rate=0.3), "t, b, 3", {"deterministic": False}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER_CALLS)
def test_other_calls(name: str) -> None:
    config, shape, options = OTHER_CALLS[name]
    layer, variables = build(config), drawn(config)
    rngs = {"dropout": jax.random.key(3)}

    def run(xs: jax.Array) -> Any:
        return layer.apply(variables, None, xs, rngs=rngs, **options)

    xs = jax.ShapeDtypeStruct(export.symbolic_shape(shape), jnp.float32)
    read = export.deserialize(export.export(jax.jit(run))(xs).serialize())
    sizes = {"a": 2, "b": 3, "t": 37, "3": 3}
    xs = some(tuple(sizes[name] for name in shape.split(", ")))
    assert_close(read.call(xs), jax.jit(run)(xs), 1e-5)
