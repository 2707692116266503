"""Activation functions by the names that other libraries and this project give them."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from zoo.recurrent.convert.errors import ConversionError

# Left out on purpose: "gelu" (exact in Keras, a tanh approximation in JAX) and "leaky_relu"
# (slope 0.2 in Keras, 0.01 in JAX) share a name but not a function.
_KERAS = {
    **{name: name for name in ("tanh", "sigmoid", "relu", "relu6", "elu", "celu", "selu", "silu")},
    **{name: name for name in ("hard_sigmoid", "hard_silu", "hard_tanh", "log_sigmoid", "mish")},
    **{name: name for name in ("softplus", "squareplus")},
    "hard_swish": "hard_silu",
    "swish": "silu",
    "softsign": "soft_sign",
    "linear": "identity",
}

# name in lower case: (default alpha, default beta, ours, the alpha and beta at which it is ours)
_ONNX: dict[str, tuple[float | None, float | None, str | None, float | None, float | None]] = {
    "tanh": (None, None, "tanh", None, None),
    "sigmoid": (None, None, "sigmoid", None, None),
    "relu": (None, None, "relu", None, None),
    "softsign": (None, None, "soft_sign", None, None),
    "softplus": (None, None, "softplus", None, None),
    "elu": (1.0, None, "elu", 1.0, None),
    "leakyrelu": (0.01, None, "leaky_relu", 0.01, None),
    "hardsigmoid": (0.2, 0.5, "hard_sigmoid", 1 / 6, 0.5),
    "affine": (1.0, 0.0, "identity", 1.0, 0.0),
    "scaledtanh": (1.0, 1.0, "tanh", 1.0, 1.0),
    "thresholdedrelu": (1.0, None, "relu", 0.0, None),
}

# 1 - f(x) == f(-x): what turns an update gate that keeps the old state into one that takes the new.
SYMMETRIC = ("sigmoid", "hard_sigmoid")


def name_of(fn: str | Callable[..., Any]) -> str | Callable[..., Any]:
    """Returns the name of a function in `jax.nn`, or the function where it has none.

    Example:
        >>> name_of(jax.nn.relu), name_of("swish"), name_of(np.cos) is np.cos
        ('relu', 'silu', True)
    """
    if isinstance(fn, str):
        found = getattr(jax.nn, fn, None)
        return fn if found is None else name_of(found)
    name = getattr(fn, "__name__", "")
    return name if name and getattr(jax.nn, name, None) is fn else fn


def from_keras_name(name: Any, where: str) -> str:
    """Returns our name for a serialised Keras activation.

    Raises:
        ConversionError: it has no function of the same values in `jax.nn`.
    """
    if name in _KERAS if isinstance(name, str) else False:
        return _KERAS[name]
    raise ConversionError(
        f"{where}: the Keras activation {name!r} has no equal in jax.nn; expected one of "
        f"{sorted(_KERAS)}. Build the layer yourself with your own function as `activation_fn` or "
        "`gate_fn`, and take the weights from a layer of the same shape with a known activation."
    )


def to_keras_name(name: Any) -> Any:
    """Returns the Keras name of our activation, or the argument where Keras has none."""
    return next((theirs for theirs, ours in _KERAS.items() if ours == name), name)


def from_onnx_names(
    names: list[str], alphas: list[float], betas: list[float], where: str
) -> list[str]:
    """Returns our names for the activations of an ONNX node.

    The parameters are consumed in order by the functions that have them, as ONNX runtimes do it.

    Raises:
        ConversionError: a function is unknown or has parameters that `jax.nn` does not have.
    """
    alphas, betas = list(alphas), list(betas)
    ours = []
    for name in names:
        alpha, beta, known, at_alpha, at_beta = _ONNX.get(name.lower(), (None,) * 5)
        if alpha is not None and alphas:
            alpha = alphas.pop(0)
        if beta is not None and betas:
            beta = betas.pop(0)
        if known is None or not _same(alpha, at_alpha) or not _same(beta, at_beta):
            raise ConversionError(
                f"{where}: the activation {name}(alpha={alpha}, beta={beta}) has no equal in "
                "jax.nn; expected Tanh, Sigmoid, Relu, Softsign, Softplus, Elu(1), "
                "LeakyRelu(0.01), HardSigmoid(1/6, 0.5) or Affine(1, 0)."
            )
        ours.append(known)
    return ours


def _same(found: float | None, expected: float | None) -> bool:
    # ONNX stores attributes in float32.
    return found is expected or np.float32(found) == np.float32(expected)
