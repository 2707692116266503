"""A linear recurrence over all of its channels, by the kernel or as a loop, however they are cut.

An array (T, *batch, width) is one of (T, N), and what ``vmap`` maps over are more channels. Where
N is too small to fill the card, time is cut into chunks, and a first pass finds what every chunk
does as a whole: one element. From these follows the carry that enters each of them, which is
where the second pass begins.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from zoo.recurrent.cell import Carry
from zoo.recurrent.engine.affine import Recurrence, loop, loop_back
from zoo.recurrent.engine.blocks import shift
from zoo.recurrent.engine.kernels import obstacles, target
from zoo.recurrent.engine.kernels.chunks import CHANNELS, Cut, cut
from zoo.recurrent.engine.kernels.mapped import as_features, mapped_over, of_features

Tree = Any


def forward(how: Recurrence, a: Carry, b: Carry, start: Carry) -> Carry:
    """Runs a recurrence; arguments and results are those of ``affine.loop``, in float32."""
    (h,) = _run(how, _by_kernel, lambda *own: (loop(*own),), a, b, start)
    return h


def backward(how: Recurrence, a: Carry, g: Carry, last: Carry) -> tuple[Carry, Carry]:
    """Runs cotangents; arguments and results are those of ``affine.loop_back``, in float32."""
    return _run(how, _by_kernel_back, loop_back, a, g, last)


def _run(
    how: Recurrence, by_kernel: Callable, by_loop: Callable, a: Carry, b: Carry, start: Carry
) -> Any:
    """Runs channels: a complex number's parts together, other arrays of a carry one by one."""
    shape = b[0].shape
    if len(b) > 1 and not how.complex_pair:
        each = [
            _run(how, by_kernel, by_loop, *((x,) for x in own))
            for own in zip(a, b, start, strict=True)
        ]
        return tuple(tuple(x for (x,) in own) for own in zip(*each, strict=True))
    count = math.prod(shape[1:])
    moves = a[0].ndim == len(shape)

    def flat_factor(x: jax.Array) -> jax.Array:
        if moves:
            return jnp.broadcast_to(x, shape).reshape(shape[0], count)
        return jnp.broadcast_to(x, shape[1:]).reshape(count)

    flat = (
        tuple(map(flat_factor, a)),
        tuple(x.reshape(shape[0], count) for x in b),
        tuple(x.reshape(count) for x in start),
    )

    def run(*arguments: Carry) -> Any:
        def kernel(*arguments: Carry) -> Any:
            return by_kernel(how, *arguments)

        def plain(*arguments: Carry) -> Any:
            return by_loop(dataclasses.replace(how, way="loop"), *arguments)

        return target.by_kernel(kernel, plain, target.target().interpret, *arguments)

    found = _more_channels(run)(*flat)
    return jax.tree.map(lambda x: x.reshape(*x.shape[:-1], *shape[1:]), found)


def _more_channels(run: Callable) -> Callable:
    """A run under whose ``vmap`` what is mapped over are more channels, the last axis."""
    call = jax.custom_batching.custom_vmap(run)

    @call.def_vmap
    def mapped(size: int, is_mapped: Tree, *arguments: Tree) -> tuple[Tree, Tree]:
        *_, steps, width = arguments[1][0].shape
        whole = mapped_over(size, arguments, tuple(is_mapped))
        if size * steps * width >= obstacles.MOST:
            out = jax.lax.map(lambda own: call(*own), whole)
        else:
            out = call(*jax.tree.map(as_features, whole))
            out = jax.tree.map(functools.partial(of_features, size), out)
        return out, jax.tree.map(lambda _: True, out)

    return call


def _by_kernel(how: Recurrence, a: Carry, b: Carry, start: Carry) -> tuple[Carry]:
    from zoo.recurrent.engine.kernels import mosaic_linear

    steps, width = b[0].shape
    interpret = target.target().interpret
    a, b, start, parts = _filled(how, a, b, start)
    entering = _entering(how, parts, a, b, start, added_first=False)
    h = mosaic_linear.every(how, parts, a, b, entering, interpret)
    return (_seen(how, h, steps, width),)


def _by_kernel_back(how: Recurrence, a: Carry, g: Carry, last: Carry) -> tuple[Carry, Carry]:
    from zoo.recurrent.engine.kernels import mosaic_linear

    steps, width = g[0].shape
    interpret = target.target().interpret
    factors, g, last, parts = _filled(how, a, g, last)
    entering = _entering(how, parts, factors, g, last, added_first=True)
    d = mosaic_linear.back(how, parts, factors, g, entering, interpret)
    d = _seen(how, d, steps, width)
    end = 0 if how.reverse else -1
    final = tuple(x[end] for x in d)
    factors = tuple(x[end] if x.ndim > 1 else x for x in a)
    return d, how.affine(factors, final, tuple(map(jnp.zeros_like, final)))


def _entering(
    how: Recurrence, parts: Cut, a: Carry, b: Carry, start: Carry, *, added_first: bool
) -> Carry:
    """The carry that enters each chunk, arrays (chunks, N)."""
    if parts.chunks == 1:
        return tuple(x[None] for x in start)
    from zoo.recurrent.engine.kernels import mosaic_linear

    interpret = target.target().interpret
    factors, added = mosaic_linear.totals(
        how, parts, a, b, added_first=added_first, interpret=interpret
    )
    # There are too few of them to be cut again.
    (h,) = _by_kernel(how, factors, added, start)
    return tuple(shift(x, own, how.reverse) for x, own in zip(start, h, strict=True))


def _filled(how: Recurrence, a: Carry, b: Carry, start: Carry) -> tuple[Carry, Carry, Carry, Cut]:
    """Fills tiles, with channels that nobody sees and with steps that are taken last."""
    steps, width = b[0].shape
    moves = a[0].ndim == b[0].ndim
    wider = -width % CHANNELS
    parts = cut(steps, width + wider, len(b) + (len(a) if moves else 0), len(b))
    longer = parts.steps - steps
    late = (longer, 0) if how.reverse else (0, longer)

    def fill(x: jax.Array) -> jax.Array:
        more = [late] * (x.ndim - 1) + [(0, wider)]
        return jnp.pad(x, more) if longer or wider else x

    a, b, start = (tuple(map(fill, own)) for own in (a, b, start))
    return a, b, start, parts


def _seen(how: Recurrence, arrays: Carry, steps: int, width: int) -> Carry:
    """What is left of arrays (T, N) without what filled them."""
    first = arrays[0].shape[0] - steps if how.reverse else 0
    return tuple(x[first : first + steps, :width] for x in arrays)
