"""The parameters of a leaf layer: names, shapes and values as Flax's own cells have them."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers
from flax.typing import Dtype, Initializer

from zoo.recurrent.call import dtypes, parameter_checks
from zoo.recurrent.cell import Kernel


class Projection(nn.Module):
    """What one kernel owns, under its name: ``kernel``, ``bias``, ``scale``, in this order."""

    spec: Kernel
    rows: int
    kernel_init: Initializer
    bias_init: Initializer
    param_dtype: Dtype

    @nn.compact
    def __call__(self) -> dict[str, jax.Array]:
        """Declares or reads them."""
        parameter_checks.subtree(self.scope)
        width, found = (self.spec.width,), {}
        if self.spec.source != "none":
            shape, init = (*self.spec.window, self.rows, self.spec.width), self.kernel_init
            if (heads := self.spec.heads) > 1:
                shape = (heads, self.rows // heads, self.spec.width // heads)
                init = _each_by_itself(init)
            option = "kernel_init" if self.spec.source == "input" else "recurrent_kernel_init"
            found["kernel"] = self._param("kernel", option, init, shape)
        if self.spec.bias:
            found["bias"] = self._param("bias", "bias_init", self._shifted_bias, width)
        if self.spec.scale:
            found["scale"] = self._param("scale", "scale_init", initializers.ones_init(), width)
        return found

    def matrix(self) -> dict[str, jax.Array]:
        """As an engine wants them: a kernel with a window is a matrix of all its rows."""
        found = self()
        if self.spec.window:
            found["kernel"] = found["kernel"].reshape((-1, self.spec.width))
        return found

    def _param(self, name: str, option: str, init: Initializer, shape: tuple[int, ...]) -> Any:
        return parameter(self, name, option, _drawn_in_float32(init), shape, self.param_dtype)

    def _shifted_bias(self, key: jax.Array, shape: tuple[int, ...], dtype: Dtype) -> jax.Array:
        bias = parameter_checks.drawn("bias_init", self.bias_init)(key, shape, dtype)
        shift = self.spec.bias_shift
        if shift == 0:
            return bias
        return jax.tree.map(lambda x: x + jnp.asarray(shift, x.dtype), bias)


def parameter(
    module: nn.Module,
    name: str,
    option: str,
    init: Initializer,
    shape: tuple[int, ...],
    dtype: Dtype,
) -> jax.Array:
    """Declares a parameter of a module, or reads and checks the one that was given.

    Args:
      module: whose parameter it is.
      name: of the parameter.
      option: the option that ``init`` comes from, for messages.
      init: draws it where there is none yet.
      shape: which it has.
      dtype: which it gets where it is drawn.

    Raises:
      TypeError: what was given, or drawn, is no floating-point array.
      ValueError: it has another shape; or it is missing.
    """
    path = "/".join((*module.path, name))
    if not module.has_variable("params", name):
        if not module.is_mutable_collection("params"):
            raise parameter_checks.missing(path)
        return module.param(name, parameter_checks.drawn(option, init), shape, dtype)
    # Not nn.Module.param: it traces the initialiser at every eager call to learn its shape,
    # which was three quarters of the time of a small layer's call.
    value = nn.meta.unbox(module.get_variable("params", name))
    parameter_checks.check_given(path, value, shape)
    return value


def draw_carry(
    key: jax.Array | None,
    init: Initializer,
    shapes: tuple[tuple[int, ...], ...],
    kinds: tuple[Dtype, ...],
    fixed: tuple[float | None, ...],
) -> tuple[jax.Array, ...]:
    """Draws the arrays of an initial carry.

    Args:
      key: split where there are several arrays; None for an initialiser that draws nothing.
      init: draws an array.
      shapes: of the arrays.
      kinds: their dtypes.
      fixed: numbers in the place of what is drawn, None where there is none.
    """
    keys: list[Any] = [key] * len(shapes)
    if key is not None and len(shapes) > 1:
        keys = list(jax.random.split(key, len(shapes)))
    init = parameter_checks.drawn("carry_init", init)
    return tuple(
        init(k, shape, dtype) if number is None else jnp.full(shape, number, dtype)
        for k, shape, dtype, number in zip(keys, shapes, kinds, fixed, strict=True)
    )


def _each_by_itself(init: Initializer) -> Initializer:
    """Blocks (N, rows, columns) are drawn one by one, each as a matrix."""

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: Dtype) -> jax.Array:
        blocks = [init(k, shape[1:], dtype) for k in jax.random.split(key, shape[0])]
        return jax.tree.map(lambda *block: jnp.stack(block), *blocks)

    return draw


def _drawn_in_float32(init: Initializer) -> Initializer:
    """Half-precision parameters are drawn in float32: an orthogonal kernel needs a QR."""

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: Dtype) -> jax.Array:
        if not dtypes.is_half(dtype):
            return init(key, shape, dtype)
        return jax.tree.map(lambda x: x.astype(dtype), init(key, shape, jnp.float32))

    return draw
