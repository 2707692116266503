"""Checks of options that change how a layer is run, or what it drops."""

from typing import Any

import jax
import numpy as np

from zoo.recurrent.testing.case import Case, causal_only, inapplicable, promise
from zoo.recurrent.testing.compare import close, require, same, same_shapes

_DROPOUTS = ("dropout_rate", "recurrent_dropout_rate", "zoneout_rate")


@promise("reverse=True runs time backwards and leaves ys in the order of xs")
def check_reverse(case: Case) -> None:
    """``reverse`` against steps taken from the end, whole and with lengths."""
    causal_only(case)
    backwards = case.variant(reverse=True)
    require(backwards.layer.causal is False, "causal: expected False with reverse=True, got True.")
    carry, ys = case.run(case.start, case.host[::-1])
    got = backwards.run(case.start, case.xs, case.variables)
    close(got, (carry, ys[::-1]), "(carry, ys)")

    length = case.steps - 2
    history, ys = case.by_hand(case.start, case.host[:length][::-1])
    carry = jax.tree.map(lambda x: x[-1], history)
    expected = np.concatenate([ys[::-1], np.zeros_like(case.whole[1][length:])])
    lengths = np.full(case.batch, length, np.int32)
    got = backwards.run(case.start, case.xs, case.variables, seq_lengths=lengths)
    close(got, (carry, expected), f"(carry, ys) with seq_lengths={length}")


@promise("implementations compute the same with the same parameters")
def check_implementations(case: Case) -> None:
    """``implementation`` "scan" against the others that there are: tree, outputs and gradients."""
    if not case.supports("implementation"):
        raise inapplicable(f"{case} has no option implementation")
    plain, others = case.variant(implementation="scan"), _others(case)
    for conditions in ({}, case.conditions):
        expected = plain.gradients(case.weights, case.xs, case.variables, **conditions)
        given = f"with {', '.join(conditions) or 'no conditions'}"
        for name, other in others.items():
            found = other.gradients(case.weights, case.xs, case.variables, **conditions)
            what = f"of implementation={name!r}, against 'scan', {given}"
            close(found[0][1], expected[0][1], f"(carry, ys) {what}")
            close(found[1], expected[1], f"gradients {what}", tolerance=1e-4)


def _others(case: Case) -> dict[str, Case]:
    """The case of every implementation but "scan"; that of linear recurrences may be refused."""

    def variables(one: Case) -> Any:
        return jax.eval_shape(one.layer.init, jax.random.key(0), None, case.xs)

    expected, found = variables(case.variant(implementation="scan")), {}
    for name in ("fused", "parallel"):
        try:
            other = case.variant(implementation=name)
            shapes = variables(other)
        except ValueError as error:
            if name == "parallel" and "implementation" in str(error):
                continue
            raise
        same_shapes(shapes, expected, f"variables of implementation={name!r}, against 'scan'")
        found[name] = other
    return found


@promise("deterministic=False needs a key for dropouts and nothing else")
def check_deterministic(case: Case) -> None:
    """``deterministic`` either way leaves shapes as they are; no key is needed where it is True."""
    key = {"dropout": jax.random.key(0)}
    for deterministic, rngs in ((True, {}), (False, key)):
        got = jax.eval_shape(
            lambda variables, xs, on=deterministic, rngs=rngs: case.layer.apply(
                variables, None, xs, deterministic=on, rngs=rngs
            ),
            case.variables,
            case.xs,
        )
        same_shapes(got, case.whole, f"(carry, ys) with deterministic={deterministic}")


@promise("dropouts are off unless deterministic=False, and then follow the key")
def check_dropouts(case: Case) -> None:
    """The options ``dropout_rate``, ``recurrent_dropout_rate`` and ``zoneout_rate``, on and off."""
    known = [option for option in _DROPOUTS if case.supports(option)]
    if not known:
        raise inapplicable(f"{case} has no dropouts")
    for option in known:
        dropped = case.variant(**{option: 0.5})
        off = dropped.run(case.start, case.xs, case.variables)
        if option != "zoneout_rate":
            close(off, case.whole, f"(carry, ys) with {option}=0.5, deterministic")

        def on(key: jax.Array | None, dropped: Case = dropped) -> Any:
            return dropped.layer.apply(
                case.variables,
                case.start,
                case.xs,
                deterministic=False,
                rngs={} if key is None else {"dropout": key},
            )

        run = jax.jit(on)
        first, again, other = (run(jax.random.key(seed)) for seed in (0, 0, 1))
        what = f"ys with {option}=0.5 and deterministic=False"
        same(again, first, f"{what}, same key")
        for name, ys in (("deterministic ones", off[1]), ("those of another key", other[1])):
            require(np.any(first[1] != ys), f"{what}: expected to differ from {name}, got equal.")
        try:
            jax.eval_shape(on, None)
        except Exception as error:
            require("dropout" in str(error), f"{what}, without a key: got {error}")
        else:
            raise AssertionError(f"{what}, without a key: expected an error, got none.")
        if case.layer.causal:
            step = dropped.layer.apply(case.variables, case.start, case.host[0], method="step")
            first = dropped.run(case.start, case.host[:1], case.variables)
            close(step, (first[0], first[1][0]), f"(carry, y) of a step with {option}=0.5")
