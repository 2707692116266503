"""Linear recurrences in their shortest form, for the peers that only differ in how they run them.

Projections of the same array are one product, and parameters are held the way that product reads
them.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import Case, Data
from benchmarks.peers import ours

Params = dict[str, jax.Array]
Elements = Callable[[Params, jax.Array], tuple[jax.Array, jax.Array]]
Read = Callable[[Params, jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Equations:
    """A recurrence ``h' = a * h + b`` and what is read of it, for one step or many.

    Attributes:
      params: the parameters, of the values that ours has.
      elements: ``(params, x) -> (a, b)``.
      read: ``(params, h, x) -> y``.
      states: the width of h.
      dtype: of h.
    """

    params: Params
    elements: Elements
    read: Read
    states: int
    dtype: str = "float32"


def equations(case: Case, data: Data) -> Equations:
    """The equations of a case.

    Args:
      case: whose cell is "min_gru", "lru" or "s5", in float32.
      data: its numbers.

    Raises:
      ValueError: the cell has no equations here, or the dtype is another.
    """
    makers = {"min_gru": _min_gru, "lru": _lru, "s5": _s5}
    if case.cell not in makers or case.array_dtype != "float32":
        raise ValueError(f"expected one of {', '.join(makers)} in float32, got {case}")
    return makers[case.cell](ours.drawn(case, data))


def _min_gru(drawn: dict) -> Equations:
    def elements(params: Params, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        gate, candidate = jnp.split(x @ params["kernel"] + params["bias"], 2, axis=-1)
        return jax.nn.sigmoid(-gate), jax.nn.sigmoid(gate) * candidate

    parts = [drawn["iz"], drawn["in"]]
    params = {
        name: np.concatenate([part[name] for part in parts], axis=-1) for name in ("kernel", "bias")
    }
    return Equations(params, elements, lambda params, h, x: h, parts[0]["bias"].size)


def _lru(drawn: dict) -> Equations:
    def elements(params: Params, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        factor = jnp.exp(jax.lax.complex(-jnp.exp(params["nu_log"]), jnp.exp(params["theta_log"])))
        re, im = jnp.split(x @ params["B"], 2, axis=-1)
        scale = jnp.exp(params["gamma_log"])
        return _everywhere(factor, re), jax.lax.complex(scale * re, scale * im)

    return _state_space(drawn, ("nu_log", "theta_log", "gamma_log"), elements)


def _s5(drawn: dict) -> Equations:
    def elements(params: Params, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        eigenvalue = jax.lax.complex(params["Lambda_re"], params["Lambda_im"])
        factor = jnp.exp(eigenvalue * jnp.exp(params["log_step"]))
        re, im = jnp.split(x @ params["B"], 2, axis=-1)
        hold = (factor - 1) / eigenvalue
        return _everywhere(factor, re), hold * jax.lax.complex(re, im)

    # Every number is read with its conjugate.
    return _state_space(drawn, ("Lambda_re", "Lambda_im", "log_step"), elements, 2)


def _everywhere(factor: jax.Array, like: jax.Array) -> jax.Array:
    return jnp.broadcast_to(factor, like.shape)


def _state_space(
    drawn: dict, spectrum: tuple[str, ...], elements: Elements, twice: int = 1
) -> Equations:
    def read(params: Params, h: jax.Array, x: jax.Array) -> jax.Array:
        state = jnp.concatenate([h.real, h.imag], axis=-1) @ params["C"]
        return state + (x @ params["D"] if params["D"].ndim == 2 else x * params["D"])

    b, c = ([drawn[f"{side}_{part}"]["kernel"] for part in ("re", "im")] for side in "BC")
    skip = drawn["D"]
    params = {name: drawn[name] for name in spectrum}
    params |= {
        "B": np.concatenate(b, axis=-1),
        "C": twice * np.concatenate([c[0], -c[1]]),
        "D": skip["kernel"] if isinstance(skip, dict) else skip,
    }
    return Equations(params, elements, read, b[0].shape[-1], "complex64")
