"""A layer above the first one of a stack, with what lies between it and the one below."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.recurrent.call import conditions, dtypes
from zoo.recurrent.call.conditions import Conditions
from zoo.recurrent.call.program import drop
from zoo.recurrent.composites.composition import LayerLike, build_inner, call_inner
from zoo.recurrent.contract import Carry


class Upper(nn.Module):
    """A recurrent layer, and what happens to the outputs of the one below before it reads them.

    Attributes:
      layer: the configuration of the layer.
      dropout_rate: of the outputs below.
      residual: adds the outputs below to its own.
      layer_norm: normalises the outputs below, before dropout.
      skip: puts the inputs of the whole stack beside the outputs below.
      time_axis: where time is.
      reverse: whether time runs backwards.
    """

    layer: LayerLike
    dropout_rate: float
    residual: bool
    layer_norm: bool
    skip: bool
    time_axis: int
    reverse: bool

    def setup(self) -> None:
        """Builds the layer; its parameters lie where this module is."""
        self.inner = build_inner(self.layer, time_axis=self.time_axis, reverse=self.reverse)
        nn.share_scope(self, self.inner)
        if self.layer_norm:
            self.norm = nn.LayerNorm()

    def run(
        self,
        method: str,
        carry: Carry | None,
        below: jax.Array,
        xs: jax.Array,
        given: Conditions,
    ) -> tuple[Carry, jax.Array]:
        """Calls a method ``(carry, xs) -> (carry, ys)`` of the layer.

        Args:
          method: "__call__", "history" or "step".
          carry: the layer's carry, or None.
          below: outputs of the layer below.
          xs: inputs of the stack.
          given: the conditions of the call.
        """
        inputs = self._between(below, given.deterministic)
        if self.skip:
            inputs = side_by_side(xs, inputs)
        carry, ys = call_inner(self.inner, method, carry, inputs, given)
        return carry, ys + below if self.residual else ys

    def initialize_carry(self, rng: jax.Array | None, input_shape: tuple[int, ...]) -> Carry:
        """Returns the layer's initial carry."""
        return self.inner.initialize_carry(rng, input_shape)

    def _between(self, below: jax.Array, deterministic: bool | None) -> jax.Array:
        xs = below
        if self.layer_norm:
            # Its parameters are float32 whatever the layers compute in.
            with jax.numpy_dtype_promotion("standard"):
                xs = conditions.skipping_nan(self.norm, below).astype(below.dtype)
        if deterministic or not self.dropout_rate:
            return xs
        return drop(self.make_rng("dropout"), self.dropout_rate, xs)


def side_by_side(*rows: jax.Array) -> jax.Array:
    """Concatenates arrays along their last axis, in their common dtype."""
    dtype = dtypes.promote(*(x.dtype for x in rows))
    return jnp.concatenate([x.astype(dtype) for x in rows], axis=-1)
