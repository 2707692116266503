"""One pass over the elements of a linear recurrence inside one kernel, for Hopper.

A program takes a chunk of time for 128 channels, of which each thread has one, so that the state
stays in registers and threads exchange nothing. What it reads is copied ahead into shared memory,
tile by tile, and what it writes leaves from there.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu

from zoo.recurrent.cell import Carry
from zoo.recurrent.engine.affine import Recurrence, then
from zoo.recurrent.engine.kernels.chunks import CHANNELS, GROUP, Cut

plgpu: Any = mosaic_gpu
"""Pallas' Mosaic GPU, of whose types every version has others."""

# Tiles in shared memory at the same time: of what is read, and of what is written.
_SLOTS = 3
_OUT = 2


def every(
    how: Recurrence, cut: Cut, a: Carry, b: Carry, start: Carry, interpret: Any
) -> tuple[jax.Array, ...]:
    """The carry after every step.

    Args:
      how: see ``Recurrence``.
      cut: see ``Cut``.
      a: what multiplies the carry, float32 arrays (T, N), or (N,).
      b: what is added, float32 arrays (T, N).
      start: the carry that enters each chunk, float32 arrays (chunks, N).
      interpret: how the kernel is interpreted, or False.

    Returns:
      Arrays (T, N).
    """

    def advance(h: Carry, a: Carry, b: Carry) -> tuple[Carry, Carry]:
        h = how.affine(a, h, b)
        return h, h

    run = _call(how, cut, advance, "linear_every", a, b, start, len(b), 0, interpret)
    return tuple(run(*a, *b, *start))


def back(
    how: Recurrence, cut: Cut, a: Carry, g: Carry, last: Carry, interpret: Any
) -> tuple[jax.Array, ...]:
    """The cotangents at every step: multiplied after what they meet was added.

    Args:
      how: see ``Recurrence``.
      cut: see ``Cut``.
      a: as in ``every``.
      g: what is added, as b in ``every``.
      last: what enters each chunk, float32 arrays (chunks, N).
      interpret: as in ``every``.

    Returns:
      What is multiplied, arrays (T, N).
    """

    def advance(d: Carry, a: Carry, g: Carry) -> tuple[Carry, Carry]:
        d = tuple(map(jnp.add, d, g))
        return how.affine(a, d, tuple(map(jnp.zeros_like, d))), d

    run = _call(how, cut, advance, "linear_back", a, g, last, len(g), 0, interpret)
    return tuple(run(*a, *g, *last))


def totals(
    how: Recurrence, cut: Cut, a: Carry, b: Carry, *, added_first: bool, interpret: Any
) -> tuple[Carry, Carry]:
    """One element for each chunk, which does what all of its steps do.

    Args:
      how: see ``Recurrence``.
      cut: see ``Cut``.
      a: as in ``every``.
      b: as in ``every``.
      added_first: whether b is added before a multiplies, as in ``back``.
      interpret: as in ``every``.

    Returns:
      What multiplies the carry that enters a chunk, and what is added, arrays (chunks, N).
    """
    parts = len(b)

    def advance(state: Carry, a: Carry, b: Carry) -> tuple[Carry, Carry]:
        factor, h = state[:parts], state[parts:]
        nothing = tuple(map(jnp.zeros_like, h))
        if added_first:
            h, b = tuple(map(jnp.add, h, b)), nothing
        factor, h = then(how, (factor, h), (a, b))
        return (*factor, *h), ()

    run = _call(how, cut, advance, "linear_totals", a, b, None, 0, 2 * parts, interpret)
    out = tuple(run(*a, *b))
    return out[:parts], out[parts:]


def _call(
    how: Recurrence,
    cut: Cut,
    advance: Any,
    name: str,
    a: Carry,
    b: Carry,
    start: Carry | None,
    written: int,
    leaving: int,
    interpret: Any,
) -> Any:
    """The kernel of a step.

    Args:
      how: see ``Recurrence``.
      cut: see ``Cut``.
      advance: from a state, a and b to the next state and what is written of the step.
      name: of the kernel.
      a: as in ``every``.
      b: as in ``every``.
      start: the state that enters each chunk, or None for the element (1, 0).
      written: arrays that are written at every step.
      leaving: arrays of the state, where it is written when it leaves a chunk, or 0.
      interpret: as in ``every``.
    """
    steps, width = b[0].shape
    rows, moves = cut.rows, a[0].ndim == b[0].ndim
    read = len(b) + (len(a) if moves else 0)

    def body(*refs: Any) -> None:
        constants, sources, entering, targets, leaves, inside, outside, here = _apart(
            refs,
            *(0 if moves else len(a), read, len(start or ()), written, leaving, read, written, 1),
        )
        (here,) = here
        place = lax.axis_index("chunk")
        mine = pl.ds(lax.axis_index("channels") * CHANNELS, CHANNELS)
        first = place * cut.each
        count = jnp.minimum(cut.each, cut.tiles - first)

        def steps_of(n: Any) -> Any:
            """The steps of the tile that is visited as the n-th."""
            return pl.ds((first + (count - 1 - n if how.reverse else n)) * rows, rows)

        def read_ahead(n: Any, slot: Any) -> None:
            for source, ref in zip(sources, inside, strict=True):
                part = source.at[steps_of(n), mine]
                plgpu.copy_gmem_to_smem(part, ref.at[slot], here.at[slot])

        for s in range(_SLOTS):
            pl.when(s < count)(lambda s=s: read_ahead(s, s))
        fixed = tuple(_load(ref.at[mine]) for ref in constants)
        state = _first(how, len(b), tuple(_load(ref.at[place, mine]) for ref in entering))

        def visit(n: Any, state: Carry) -> Carry:
            slot, out = lax.rem(n, _SLOTS), lax.rem(n, _OUT)
            plgpu.barrier_wait(here.at[slot])
            if written:
                # The copies of the tile before the last have read what is written over here.
                plgpu.wait_smem_to_gmem(_OUT - 1, wait_read_only=True)

            def group(k: Any, state: Carry) -> Carry:
                begin = (rows - GROUP * (k + 1)) if how.reverse else GROUP * k
                order = [begin + r for r in range(GROUP)[:: -1 if how.reverse else 1]]
                # All loads come before all stores, which the compiler would not pass them by.
                loaded = [tuple(_load(ref.at[slot, r]) for ref in inside) for r in order]
                made = []
                for own in loaded:
                    factors, added = own[: -len(b)], own[-len(b) :]
                    state, of_step = advance(state, factors if moves else fixed, added)
                    made.append(of_step)
                for r, of_step in zip(order, made, strict=True):
                    for ref, x in zip(outside, of_step, strict=True):
                        ref[out, r] = x
                return state

            state = lax.fori_loop(0, rows // GROUP, group, state)
            # All threads have read the slot, and written, when they are here.
            plgpu.commit_smem()
            for ref, target in zip(outside, targets, strict=True):
                part = target.at[steps_of(n), mine]
                plgpu.copy_smem_to_gmem(ref.at[out], part, commit_group=False)
            if written:
                plgpu.commit_smem_to_gmem_group()
            pl.when(n + _SLOTS < count)(lambda: read_ahead(n + _SLOTS, slot))
            return state

        state = lax.fori_loop(0, count, visit, state)
        for ref, x in zip(leaves, state[: len(leaves)], strict=True):
            ref[place, mine] = x
        if written:
            plgpu.wait_smem_to_gmem(0)

    whole = jax.ShapeDtypeStruct((steps, width), jnp.float32)
    of_chunk = jax.ShapeDtypeStruct((cut.chunks, width), jnp.float32)
    return plgpu.kernel(
        body,
        out_type=(whole,) * written + (of_chunk,) * leaving,
        scratch_types=(
            *(plgpu.SMEM((_SLOTS, rows, CHANNELS), jnp.float32),) * read,
            *(plgpu.SMEM((_OUT, rows, CHANNELS), jnp.float32),) * written,
            plgpu.Barrier(num_arrivals=read, num_barriers=_SLOTS),
        ),
        grid=(cut.chunks, width // CHANNELS),
        grid_names=("chunk", "channels"),
        interpret=interpret,
        kernel_name=name,
        compiler_params=plgpu.CompilerParams(
            # The compiler would put a barrier around every access of shared memory. None is needed:
            # a thread writes its own channel and reads what a copy brought, for which it waits; and
            # between its reads of a slot and the next copy into it, all threads meet once per tile.
            unsafe_no_auto_barriers=True,
            lowering_semantics=plgpu.LoweringSemantics.Warpgroup,
        ),
    )


def _load(ref: Any) -> jax.Array:
    return plgpu.load(ref, layout=plgpu.Layout.WG_STRIDED((CHANNELS,), vec_size=1))


def _first(how: Recurrence, parts: int, entering: Carry) -> Carry:
    """What enters a chunk: that, or the element that changes nothing."""
    if entering:
        return entering

    def filled(x: float) -> jax.Array:
        layout = plgpu.Layout.WG_STRIDED((CHANNELS,), vec_size=1)
        return plgpu.layout_cast(jnp.full((CHANNELS,), x, jnp.float32), layout)

    factor = (filled(1.0), filled(0.0)) if how.complex_pair else (filled(1.0),) * parts
    return (*factor, *(filled(0.0) for _ in range(parts)))


def _apart(refs: tuple[Any, ...], *counts: int) -> list[tuple[Any, ...]]:
    """Cuts a list into lists of so many."""
    found, at = [], 0
    for count in counts:
        found.append(refs[at : at + count])
        at += count
    return found
