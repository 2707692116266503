"""Checks of the carry: where it starts, what it has been, and given, drawn and learned ones."""

from typing import Any

import flax.linen as nn
import jax
import numpy as np

from zoo.recurrent.testing.case import Case, promise
from zoo.recurrent.testing.compare import close, require, same, same_shapes
from zoo.recurrent.testing.numbers import compare_gradients


@promise("initialize_carry takes one step's input shape with any batch axes")
def check_initialize_carry(case: Case) -> None:
    """Shapes and dtypes for no, one and two batch axes, and for a batch of none."""
    features = case.features
    for batch in ((), (2,), (2, 3), (0,)):
        spec = case.layer.carry_spec((*batch, *features))
        same_shapes(case.initial((*batch, *features)), spec, f"the initial carry for batch {batch}")
    row = jax.tree.map(lambda x: np.asarray(x)[0], case.zero)
    same(case.initial(features), row, "the initial carry without a batch, against a row of one")


@promise("carries() is the history of the carry, the initial one included; history() has ys too")
def check_carries(case: Case) -> None:
    """The history against the carries of a loop of steps, or at least its two ends."""

    def both(variables: Any, carry: Any, xs: jax.Array, conditions: Any) -> Any:
        apply, given = case.layer.apply, (variables, carry, xs)
        history = apply(*given, **conditions, method="carries")
        return history, apply(*given, **conditions, method="history")

    run = jax.jit(both)
    for conditions in ({}, case.conditions):
        what = f"with {', '.join(conditions) or 'no conditions'}"
        history, (again, ys) = run(case.variables, case.start, case.xs, conditions)
        last, expected = case.run(case.start, case.xs, **conditions)
        close(ys, expected, f"ys of history(), {what}")
        close(again, history, f"history(), {what}, against carries()")
        if case.layer.causal:
            stepped = case.by_hand(case.start, case.host, **conditions)[0]
            close(history, stepped, f"carries(), {what}")
        else:
            _two_ends(case, history, last, f"carries(), {what}")


@promise("a drawn initial carry follows the key: the stream carry of rngs, or initialize_carry's")
def check_random_carry(case: Case) -> None:
    """The option ``carry_init`` with a random initialiser, over keys and rows."""
    drawn: dict[str, Any] = {"carry_init": nn.initializers.normal(1.0)}
    if case.supports("learned_carry"):
        drawn["learned_carry"] = False
    random = case.variant(**drawn)
    layer, variables, shape = random.layer, case.variables, case.xs.shape[1:]

    def from_none(key: jax.Array, resets: jax.Array) -> Any:
        rngs = {"carry": key}
        start = layer.apply(variables, None, shape, method="initialize_carry", rngs=rngs)
        return start, layer.apply(variables, None, case.xs, resets=resets, rngs=rngs)

    run = jax.jit(from_none)
    keys = [jax.random.key(seed) for seed in (0, 0, 1)]
    never = np.zeros((case.steps, case.batch), bool)
    start, found = run(keys[0], never)
    same(run(keys[1], never), (start, found), "the carry and outputs of the same key")
    close(found, random.run(start, case.xs, variables), "(carry, ys) from None")
    _differ(start, run(keys[2], never)[0], "the initial carries of two keys")
    first, second = (jax.tree.map(lambda x, b=b: x[b], start) for b in (0, 1))
    _differ(first, second, "the initial carries of two batch rows")
    first, again, other = (layer.initialize_carry(key, shape) for key in keys)
    same(again, first, "initialize_carry with the same key")
    _differ(first, other, "initialize_carry with two keys")

    if case.layer.causal:
        at = case.steps // 2
        ys = run(keys[0], np.arange(case.steps)[:, None] + 0 * never == at)[1][1]
        anew = random.run(start, case.host[at:], variables)[1]
        close(ys[at:], anew, "ys from a reset on, against a start from the carry that was drawn")
    close(
        random.run(case.start, case.xs, case.variables),
        case.whole,
        "(carry, ys) from a given carry",
    )
    try:
        jax.eval_shape(lambda xs: layer.apply(variables, None, xs), case.xs)
    except ValueError as error:
        text = str(error)
        require("key" in text and "expected" in text, f"without a key: got ValueError: {text}")
    else:
        raise AssertionError("without a key: expected a ValueError that asks for one, got none.")


@promise("a learned initial carry is a parameter, which calls and resets start from")
def check_learned_carry(case: Case) -> None:
    """The option ``learned_carry``: values from None and after resets, and its gradient."""
    learned = case.variant(learned_carry=True)
    without = case.variant(learned_carry=False)
    _differ(learned.zero, without.zero, "the initial carry of random parameters, and of none")
    close(learned.call(None, case.xs), learned.run(learned.zero, case.xs), "(carry, ys) from None")
    first = np.zeros((case.steps, case.batch), bool)
    first[[0, -1]] = True
    ends = learned.run(learned.zero, case.xs, resets=first)
    close(learned.run(case.start, case.xs, resets=first), ends, "(carry, ys) after a first reset")
    compare_gradients(learned, resets=first)
    try:
        learned.layer.initialize_carry(None, case.xs.shape[1:])
    except ValueError as error:
        require("parameter" in str(error), f"initialize_carry without variables: got {error}")
    else:
        raise AssertionError("initialize_carry without variables: expected a ValueError, got none.")


def _two_ends(case: Case, history: Any, last: Any, what: str) -> None:
    """Compares the first and the last carry of a history, whichever direction time runs in."""
    for got, start, end in zip(*map(jax.tree.leaves, (history, case.start, last)), strict=True):
        require(
            got.shape[0] == case.steps + 1,
            f"{what}: expected {case.steps + 1} carries on the time axis, got {got.shape[0]}.",
        )
        ends = np.asarray(got)[[0, -1]]
        forwards = (ends[0] == np.asarray(start)).all()
        expected = np.stack([start, end] if forwards else [end, start])
        close(ends, expected, f"{what}, the two ends in time")


def _differ(first: Any, second: Any, what: str) -> None:
    """Requires that every array of the one tree differs from that of the other."""
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        require(np.any(np.asarray(a) != np.asarray(b)), f"{what}: expected to differ, got equal.")
