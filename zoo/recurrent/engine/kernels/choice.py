"""Whether a call can be run by a kernel: a closed list of conditions, and which one fails."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from zoo.recurrent.cell import Carry, Cell
from zoo.recurrent.engine import forward_mode
from zoo.recurrent.engine.kernels import obstacles
from zoo.recurrent.engine.kernels.gates import CELLS, SAVED
from zoo.recurrent.engine.kernels.layout import sizes
from zoo.recurrent.engine.step import Step

if TYPE_CHECKING:
    from zoo.recurrent.engine import Engine

# Options of a cell that may have any value.
_FREE = frozenset({"features", "heads", "use_bias", "forget_bias"})

# What tensor cores do by themselves: bfloat16 as it is, float32 as TF32.
_PRECISIONS = (None, "default", "fastest", jax.lax.Precision.DEFAULT)

_SIGNALS = {
    "cut": "the gradient is truncated (truncate_every)",
    "zoneout": "zoneout is on",
    "recurrent_dropout": "recurrent dropout is on",
}


def obstacle(
    engine: "Engine",
    step: Step,
    start: Carry,
    xs: Any,
    signals: Mapping[str, Any],
    fixed: Mapping[str, Any],
) -> str | None:
    """Why a call with ``implementation="kernel"`` is run by the fused engine.

    Args:
      engine: how the layer is run.
      step: what is done at every step.
      start: the first carry, arrays (*batch, width), or their shapes and dtypes.
      xs: inputs (T, *batch, D), or their shape and dtype.
      signals: conditions of every step by name, see ``Step``.
      fixed: what is the same for every step by name, see ``Step``.

    Returns:
      The first condition that fails, in words, or None where the kernel is run.
    """
    return next(_obstacles(engine, step, start, xs, {*signals, *fixed}), None)


def equation(cell: Cell) -> str | None:
    """The name of a cell's equation, where a kernel is written for it: a key of ``CELLS``."""
    # Not by inheritance: a subclass may have another step.
    name = vars(type(cell)).get("equation", "")
    return name if name in CELLS else None


def _obstacles(
    engine: "Engine", step: Step, start: Carry, xs: Any, given: set[str]
) -> Iterator[str]:
    yield from obstacles.of_machine()
    if not forward_mode.available():
        yield "this version of JAX lacks what zoo.recurrent.unstable lists for forward mode"
    yield from _of_cell(step.cell)
    yield from _of_head(step.cell, engine.dtype)
    yield from _of_options(engine, step, [x.dtype for x in start])
    yield from (text for name, text in _SIGNALS.items() if name in given)
    if unknown := given - {"reset", "mask", "initial", *_SIGNALS}:
        yield f"steps depend on {', '.join(sorted(unknown))}"
    yield from obstacles.of_shape(xs.shape, SAVED * step.cell.features)
    yield from obstacles.of_mesh(xs, *start)


def _of_cell(cell: Cell) -> Iterator[str]:
    if equation(cell) is None:
        yield f"no kernel is written for the equation of {type(cell).__name__}"
    for field in dataclasses.fields(cell):
        value = getattr(cell, field.name)
        if field.name not in _FREE and value != field.default:
            yield f"the kernel knows the equation without {field.name}={value!r}"


def _of_head(cell: Cell, dtype: Any) -> Iterator[str]:
    if dtype not in (jnp.bfloat16, jnp.float32):
        yield f"products are in {jnp.dtype(dtype).name}, not in bfloat16 or float32"
    known = sizes(dtype)
    if cell.features not in [size * cell.heads for size in known]:
        *some, last = known
        yield (
            f"a head has to have {', '.join(map(str, some))} or {last} features in "
            f"{jnp.dtype(dtype).name}, and has {cell.features / cell.heads:g} "
            f"(features={cell.features}, heads={cell.heads})"
        )


def _of_options(engine: "Engine", step: Step, carried: list[Any]) -> Iterator[str]:
    asked = engine.precision
    if asked is None:
        asked = getattr(jax.config, "jax_default_matmul_precision", None)
    if asked not in _PRECISIONS:
        yield f"the kernel multiplies float32 as TF32, and the precision asked for is {asked}"
    if any(dtype != jnp.float32 for dtype in (step.work_dtype, *carried)):
        names = ", ".join(sorted({jnp.dtype(dtype).name for dtype in carried}))
        yield f"the kernel carries float32, and carry_dtype is {names}"
    if step.zoneout_rate:
        yield "there is zoneout"
    if engine.checkpoint_every is not None:
        yield "the kernel keeps what the backward pass needs of every step (checkpoint_every)"
    if engine.history:
        yield "the carry after every step is asked for, and the kernel returns h alone"
