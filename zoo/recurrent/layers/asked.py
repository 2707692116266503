"""What a call of a leaf layer would run, for those who ask before they call."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from zoo.recurrent.call import checks
from zoo.recurrent.call.program import Program

if TYPE_CHECKING:
    from zoo.recurrent.layers.leaf import LeafLayer


def asked(
    layer: "LeafLayer", xs: Any, history: bool = False
) -> tuple[Program, tuple[Any, ...], Any]:
    """What would be run.

    Args:
      layer: the layer.
      xs: inputs as a call gets them, or their shape and dtype.
      history: whether ``history`` or ``carries`` is called.

    Returns:
      The program, the first carry's arrays as shapes and dtypes, and xs with time first.
    """
    axis = checks.normal_axis(layer.time_axis, len(xs.shape), feature_axes=layer.feature_axes)
    one_step = (*xs.shape[:axis], *xs.shape[axis + 1 :])
    own = jax.ShapeDtypeStruct((), layer.param_dtype)
    program = layer._program(xs, own, axis, history)
    start = tuple(jax.tree.leaves(layer.carry_spec(one_step)))
    if isinstance(xs, jax.Array):
        return program, start, jnp.moveaxis(xs, axis, 0)
    return program, start, jax.ShapeDtypeStruct((xs.shape[axis], *one_step), xs.dtype)
