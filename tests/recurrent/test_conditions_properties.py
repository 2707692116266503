"""Drawn layers and drawn data against the NumPy loop: axes, lengths, masks, resets, NaN.

A program (layer, shapes, what is called, which conditions are given) is compiled once and meets
many data.
"""

import contextlib
import dataclasses
import functools
import itertools
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from . import reference
from .layers import LEAVES, Leaf, variables_of

CONDITIONS = ("seq_lengths", "mask", "resets")
MODES = ("call", "call", "history", "chunks", "gradients")
TOLERANCES = {"float64": 1e-10, "float32": 1e-5, "float16": 0.01, "bfloat16": 0.08}


@dataclasses.dataclass(frozen=True)
class Program:
    """What is compiled once."""

    leaf: str
    mode: str
    steps: int
    batch: tuple[int, ...]
    inputs: int
    features: int
    time_axis: int
    dtype: str
    from_none: bool
    given: tuple[str, ...]
    options: tuple[tuple[str, Any], ...]

    @property
    def own(self) -> Leaf:
        return LEAVES[self.leaf]

    @functools.cached_property
    def layer(self) -> Any:
        options = dict(self.options)
        if "projection" in self.own.options:
            options["projection"] = max(1, self.features - 1)
        if self.dtype == "float64":
            options |= {"param_dtype": jnp.float64, "carry_dtype": jnp.float64}
        elif self.dtype != "float32":
            options["dtype"] = self.dtype
        return self.own.build(features=self.features, time_axis=self.time_axis, **options)

    @property
    def axis(self) -> int:
        """Where time is, counted from the front."""
        return self.time_axis % (len(self.batch) + 2)

    @property
    def work_dtype(self) -> Any:
        """Of inputs, parameters and carries."""
        return np.float64 if self.dtype == "float64" else np.float32

    @functools.cached_property
    def variables(self) -> Any:
        shape = (*self.batch[: self.axis], self.steps, *self.batch[self.axis :], self.inputs)
        drawn = variables_of(self.layer, jnp.zeros(shape, self.work_dtype))
        if "initial_n" in (params := drawn["params"]):
            # An sLSTM divides by it.
            drawn = {"params": params | {"initial_n": 1 + jnp.abs(params["initial_n"])}}
        return drawn

    @functools.cached_property
    def run(self) -> Any:
        """Compiled: (variables, start, xs, conditions, weights) to what the mode returns."""
        return jax.jit(getattr(self, f"_{self.mode}"))

    def _call(self, variables: Any, start: Any, xs: Any, given: Any, weights: Any) -> Any:
        return self.layer.apply(variables, start, xs, **given)

    def _history(self, variables: Any, start: Any, xs: Any, given: Any, weights: Any) -> Any:
        return self.layer.apply(variables, start, xs, **given, method="history")

    def _chunks(self, variables: Any, start: Any, xs: Any, given: Any, weights: Any) -> Any:
        """In three chunks, the middle one of which may have no steps."""
        cuts = (0, self.steps // 2, (self.steps + 1) // 2, self.steps)
        parts = []
        for begin, end in itertools.pairwise(cuts):
            here = {
                name: x - begin
                if name == "seq_lengths"
                else jax.lax.slice_in_dim(x, begin, end, axis=self.axis)
                for name, x in given.items()
            }
            part = jax.lax.slice_in_dim(xs, begin, end, axis=self.axis)
            start, ys = self.layer.apply(variables, start, part, **here)
            parts.append(ys)
        return start, jnp.concatenate(parts, self.axis)

    def _gradients(self, variables: Any, start: Any, xs: Any, given: Any, weights: Any) -> Any:
        def loss(variables: Any, start: Any, xs: Any) -> Any:
            carry, ys = self.layer.apply(variables, start, xs, **given)
            pairs = zip(jax.tree.leaves((carry, ys)), weights, strict=True)
            return sum(jnp.sum(x * w) for x, w in pairs), (carry, ys)

        differentiate = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)
        (_, outputs), gradients = differentiate(variables, start, xs)
        return outputs, gradients


def program_of(seed: int) -> Program:
    """One program out of all that there could be."""
    random = np.random.default_rng(seed)

    def pick(*choices: Any) -> Any:
        return choices[random.integers(len(choices))]

    leaf, batch = list(LEAVES)[seed // 2 % len(LEAVES)], pick(*BATCHES)
    # In every round over the layers, each of them comes in another mode.
    turn = seed + seed // (2 * len(LEAVES))
    mode = MODES[turn % len(MODES)]
    known = LEAVES[leaf].implementations
    options = {
        "implementation": known[turn % len(known)],
        "reverse": mode != "chunks" and pick(False, True),
        "checkpoint_every": pick(None, None, 1, 3, 50),
        "truncate_every": None if mode == "gradients" else pick(None, 2),
        "learned_carry": pick(False, True),
        "zoneout_rate": pick(0.0, 0.0, 0.3),
    }
    dtype, features = pick("float32", "float32", "float64", "bfloat16", "float16"), pick(2, 5)
    if mode == "gradients":
        dtype = "float64"
    if "norm" in leaf:
        # Of two numbers only the sign is left when they are normalised.
        features = 5
        dtype = dtype if dtype == "float64" else "float32"
    # Heads divide the features.
    features += features % LEAVES[leaf].options.get("heads", 1)
    if leaf == "slstm" and dtype not in ("float32", "float64"):
        # What is rounded in sixteen bits is an exponent there.
        dtype = "float32"
    return Program(
        leaf=leaf,
        mode=mode,
        steps=pick(1, 4, 4, 9, 9),
        batch=batch,
        inputs=pick(1, 3),
        features=features,
        time_axis=pick(0, 0, 1, -2) if batch else 0,
        dtype=dtype,
        from_none=pick(False, False, True),
        given=tuple(name for name in CONDITIONS if random.random() < 0.6),
        options=tuple(options.items()),
    )


# So many that every layer comes in every mode.
MANY = 240

BATCHES = ((), (1,), (3,), (2, 2), (2, 1, 2))


@functools.cache
def programs(count: int) -> list[Program]:
    return [program_of(seed) for seed in range(count)]


@st.composite
def conditions_of(draw: st.DrawFn, program: Program) -> dict[str, np.ndarray]:
    """Values for the conditions that the program takes, time first."""
    per_step = (program.steps, *program.batch)
    found = {}
    for name in program.given:
        if name == "seq_lengths":
            lengths = st.integers(0, program.steps)
            found[name] = draw(arrays(np.int32, program.batch, elements=lengths))
        else:
            found[name] = draw(arrays(bool, per_step, elements=st.booleans()))
    return found


def taken_steps(program: Program, conditions: dict[str, np.ndarray]) -> np.ndarray:
    taken = np.ones((program.steps, *program.batch), bool)
    if "seq_lengths" in conditions:
        time = np.arange(program.steps).reshape((-1,) + (1,) * len(program.batch))
        taken &= time < conditions["seq_lengths"]
    if "mask" in conditions:
        taken &= conditions["mask"]
    return taken


def check(program: Program, data: st.DataObject) -> None:
    gradients = program.mode == "gradients"
    conditions = data.draw(conditions_of(program), label="conditions")
    random = np.random.default_rng(data.draw(st.integers(0, 2**16), label="seed"))
    # Where inputs are all the same, a norm bends too much for finite differences.
    scale = data.draw(st.sampled_from([1.0, 3.0] if gradients else [0.0, 1.0, 3.0]), label="scale")
    spoilt = data.draw(st.booleans(), label="NaN and inf in skipped steps")
    nans = 0 if gradients else data.draw(st.sampled_from([0, 0, 1, 2]), label="NaN in taken steps")
    xs = scale * random.standard_normal((program.steps, *program.batch, program.inputs))
    xs = xs.astype(program.work_dtype)
    taken = taken_steps(program, conditions)
    if spoilt:
        xs[~taken] = random.choice([np.nan, np.inf, -np.inf])
    for place in np.argwhere(taken)[random.permutation(int(taken.sum()))[:nans]]:
        xs[(*place, 0)] = np.nan
    with jax.enable_x64(True) if program.dtype == "float64" else contextlib.nullcontext():
        compare(program, conditions, xs, taken, random)


def compare(
    program: Program,
    conditions: dict[str, np.ndarray],
    xs: np.ndarray,
    taken: np.ndarray,
    random: np.random.Generator,
) -> None:
    layer, variables = program.layer, program.variables
    options = dict(program.options)
    spec = jax.tree.leaves(layer.carry_spec((*program.batch, program.inputs)))
    start = None
    if not program.from_none:
        start = tuple(random.standard_normal(x.shape).astype(program.work_dtype) for x in spec)
        if len(start) == 4:
            start = (start[0], 1 + np.abs(start[1]), *start[2:])

    def by_hand(variables: Any, start: Any, xs: np.ndarray) -> reference.Run:
        params = variables["params"]
        initial = reference.resting(tuple(np.zeros(x.shape) for x in spec))
        if options["learned_carry"]:
            learned = [params[f"initial_{name}"] for name in layer.cell.carry_names]
            initial = tuple(np.broadcast_to(x, s.shape) for x, s in zip(learned, spec, strict=True))
        return reference.run(
            program.own.step,
            {k: v for k, v in params.items() if not k.startswith("initial_")},
            xs,
            initial if start is None else start,
            initial=initial,
            reverse=options["reverse"],
            zoneout=options["zoneout_rate"],
            **conditions,
        )

    given = {
        name: x if name == "seq_lengths" else np.moveaxis(x, 0, program.axis)
        for name, x in conditions.items()
    }
    wanted = by_hand(variables, start, xs)
    # What stands for minus infinity would hide everything else in a sum.
    weights = [random.uniform(0.5, 1.5, x.shape) * (np.abs(x) < 1e6) for x in wanted.carry]
    weights.append(random.uniform(0.5, 1.5, wanted.ys.shape))
    carry = start if start is None or len(start) > 1 else start[0]
    placed = [*weights[:-1], np.moveaxis(weights[-1], 0, program.axis)]
    if program.mode != "gradients":
        placed = None
    got = program.run(variables, carry, np.moveaxis(xs, 0, program.axis), given, placed)
    if program.mode == "gradients":
        got, gradients = got
        direction = jax.tree.map(
            lambda x: random.standard_normal(np.shape(x)), (variables, start, xs)
        )

        def loss(size: float) -> float:
            point = jax.tree.map(lambda x, d: x + size * d, (variables, start, xs), direction)
            run = by_hand(*point)
            return sum(np.sum(x * w) for x, w in zip((*run.carry, run.ys), weights, strict=True))

        slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
        by_variables, by_start, by_xs = jax.tree.map(np.asarray, gradients)
        by_xs = np.moveaxis(by_xs, program.axis, 0)
        assert not np.any(by_xs[~taken])
        own = jax.tree.leaves((by_variables, by_start, by_xs))
        products = [np.sum(g * d) for g, d in zip(own, jax.tree.leaves(direction), strict=True)]
        size = np.sqrt(sum(np.sum(g**2) for g in own))
        np.testing.assert_allclose(sum(products), slope, rtol=1e-5, atol=1e-5 * (1 + size))

    carry, ys = got
    carry = jax.tree.leaves(carry)
    tolerance = TOLERANCES[program.dtype]
    assert ys.dtype == jnp.dtype(program.dtype)
    ys = np.moveaxis(np.asarray(ys, np.float64), program.axis, 0)
    np.testing.assert_allclose(ys, wanted.ys, rtol=tolerance, atol=tolerance)
    assert not np.any(ys[~taken])
    expected = list(wanted.carry)
    if program.mode == "history":
        first = wanted.start
        after = wanted.history
        parts = [*after, first] if options["reverse"] else [first, *after]
        expected = [np.stack(leaves) for leaves in zip(*parts, strict=True)]
        carry = [np.moveaxis(x, program.axis, 0) for x in carry]
    for own, by_loop in zip(carry, expected, strict=True):
        assert own.dtype == program.work_dtype
        np.testing.assert_allclose(own, by_loop, rtol=tolerance, atol=tolerance)


def run_cases(of: list[Program], each: int) -> None:
    """Draws and compares so many cases of each program, and counts what was really run."""
    executed = sum(executed_cases(program, each) for program in of)
    print(f"{executed} drawn cases of {len(of)} programs")
    assert executed >= 0.9 * each * len(of)


def executed_cases(program: Program, count: int) -> int:
    executed = 0

    @hypothesis.settings(max_examples=count, deadline=None)
    @hypothesis.given(data=st.data())
    def compare_one(data: st.DataObject) -> None:
        nonlocal executed
        hypothesis.note(str(program))
        check(program, data)
        executed += 1

    compare_one()
    return executed


def test_some_drawn_cases():
    run_cases(programs(16), each=5)


@pytest.mark.slow
def test_many_drawn_cases():
    run_cases(programs(MANY), each=10)


def test_the_programs_cover_everything():
    seen = [dataclasses.asdict(p) | dict(p.options) for p in programs(MANY)]
    for name, choices in {
        "leaf": LEAVES,
        "mode": MODES,
        "batch": BATCHES,
        "time_axis": (0, 1, -2),
        "dtype": TOLERANCES,
        "implementation": ("fused", "scan", "parallel"),
        "reverse": (False, True),
        "checkpoint_every": (None, 1, 3, 50),
        "truncate_every": (None, 2),
        "learned_carry": (False, True),
        "given": [(), CONDITIONS],
    }.items():
        assert set(choices) <= {case[name] for case in seen}
    gradients = {
        (p.leaf, dict(p.options)["implementation"]) for p in programs(MANY) if p.mode == "gradients"
    }
    assert len({leaf for leaf, _ in gradients}) == len(LEAVES)
