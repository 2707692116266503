"""What is used of JAX and Flax although it may change: why, and what happens without it."""

import functools
import importlib
from typing import Any

INTERFACES: dict[str, str] = {
    "jax.extend.core:Primitive": (
        "The fused engine's tangents are an operation of our own, which is run forwards by one "
        "rule and transposed by another. Without it the engine has reverse mode only, and JAX "
        "refuses forward mode in its words."
    ),
    "jax.extend.core:Literal": (
        "Constants in a traced program are told from variables. Without it no program is analysed: "
        "a step's derivative is taken as JAX returns it, and initialising parameters runs what it "
        "would have left out."
    ),
    "jax.extend.core:unmapped_aval": "The types of that operation under ``vmap``; see Primitive.",
    "jax.interpreters.ad:primitive_jvps": "The derivative of that operation; see Primitive.",
    "jax.interpreters.ad:primitive_transposes": "Its reverse mode; see Primitive.",
    "jax.interpreters.ad:Zero": "Tangents of it that are zero throughout; see Primitive.",
    "jax.interpreters.ad:instantiate_zeros": "The same as arrays; see Primitive.",
    "jax.interpreters.ad:is_undefined_primal": "What its reverse mode asks for; see Primitive.",
    "jax.interpreters.batching:fancy_primitive_batchers": "Its ``vmap``; see Primitive.",
    "jax.interpreters.mlir:register_lowering": "Its compilation; see Primitive.",
    "jax.interpreters.mlir:lower_fun": "The same; see Primitive.",
    "flax.linen.module:_context": (
        "``nn.tabulate`` is kept from listing what is asked of a cell before it has parameters. "
        "Without it, it fails for cells whose ``initialize_carry`` lacks ``nn.nowrap``."
    ),
    "flax.linen.module:_tabulate_context": "The same; see _context.",
    "jax.core:Tracer": (
        "Arrays whose values are known are told from others: sequence lengths are held against T. "
        "Without it, all are taken as unknown, and lengths are clamped."
    ),
}
"""By import path. Besides these, ``zoo.recurrent.jaxprs`` reads the attributes of traced programs
(``jaxpr.eqns``, ``eqn.primitive``, ``eqn.params``); where they have changed, no program is analysed
either. The kernels of ``zoo.recurrent.engine.kernels`` are written in Pallas' Mosaic GPU, which no
version of JAX promises to keep; with versions that they are not known to work with, they are not
run (``target.VERSIONS``)."""


@functools.cache
def find(path: str) -> Any:
    """Returns what ``"module:attribute"`` names, or None where the installed version has none.

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
