"""Checks of the call itself: shapes, transformations, time and batch axes, streaming."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.recurrent.contract import RecurrentLayer
from zoo.recurrent.testing.case import Case, causal_only, promise
from zoo.recurrent.testing.compare import close, require, same, same_shapes


@promise("a layer is a RecurrentLayer that maps (carry, xs) to (carry, ys)")
def check_shapes(case: Case) -> None:
    """Shapes and dtypes of the carry and of ys; ``carry_spec`` and ``output_features``."""
    layer = case.layer
    require(isinstance(layer, RecurrentLayer), f"expected a RecurrentLayer, got {type(layer)}.")
    require(isinstance(layer.causal, bool), f"causal: expected a bool, got {layer.causal!r}.")
    carry, ys = case.whole
    expected = (*case.xs.shape[:-1], layer.output_features)
    require(ys.shape == expected, f"ys: expected shape {expected}, got {ys.shape}.")
    spec = layer.carry_spec(case.xs.shape[1:])
    same_shapes(carry, spec, "the last carry, against carry_spec")
    same_shapes(case.zero, spec, "the initial carry, against carry_spec")
    for leaf in jax.tree.leaves(carry):
        require(
            leaf.shape[:1] == (case.batch,),
            f"carry: expected leaves that start with the batch axes ({case.batch},), got "
            f"{leaf.shape}.",
        )


@promise("jax.eval_shape says what a run returns")
def check_eval_shape(case: Case) -> None:
    """``jax.eval_shape`` of the call against the arrays that come."""
    shapes = jax.eval_shape(case.layer.apply, case.variables, case.start, case.xs)
    same_shapes(case.whole, shapes, "(carry, ys)")


@promise("a compiled call returns what an eager one does, and None is the initial carry")
def check_jit(case: Case) -> None:
    """Under ``jax.jit`` from the initial carry, against eagerly from None."""
    close(case.run(case.zero, case.xs), case.call(None, case.xs), "(carry, ys)")


@promise("stepping through a sequence gives what one call gives")
def check_steps(case: Case) -> None:
    """``step`` in a loop, and as the body of ``jax.lax.scan``, against one call."""
    causal_only(case)
    history, ys = case.by_hand(case.start, case.host)
    last = jax.tree.map(lambda x: x[-1], history)
    close((last, ys), case.whole, "(carry, ys) of the steps")
    x = case.host[0]
    first = case.layer.apply(case.variables, None, jnp.asarray(x), method="step")
    close(first, case.step(case.zero, x), "(carry, y) of a first step from None")
    jax.eval_shape(lambda carry, xs: jax.lax.scan(case.step, carry, xs), case.start, case.xs)


@promise("parts of a sequence, each from the carry of the one before, give what one call gives")
def check_chunks(case: Case) -> None:
    """Chunks, the carry passed on, against one call."""
    causal_only(case)
    size = case.steps // 2
    carry, parts = case.start, []
    for begin in range(0, case.steps, size):
        carry, ys = case.run(carry, case.host[begin : begin + size])
        parts.append(ys)
    close((carry, np.concatenate(parts)), case.whole, "(carry, ys) of the chunks")


@promise("ys at t depend on xs up to t only")
def check_causality(case: Case) -> None:
    """Outputs before a changed input, which must stay, and after it, which must not."""
    causal_only(case)
    t = case.steps // 2
    changed = case.run(case.start, _moved(case.host, np.s_[t:]))[1]
    close(changed[:t], case.whole[1][:t], f"ys before t={t}, where xs was changed")
    moved = (changed[t] != case.whole[1][t]).any()
    require(moved, f"ys at t={t}: expected to change with xs at t={t}, got the same.")


@promise("any number of batch axes, none included, and every batch row for itself")
def check_batch_axes(case: Case) -> None:
    """No batch axis under ``jax.vmap``, two batch axes, and rows that do not feel one another."""
    apply = jax.vmap(case.layer.apply, in_axes=(None, 0, 1), out_axes=(0, 1))
    none = jax.jit(apply)(case.variables, case.start, case.xs)
    close(none, case.whole, "(carry, ys) without batch axes, under jax.vmap over the batch")

    start = jax.tree.map(lambda x: np.asarray(x)[:, None], case.start)
    carry, ys = case.run(start, case.host[:, :, None])
    got = jax.tree.map(lambda x: x[:, 0], carry), ys[:, :, 0]
    close(got, case.whole, "(carry, ys) with two batch axes")

    alone = case.run(case.start, _moved(case.host, np.s_[:, 1]))[1]
    others = np.arange(case.batch) != 1
    kept = case.whole[1][:, others]
    close(alone[:, others], kept, "ys of the other rows, when row 1 of xs was changed")


@promise("time_axis says where time is in xs, ys, masks and resets, and in nothing else")
def check_time_axis(case: Case) -> None:
    """``time_axis`` 1 and the last before features against time first, conditions included."""
    batch_major = case.variant(time_axis=1)
    carry, ys = case.run(case.start, case.xs, **case.conditions)
    given = {name: x.T if x.ndim == 2 else x for name, x in case.conditions.items()}
    got = batch_major.run(case.start, case.host.swapaxes(0, 1), case.variables, **given)
    close(got, (carry, ys.swapaxes(0, 1)), "(carry, ys) with time_axis=1")

    last_axis = -1 - len(case.features)
    inner = case.variant(time_axis=last_axis)
    start = jax.tree.map(lambda x: np.asarray(x)[:, None], case.start)
    given = {
        name: x.T[:, None] if x.ndim == 2 else x[:, None] for name, x in case.conditions.items()
    }
    xs = np.moveaxis(case.host[:, :, None], 0, last_axis)
    last, ys_inner = inner.run(start, xs, case.variables, **given)
    got = (
        jax.tree.map(lambda x: x[:, 0], last),
        np.moveaxis(ys_inner, ys_inner.ndim - 1 - case.whole[1][0, 0].ndim, 0)[:, :, 0],
    )
    close(got, (carry, ys), f"(carry, ys) with time_axis={last_axis}")


@promise("a sequence of no steps returns the carry as it is")
def check_no_steps(case: Case) -> None:
    """T=0, from None and from another carry."""
    for start, expected in ((None, case.zero), (case.start, case.start)):
        carry, ys = case.call(start, case.host[:0])
        same(carry, expected, "the carry")
        same_shapes(ys, case.whole[1][:0], "ys")


def _moved(xs: np.ndarray, where: Any) -> np.ndarray:
    xs = xs.copy()
    xs[where] += np.ones_like(xs[where])
    return xs
