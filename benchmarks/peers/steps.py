"""A linear recurrence as a Linen cell that ``nn.RNN`` steps through time (``nn.scan`` inside)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from benchmarks.cases import Case, Data
from benchmarks.peers import Competitor, compiled
from benchmarks.peers.equations import Equations, equations


class _Cell(nn.RNNCellBase):
    """One step of the equations."""

    equations: Equations
    num_feature_axes = 1

    @nn.compact
    def __call__(self, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        own = self.equations
        params = {
            name: self.param(name, nn.initializers.zeros, value.shape)
            for name, value in own.params.items()
        }
        a, b = own.elements(params, x)
        h = a * h + b
        return h, own.read(params, h, x)

    @nn.nowrap
    def initialize_carry(self, rng: jax.Array, input_shape: tuple[int, ...]) -> jax.Array:
        return jnp.zeros((*input_shape[:-1], self.equations.states), self.equations.dtype)


def competitors(case: Case, data: Data) -> list[Competitor]:
    """One competitor, time-major."""
    own = equations(case, data)
    cell = _Cell(own, parent=None)
    rnn = nn.RNN(cell, time_major=True)
    params = compiled.to_device(own.params, case)

    def apply(params: dict, xs: jax.Array) -> jax.Array:
        return rnn.apply({"params": {"cell": params}}, xs)

    return [
        compiled.competitor(
            "nn.scan",
            "steps",
            case,
            data,
            params=params,
            apply=apply,
            eager=lambda xs: apply(params, xs),
            step=lambda params, carry, x: cell.apply({"params": params}, carry, x),
            carry=cell.initialize_carry(jax.random.key(0), data.xs.shape[1:]),
        )
    ]
