"""The parameters of a leaf layer: names, shapes and values as Flax's own cells have them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers
from flax.typing import Dtype, Initializer

from zoo.recurrent import checks, dtypes
from zoo.recurrent.cells import Kernel


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
        width, found = (self.spec.width,), {}
        if self.spec.source != "none":
            shape = (self.rows, self.spec.width)
            found["kernel"] = self._param("kernel", self.kernel_init, shape)
        if self.spec.bias:
            found["bias"] = self._param("bias", self._shifted_bias, width)
        if self.spec.scale:
            found["scale"] = self._param("scale", initializers.ones_init(), width)
        return found

    def _param(self, name: str, init: Initializer, shape: tuple[int, ...]) -> jax.Array:
        if not self.has_variable("params", name):
            return self.param(name, _drawn_in_float32(init), shape, self.param_dtype)
        # Not nn.Module.param: it traces the initialiser at every eager call to learn its shape,
        # which was three quarters of the time of a small layer's call.
        value = nn.meta.unbox(self.get_variable("params", name))
        checks.parameter("/".join((*self.path, name)), value, shape)
        return value

    def _shifted_bias(self, key: jax.Array, shape: tuple[int, ...], dtype: Dtype) -> jax.Array:
        bias = self.bias_init(key, shape, dtype)
        shift = self.spec.bias_shift
        return jax.tree.map(lambda x: x + jnp.asarray(shift, x.dtype), bias) if shift else bias


def _drawn_in_float32(init: Initializer) -> Initializer:
    """Half-precision parameters are drawn in float32: an orthogonal kernel needs a QR."""

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: Dtype) -> jax.Array:
        if not dtypes.is_half(dtype):
            return init(key, shape, dtype)
        return jax.tree.map(lambda x: x.astype(dtype), init(key, shape, jnp.float32))

    return draw
