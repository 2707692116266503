"""Activation functions by the names that other libraries and this project give them."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.recurrent.convert.errors import ConversionError

Activation = str | Callable[..., Any]


@functools.cache
def _with(fn: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    # One object for equal options, so that layers with equal activations are seen to be equal.
    return functools.partial(fn, **options)


# "gelu" is exact in Keras and a tanh approximation in JAX, and "leaky_relu" has the slope 0.2 in
# Keras and 0.01 in JAX: they share a name but not a function.
_KERAS: dict[str, Activation] = {
    **{name: name for name in ("tanh", "sigmoid", "relu", "relu6", "elu", "celu", "selu", "silu")},
    **{name: name for name in ("hard_sigmoid", "hard_silu", "hard_tanh", "log_sigmoid", "mish")},
    **{name: name for name in ("softplus", "squareplus", "sparse_plus", "sparse_sigmoid")},
    **{name: name for name in ("softmax", "log_softmax")},
    "hard_swish": "hard_silu",
    "swish": "silu",
    "softsign": "soft_sign",
    "linear": "identity",
    "exponential": jnp.exp,
    "gelu": _with(jax.nn.gelu, approximate=False),
    "leaky_relu": _with(jax.nn.leaky_relu, negative_slope=0.2),
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
SYMMETRIC = ("sigmoid", "hard_sigmoid", "sparse_sigmoid")


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


def from_keras_name(name: Any, where: str) -> Activation:
    """Returns our name for a serialised Keras activation, or the function where it has no name.

    Args:
        name: the name of a function of Keras, or a layer as Keras serialises it: LeakyReLU, ELU,
            ReLU, Softmax over the last axis, or Activation.
        where: what has it, for messages.

    Raises:
        ConversionError: it has no function of the same values in `jax.nn` or `jax.numpy`.
    """
    found = _KERAS.get(name) if isinstance(name, str) else None
    if isinstance(name, Mapping):
        found = _from_keras_layer(name.get("class_name"), name.get("config"), where)
    if found is not None:
        return found
    raise ConversionError(
        f"{where}: the Keras activation {name!r} has no equal in jax.nn; expected one of "
        f"{sorted(_KERAS)}. Build the layer yourself with your own function as `activation_fn` or "
        "`gate_fn`, and take the weights from a layer of the same shape with a known activation."
    )


def _from_keras_layer(kind: Any, config: Any, where: str) -> Activation | None:
    if not isinstance(config, Mapping):
        return None
    if kind == "Activation":
        return from_keras_name(config.get("activation"), where)
    if kind == "Softmax":
        return "softmax" if config.get("axis", -1) == -1 else None
    if kind == "ELU":
        alpha = config.get("alpha", 1.0)
        return "elu" if alpha == 1 else _with(jax.nn.elu, alpha=alpha)
    if kind == "LeakyReLU":
        return _leaky(config.get("negative_slope", config.get("alpha", 0.3)))
    if kind == "ReLU" and not config.get("threshold"):
        top, slope = config.get("max_value"), config.get("negative_slope") or 0.0
        if top is None:
            return _leaky(slope)
        return "relu6" if top == 6 and not slope else None
    return None


def _leaky(slope: float) -> Activation:
    named = {0.0: "relu", 0.01: "leaky_relu"}
    return named.get(slope) or _with(jax.nn.leaky_relu, negative_slope=slope)


def require_keras(fn: Activation, where: str) -> None:
    """Checks that Keras has a function, or a layer, of the values of our activation.

    Raises:
        ConversionError: it has none.
    """
    kind = fn.func if isinstance(fn, functools.partial) else fn
    if fn not in _KERAS.values() and kind not in ("leaky_relu", jax.nn.leaky_relu, jax.nn.elu):
        raise ConversionError(
            f"{where}: {fn!r} has no equal in keras.activations; expected one of "
            f"{sorted({f for f in _KERAS.values() if isinstance(f, str)})}, the exact 'gelu' as "
            "from_keras gives it, or another slope of 'leaky_relu' or 'elu'. Build the Keras layer "
            "with your own function, and take the weights from a layer of the same shape."
        )


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
