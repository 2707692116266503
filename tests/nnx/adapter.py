"""The NNX form of a layer behind the interface of Linen, for the conformance kit."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
from flax import nnx

from zoo.recurrent import RecurrentLayer
from zoo.recurrent.nnx import Recurrent
from zoo.recurrent.nnx.state import boxed


class AsLinen(RecurrentLayer):
    """Initialises and calls an NNX module for every ``init`` and ``apply``.

    Attributes:
      layer: the Linen layer inside.
      in_features: one step's inputs: what the module is made for.
    """

    layer: RecurrentLayer
    in_features: jax.ShapeDtypeStruct

    causal = property(lambda self: self.layer.causal)
    feature_axes = property(lambda self: self.layer.feature_axes)
    output_features = property(lambda self: self.layer.output_features)
    reads_intervals = property(lambda self: self.layer.reads_intervals)

    @nn.nowrap
    def carry_spec(self, input_shape: tuple[int, ...]) -> Any:
        return self._module().carry_spec(input_shape)

    @nn.nowrap
    def describe(self, input_shape: tuple[int, ...]) -> str:
        return self._module().describe(input_shape)

    @nn.nowrap
    def initialize_carry(self, rng: Any, input_shape: tuple[int, ...]) -> Any:
        return self.layer.initialize_carry(rng, input_shape)

    @nn.nowrap
    def _module(self) -> Recurrent:
        return Recurrent(self.layer, self.in_features, rngs=nnx.Rngs(0))

    @nn.nowrap
    def init(self, rngs: Any, carry: Any, xs: Any, **conditions: Any) -> Any:
        module = Recurrent(self.layer, self.in_features, rngs=rngs)
        return boxed(module, module.definition.paths)

    @nn.nowrap
    def apply(
        self,
        variables: Any,
        *args: Any,
        rngs: Any = None,
        method: str = "__call__",
        deterministic: bool = True,
        **conditions: Any,
    ) -> Any:
        module = Recurrent(self.layer, self.in_features, variables=variables)
        if method in ("__call__", "carries", "history"):
            conditions["deterministic"] = deterministic
        return getattr(module, method)(*args, rngs=nnx.Rngs(rngs) if rngs else None, **conditions)


def adapted(build: Any, xs: jax.Array) -> Any:
    """Makes a function that builds the adapter of what ``build`` builds; and its options."""
    one_step = jax.ShapeDtypeStruct(xs.shape[1:], xs.dtype)

    def build_adapted(**options: Any) -> AsLinen:
        return AsLinen(build(**options), one_step)

    return build_adapted, frozenset(f.name for f in dataclasses.fields(build()) if f.init)
