"""Tiles of a recurrence on Hopper, in Pallas' Mosaic GPU: what both directions are made of.

A program holds one head and a few rows of the batch, and takes all their steps. The recurrent
kernel stays in registers or shared memory, the state in registers. Products are made transposed
(features times rows): a tensor core takes 64 rows of its left operand at the least, and features
fill them, while the batch can be cut as fine as 8 and so be spread over the card. A warpgroup owns
64 features of every gate, so that the gates' arithmetic needs no exchange; the new h goes through
shared memory, from where the next product and the copy to global memory both read it.

Arrays of all gates are interleaved: the gates of a block of 64 features lie together, so that what
a warpgroup reads or writes of a step is one copy. See ``layout.interleave``.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import mosaic_gpu

from zoo.recurrent.engine.kernels.layout import BLOCK, Shape

plgpu: Any = mosaic_gpu
"""Pallas' Mosaic GPU, of whose types every version has others."""

SHARED_BYTES = 227 * 1024 - 4096
"""Shared memory that a program may use on Hopper, less room for barriers and alignment."""

SLOTS = 4
"""Steps read ahead, at most."""


def call(shape: Shape, body: Any, name: str, out: Any, scratch: Any, tiles: int) -> Any:
    """The kernel of a body, for so many tiles of rows."""
    return plgpu.kernel(
        body,
        out_type=out,
        scratch_types=scratch,
        grid=(tiles, shape.heads),
        grid_names=("tile", "head"),
        cluster=(shape.cluster,),
        cluster_names=("part",),
        num_threads=shape.groups,
        thread_name="group",
        interpret=shape.interpret,
        kernel_name=name,
        compiler_params=plgpu.CompilerParams(
            # The error of approximate functions is that of bfloat16.
            approx_math=jnp.dtype(shape.dtype).itemsize == 2,
            # The compiler would put a barrier around every access of shared memory. None is needed:
            # a thread reads there what copies brought, or thread blocks sent, for which it waits;
            # and between its reads and the next copy to the same place it commits its writes.
            unsafe_no_auto_barriers=True,
            lowering_semantics=plgpu.LoweringSemantics.Warpgroup,
        ),
    )


def buffer(dtype: Any, *shape: int) -> Any:
    """Shared memory that tensor cores can read; the last two dimensions are rows, features."""
    width = 128 // jnp.dtype(dtype).itemsize
    transforms = (plgpu.TilingTransform((8, width)), plgpu.SwizzleTransform(128))
    return plgpu.SMEM(shape, dtype, transforms=transforms)


def operands(shape: Shape, refs: Any, count: int) -> list[Any]:
    """The left operands of a step's products: parts of the recurrent kernel, (count, ...).

    From registers, a step does not read them from shared memory: forward and backward took 0.5 to
    1.0 of the time. Registers have room for two; they hold 16-bit operands, and the interpreter
    knows none.
    """
    parts = [refs.at[i] for i in range(count)]
    if shape.interpret or jnp.dtype(shape.dtype).itemsize != 2:
        return parts
    return [plgpu.load(x, layout=plgpu.Layout.WGMMA) for x in parts[:2]] + parts[2:]


def ahead(dtype: Any, steps: int, resident: Any, per_step: int) -> int:
    """Steps that can be read ahead, beside what is resident, with so many elements per step."""
    # Barriers, which have no shape, are in the room that is left for them.
    buffers = [x for x in jax.tree.leaves(resident) if hasattr(x, "shape")]
    taken = sum(math.prod(x.shape) * jnp.dtype(x.dtype).itemsize for x in buffers)
    slots = min(SLOTS, steps, (SHARED_BYTES - taken) // (per_step * jnp.dtype(dtype).itemsize))
    assert slots >= 1, "choice.obstacle let through what does not fit in shared memory"
    return slots


def load_tile(ref: Any) -> jax.Array:
    """Reads (features, rows) from global memory, as a tensor core's result lies in registers."""
    return plgpu.load(ref, layout=plgpu.Layout.WGMMA, optimized=False)


def load_column(ref: Any, rows: int) -> jax.Array:
    """Reads (features,) from global memory, the same for all rows."""
    x = plgpu.load(ref, layout=plgpu.Layout.WGMMA.reduce(1), optimized=False)
    return lax.broadcast_in_dim(x, (len(x), rows), (0,))


def store_tile(ref: Any, x: jax.Array) -> None:
    """Writes (features, rows) to global memory, where eight rows do not fill a cache line."""
    store = getattr(plgpu, "store", None)
    if store is None:  # Before 0.12, a store is of whole lines where it can be, without being told.
        ref[...] = x
    else:
        store(ref, x, optimized=False)


def load_transposed(ref: Any, count: int) -> tuple[jax.Array, ...]:
    """Reads (rows, features) from shared memory as so many float32 (features, rows)."""
    x = plgpu.load(ref.T, layout=plgpu.Layout.WGMMA_TRANSPOSED)
    return split(plgpu.layout_cast(x, plgpu.Layout.WGMMA).astype(jnp.float32), count)


def load_code(shape: Shape, code: Any, t: Any, tile: Any) -> jax.Array:
    """Reads the codes of a step's rows, for the head of this program."""
    own = lax.div(lax.axis_index("head"), shape.heads // code.shape[1])
    return plgpu.load(code.at[t, own, tile], layout=plgpu.Layout.WGMMA.reduce(0), optimized=False)


def transposed(x: jax.Array) -> jax.Array:
    """Lays a tile out as it is to be written into (rows, features)."""
    return plgpu.layout_cast(x, plgpu.Layout.WGMMA_TRANSPOSED)


def split(x: jax.Array, count: int) -> tuple[jax.Array, ...]:
    """Cuts features into blocks."""
    return tuple(x[i * BLOCK : (i + 1) * BLOCK] for i in range(count))


def add_last(whole: Any, part: Any) -> tuple[jax.Array, ...]:
    """Adds arrays to the last ones of others."""
    rest = len(whole) - len(part)
    return (*whole[:rest], *(a + b for a, b in zip(whole[rest:], part, strict=True)))


def choose(condition: Any, yes: Any, no: Any) -> Any:
    """Selects between two tuples of arrays."""
    return tuple(jnp.where(condition, a, b) for a, b in zip(yes, no, strict=True))


def copy_out(source: Any, target: Any) -> None:
    """Copies to global memory; all copies of a step are committed as one group."""
    plgpu.copy_smem_to_gmem(source, target, commit_group=False)
