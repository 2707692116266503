"""What is used of JAX although it may change: why, and what happens without it."""

import functools
import importlib
from typing import Any

INTERFACES: dict[str, str] = {
    "jax.extend.core:Primitive": (
        "Forward-mode differentiation of the fused engine is refused by an operation of our own, "
        "in words that name the cure. Without it JAX refuses it in its words."
    ),
    "jax.extend.core:Literal": (
        "Constants in a traced program are told from variables. Without it no program is analysed: "
        "a step's derivative is taken as JAX returns it, and initialising parameters runs what it "
        "would have left out."
    ),
    "jax.interpreters.ad:deflinear2": "The reverse mode of that operation; see Primitive.",
    "jax.interpreters.batching:primitive_batchers": "``vmap`` of that operation; see Primitive.",
    "jax.interpreters.mlir:register_lowering": "Compilation of that operation; see Primitive.",
    "jax.core:Tracer": (
        "Arrays whose values are known are told from others: sequence lengths are held against T. "
        "Without it, all are taken as unknown, and lengths are clamped."
    ),
}
"""By import path. Besides these, ``zoo.recurrent.jaxprs`` reads the attributes of traced programs
(``jaxpr.eqns``, ``eqn.primitive``, ``eqn.params``); where they have changed, no program is analysed
either."""


@functools.cache
def find(path: str) -> Any:
    """Returns what ``"module:attribute"`` names, or None where the installed JAX has none.

    Raises:
      KeyError: the path is not listed in ``INTERFACES``.
    """
    INTERFACES[path]
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute, None)
    except ImportError:
        return None


def is_traced(x: Any) -> bool:
    """Whether ``x`` is an array whose values are not known yet, or may be."""
    tracer = find("jax.core:Tracer")
    return tracer is None or isinstance(x, tracer)
