"""Checks of lengths, masks and resets, and that what they cut off cannot leak."""

from typing import Any

import jax
import numpy as np

from zoo.recurrent.testing.case import Case, causal_only, promise
from zoo.recurrent.testing.compare import close, require, same


@promise("intervals are the time of every step, or are refused by a layer that knows none")
def check_intervals(case: Case) -> None:
    """Ones, a loop of steps, NaN in padding, and wrong ones; or a TypeError."""
    elapsed = np.random.default_rng(9).uniform(0.1, 2.0, (case.steps, case.batch))
    elapsed = elapsed.astype(np.float32)
    if not case.layer.reads_intervals:
        _refused(case, TypeError, elapsed)
        return
    given = case.run(case.start, case.xs, intervals=np.ones_like(elapsed))
    close(given, case.whole, "(carry, ys) with intervals of 1, against none")
    carry, ys = case.run(case.start, case.xs, intervals=elapsed)
    require(not np.allclose(ys, case.whole[1]), "ys with other intervals: expected others.")
    if case.layer.causal:
        last, stepped = case.start, []
        for x, interval in zip(case.host, elapsed, strict=True):
            last, y = case.layer.apply(case.variables, last, x, interval, method="step")
            stepped.append(np.asarray(y))
        close((carry, ys), (last, np.stack(stepped)), "(carry, ys), against steps")
    lengths = np.full(case.batch, case.steps - 1, np.int32)
    holes = elapsed.copy()
    holes[-1] = np.nan
    clean, dirty = (
        case.gradients(case.weights, case.xs, seq_lengths=lengths, intervals=each)
        for each in (elapsed, holes)
    )
    close(dirty, clean, "values and gradients with NaN among the intervals of padding")
    _refused(case, ValueError, elapsed[1:])
    _refused(case, ValueError, -elapsed)
    _refused(case, TypeError, elapsed.astype(np.int32))


def _refused(case: Case, kind: type[Exception], intervals: np.ndarray) -> None:
    try:
        case.call(case.start, case.xs, intervals=intervals)
    except kind as error:
        require("intervals" in str(error), f"expected a message on intervals, got: {error}")
    else:
        raise AssertionError(f"these intervals: expected a {kind.__name__}, got none.")


@promise("steps at t >= seq_lengths are padding: ys is 0, the carry is that of the last valid step")
def check_seq_lengths(case: Case) -> None:
    """Lengths of 0, of T and between, against steps taken by hand, or against cut sequences."""
    lengths = np.full(case.batch, case.steps - 2, np.int32)
    lengths[0], lengths[2] = 0, case.steps
    carry, ys = case.run(case.start, case.xs, seq_lengths=lengths)
    same(_row(carry, 0), _row(case.start, 0), "the carry of a sequence of length 0")
    for b, length in enumerate(lengths):
        require(not np.any(ys[length:, b]), f"ys[{length}:, {b}]: expected exactly 0 in padding.")
    if case.layer.causal:
        _compare(case, seq_lengths=lengths)
        return
    size = case.steps - 2
    cut = case.run(case.start, case.host[:size])
    got = _row(carry, 1), ys[:size, 1]
    close(got, (_row(cut[0], 1), cut[1][:, 1]), f"(carry, ys), against xs cut to {size} steps")
    got = _row(carry, 2), ys[:, 2]
    close(got, (_row(case.whole[0], 2), case.whole[1][:, 2]), "(carry, ys) of length T")


@promise("a masked step is skipped: the carry passes through, ys is 0")
def check_mask(case: Case) -> None:
    """A mask, against steps taken by hand, or against sequences without the masked steps."""
    mask = np.ones((case.steps, case.batch), bool)
    for b in range(case.batch):
        mask[[b % case.steps, (b + 2) % case.steps], b] = False
    if case.layer.causal:
        _compare(case, mask=mask)
        return
    carry, ys = case.run(case.start, case.xs, mask=mask)
    require(not np.any(ys[~mask]), "ys: expected exactly 0 at masked steps.")
    rows = [np.flatnonzero(mask[:, b]) for b in range(case.batch)]
    kept = np.stack([case.host[row, b] for b, row in enumerate(rows)], axis=1)
    left = np.stack([ys[row, b] for b, row in enumerate(rows)], axis=1)
    expected = case.run(case.start, kept)
    close((carry, left), expected, "(carry, ys), against xs without the masked steps")


@promise("where resets is True, the carry is replaced by the initial one before the step is taken")
def check_resets(case: Case) -> None:
    """Resets against steps taken by hand; one at every step leaves each step alone."""
    resets = np.ones((case.steps, case.batch), bool)
    ys = case.run(case.start, case.xs, resets=resets)[1]
    alone = [case.run(case.zero, x[None])[1] for x in case.host]
    close(ys, np.concatenate(alone), "ys with a reset at every step, against each step alone")
    if case.layer.causal:
        resets = np.zeros((case.steps, case.batch), bool)
        resets[0, 1] = resets[2, 0] = resets[case.steps - 1, 2] = True
        _compare(case, resets=resets)


@promise("a skipped step ignores its reset")
def check_skipped_resets(case: Case) -> None:
    """Outputs, with and without resets on masked steps and in padding, bit for bit.

    A NaN from before such a step, in either direction of time, is not stopped by it.
    """
    conditions = case.conditions
    made = {**conditions, "resets": conditions["resets"] & ~case.skipped}
    for before in (None, 0, 2):
        xs = case.host.copy()
        if before is not None:
            xs[before, 1] = np.nan
        got, expected = (case.run(case.start, xs, **given) for given in (conditions, made))
        what = "" if before is None else f" after NaN at t={before}"
        same(got, expected, f"(carry, ys){what}, against the same without resets on skipped steps")


@promise("seq_lengths, mask and resets hold together")
def check_conditions_together(case: Case) -> None:
    """All three at once, resets on skipped steps included, against steps taken by hand."""
    causal_only(case)
    _compare(case, **case.conditions)


@promise("NaN and inf in skipped steps reach neither outputs nor gradients")
def check_padding_cannot_leak(case: Case) -> None:
    """Values and gradients with clean and with spoilt skipped steps, bit for bit."""
    _cannot_leak(case, case.skipped, case.weights, case.conditions)


@promise("NaN and inf before a reset reach neither outputs nor gradients after it")
def check_resets_stop_leaks(case: Case) -> None:
    """Values and gradients after a reset, with clean and with spoilt values before, bit for bit.

    Spoilt are inputs, and the first carry where the first step taken has a reset.
    """
    at, shape = case.steps // 2, (case.steps, case.batch)
    time = np.broadcast_to(np.arange(case.steps)[:, None], shape)
    conditions = {
        "seq_lengths": np.full(case.batch, case.steps, np.int32),
        "mask": np.ones(shape, bool),
        "resets": time == at,
    }
    carry, ys = case.weights
    if not case.layer.causal:
        carry = jax.tree.map(np.zeros_like, carry)
    after = (time >= at).reshape(shape + (1,) * (ys.ndim - 2))
    for spoilt in (time < at, time == 0):
        _cannot_leak(case, spoilt, (carry, np.where(after, ys, 0)), conditions)
    # In either direction of time.
    conditions["resets"] = (time == 0) | (time == case.steps - 1)
    _cannot_leak(case, np.zeros(shape, bool), case.weights, conditions, carry=True)


def _cannot_leak(
    case: Case,
    spoilt: np.ndarray,
    weights: Any,
    conditions: dict[str, np.ndarray],
    carry: bool = False,
) -> None:
    """Spoils steps of xs, bool (T, B), or the first carry, and compares values and gradients."""

    def results(xs: np.ndarray, start: Any) -> Any:
        (loss, outputs), gradients = case.gradients(weights, xs, carry=start, **conditions)
        read = jax.tree.map(lambda x, w: np.where(w != 0, x, 0).astype(x.dtype), outputs, weights)
        return {"loss": loss, "(carry, ys)": read, "gradients": gradients}

    clean = results(case.host, case.start)
    for bad in (np.nan, np.inf, -np.inf):
        xs, start = case.host.copy(), case.start
        xs[spoilt] = bad
        if carry:
            start = jax.tree.map(lambda x, bad=bad: np.full_like(x, bad), start)
        same(results(xs, start), clean, f"with {bad} in {'the carry' if carry else 'xs'}: ")
    _, by_carry, by_xs = clean["gradients"]
    require(not np.any(by_xs[spoilt]), "gradient by spoilt xs: expected exactly 0.")
    reached = carry and any(np.any(leaf) for leaf in jax.tree.leaves(by_carry))
    require(not reached, "gradient by a carry that is reset at once: expected exactly 0.")


def _compare(case: Case, **conditions: np.ndarray) -> None:
    history, ys = case.by_hand(case.start, case.host, **conditions)
    last = jax.tree.map(lambda x: x[-1], history)
    got = case.run(case.start, case.xs, **conditions)
    close(got, (last, ys), "(carry, ys), against steps taken by hand")
    taken = np.ones((case.steps, case.batch), bool)
    if "mask" in conditions:
        taken &= conditions["mask"]
    if "seq_lengths" in conditions:
        taken &= np.arange(case.steps)[:, None] < conditions["seq_lengths"]
    require(not np.any(got[1][~taken]), "ys: expected exactly 0 at skipped steps.")


def _row(tree: Any, b: int) -> Any:
    return jax.tree.map(lambda x: x[b], tree)
