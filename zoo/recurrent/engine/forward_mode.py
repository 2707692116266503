"""Makes forward-mode differentiation of the fused engine fail with words that help.

``jax.custom_vjp`` cannot be differentiated forwards, and says so without naming a cure, and under
``jit`` only when the program is compiled. ``reverse_only`` is the identity; its tangent passes
through a primitive that transposes to the identity, so that reverse mode pays nothing for it, and
that raises where a tangent is really asked for.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

_MESSAGE = (
    "forward-mode differentiation (jvp, jacfwd, linearize) of a recurrent layer with "
    'implementation="fused" (the default, "auto", may choose it): its derivative is written for '
    'reverse mode (grad, vjp, jacrev, hessian). Build the layer with implementation="scan": same '
    "parameters, every differentiation mode."
)


def _refuse(*_: Any, **__: Any) -> Any:
    raise TypeError(_MESSAGE)


def _transpose(cotangent: jax.Array, *_: Any) -> list[Any]:
    return [cotangent, None]


def _batch(args: Any, axes: Any) -> Any:
    # Only forward mode batches a tangent without what it is the tangent of (jacfwd does).
    if axes[0] is not None and axes[1] is None:
        _refuse()
    return _tangent_p.bind(*args), axes[0]


_tangent_p = Primitive("recurrent_layer_tangent")
_tangent_p.def_impl(_refuse)
_tangent_p.def_abstract_eval(lambda tangent, primal: tangent)
ad.deflinear2(_tangent_p, _transpose)
batching.primitive_batchers[_tangent_p] = _batch
mlir.register_lowering(_tangent_p, _refuse)


@jax.custom_jvp
def _identity(x: jax.Array) -> jax.Array:
    return x


@_identity.defjvp
def _identity_jvp(primals, tangents):
    return primals[0], _tangent_p.bind(tangents[0], primals[0])


def reverse_only(tree: Any) -> Any:
    """Returns the tree; asking for a tangent of it raises TypeError with the cure."""
    return jax.tree.map(lambda x: _identity(x) if jnp.issubdtype(x.dtype, jnp.inexact) else x, tree)
