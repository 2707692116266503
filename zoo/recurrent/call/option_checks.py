"""What an option may be: one function per kind, ``(name, value) -> the value to use``.

NumPy's scalars stand for Python's and come back as those, so that nothing later depends on which of
the two was given.
"""

import functools
import math
import weakref
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import registry
from zoo.recurrent.cell import Cell, LinearCell

Check = Callable[[str, Any], Any]

_FLOATS = ("float16", "bfloat16", "float32", "float64")
_DTYPES = frozenset(map(jnp.dtype, _FLOATS))


def refusal(kind: type[Exception], name: str, expected: str, got: Any, cure: str = "") -> Exception:
    """An error in the words that all of them share."""
    text = f"{name} must be {expected}, got {got!r} of type {type(got).__name__}."
    return kind(f"{text} {cure}".rstrip())


def anything(name: str, value: Any) -> Any:
    """Takes whatever comes: the layer has a check of its own."""
    return value


def boolean(name: str, value: Any) -> bool:
    """Requires a bool: whatever else has a truth value is rather a mistake.

    Raises:
      TypeError: it is something else.
    """
    if isinstance(value, bool | np.bool_):
        return bool(value)
    cure = "Any text counts as true, " if isinstance(value, str) else ""
    cure = f"Likely cause: {cure}a value of a configuration that was never converted. Give a bool."
    raise refusal(TypeError, name, "True or False", value, cure)


def integer(name: str, value: Any) -> int:
    """Requires a Python integer.

    Raises:
      TypeError: it is something else.
    """
    if not _is_integer(value):
        raise refusal(TypeError, name, "an int", value, "Cure: int(...) of the number meant.")
    return int(value)


def positive_int(name: str, value: Any) -> int:
    """Requires a Python integer >= 1.

    Raises:
      TypeError: it is not an integer.
      ValueError: it is smaller than 1.
    """
    return _positive(name, value, "a positive int")


def positive_int_or_none(name: str, value: Any) -> int | None:
    """Requires a Python integer >= 1, or None.

    Raises:
      TypeError: it is neither.
      ValueError: it is smaller than 1.
    """
    return None if value is None else _positive(name, value, "a positive int or None")


def _positive(name: str, value: Any, expected: str) -> int:
    if not _is_integer(value):
        raise refusal(TypeError, name, expected, value)
    if value < 1:
        raise ValueError(f"{name} must be {expected.removesuffix(' or None')}, got {value}.")
    return int(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    kinds = int | float | np.integer | np.floating
    return isinstance(value, kinds) and not isinstance(value, bool)


def rate(name: str, value: Any) -> float:
    """Requires a probability in [0, 1).

    Raises:
      ValueError: it is not.
    """
    if not _is_real(value) or not 0 <= value < 1:
        cure = "A rate of 1 would drop everything; 0 drops nothing."
        raise refusal(ValueError, name, "a number in [0, 1)", value, cure)
    return float(value)


def finite(name: str, value: Any) -> float:
    """Requires a finite number.

    Raises:
      TypeError: it is no number.
      ValueError: it is NaN or infinite.
    """
    if not _is_real(value):
        raise refusal(TypeError, name, "a finite number", value, "Cure: float(...) of it.")
    if not math.isfinite(value):
        raise refusal(ValueError, name, "a finite number", value)
    return float(value)


def finite_not_negative(name: str, value: Any) -> float:
    """Requires a finite number >= 0.

    Raises:
      TypeError: it is no number.
      ValueError: it is NaN, infinite or negative.
    """
    if finite(name, value) < 0:
        raise refusal(ValueError, name, "a finite number >= 0", value)
    return float(value)


def finite_positive(name: str, value: Any) -> float:
    """Requires a finite number > 0.

    Raises:
      TypeError: it is no number.
      ValueError: it is NaN, infinite, zero or negative.
    """
    if finite(name, value) <= 0:
        raise refusal(ValueError, name, "a finite number > 0", value)
    return float(value)


def radius(name: str, value: Any) -> float:
    """Requires a number in (0, 1].

    Raises:
      TypeError: it is no number.
      ValueError: it is not in there.
    """
    if finite_positive(name, value) > 1:
        cure = "An eigenvalue beyond 1 would make the state grow without bounds."
        raise refusal(ValueError, name, "a number in (0, 1]", value, cure)
    return float(value)


def text_or_none(name: str, value: Any) -> str | None:
    """Requires a name, or None.

    Raises:
      TypeError: it is neither.
    """
    if value is None or (isinstance(value, str) and value):
        return value
    raise refusal(TypeError, name, "a name or None", value)


def one_of(*choices: str | None) -> Check:
    """Requires one of ``choices``."""

    def check(name: str, value: Any) -> Any:
        if not isinstance(value, str | None) or value not in choices:
            raise refusal(ValueError, name, f"one of {', '.join(map(repr, choices))}", value)
        return value

    return check


def implementation(*choices: str) -> Check:
    """Requires one of ``choices``; says whose option another implementation is.

    Raises:
      ValueError: it is none of them.
    """
    check = one_of(*choices)

    def chosen(name: str, value: Any) -> Any:
        if isinstance(value, str) and value in _OTHERS and value not in choices:
            cells, why = _OTHERS[value]
            cure = f"Only {', '.join(_layers_of(cells))} have it: {why}"
            raise refusal(ValueError, name, f"one of {', '.join(map(repr, choices))}", value, cure)
        return check(name, value)

    return chosen


# Implementations that not every layer has: which cells do, and why others do not.
_OTHERS: dict[str, tuple[Callable[[type[Cell]], bool], str]] = {
    "parallel": (
        lambda cell: issubclass(cell, LinearCell),
        "linear recurrences run in parallel over time, and the steps of others need the state "
        "before them.",
    ),
    "kernel": (
        lambda cell: bool(vars(cell).get("equation")) or issubclass(cell, LinearCell),
        "kernels are written for their equations, and for linear recurrences. Cure: 'auto'.",
    ),
}


def _layers_of(wanted: Callable[[type[Cell]], bool]) -> list[str]:
    """The built-in layers whose cells are wanted."""
    kinds = {name: registry.spec(name).factory for name in registry.names("scan_*")}
    cells = {name: getattr(kind, "cell_class", None) for name, kind in kinds.items()}
    return [name for name, cell in cells.items() if cell and wanted(cell)]


def function_or_one_of(*choices: str | None) -> Check:
    """Requires a function, or one of ``choices``."""
    named = one_of(*choices)
    return lambda name, value: value if callable(value) else named(name, value)


def dtype(name: str, value: Any) -> Any:
    """Requires a floating-point dtype of 16 bits or more, in any of the forms that JAX takes.

    Raises:
      TypeError: it is no dtype, or that of other numbers.
    """
    if type(value) is not np.dtype and isinstance(value, jax.Array | np.ndarray | np.generic):
        raise refusal(TypeError, name, "a dtype", value, "Likely cause: an array; give its dtype.")
    # None is float64 to NumPy.
    found = None if value is None else _understood(value)
    if found is None:
        cure = "Likely cause: a misspelt name. Give jnp.float32 or 'float32', for example."
        raise refusal(TypeError, name, "a floating-point dtype", value, cure)
    if found not in _DTYPES:
        cure = "Layers compute in floating point and train by gradients."
        if jnp.issubdtype(found, jnp.floating):
            cure = "Others have no arithmetic here: store in them, and cast before the call."
        raise refusal(TypeError, name, f"one of the dtypes {', '.join(_FLOATS)}", value, cure)
    return value


def dtype_or_none(name: str, value: Any) -> Any:
    """Requires what ``dtype`` does, or None.

    Raises:
      TypeError: it is neither.
    """
    return None if value is None else dtype(name, value)


def _understood(value: Any) -> np.dtype | None:
    try:
        return _dtype_of(value)
    except (TypeError, ValueError):
        return None


# A layer is built anew at every call.
@functools.lru_cache(maxsize=64, typed=True)
def _dtype_of(value: Any) -> np.dtype:
    return jnp.dtype(value)


def precision(name: str, value: Any) -> Any:
    """Requires a precision of products as ``jax.lax`` takes it; a list stands for a tuple.

    Raises:
      ValueError: it is none.
    """
    if value is None:
        return None
    value = tuple(value) if isinstance(value, list) else value
    try:
        _multiply_at(value)
    except (TypeError, ValueError) as error:
        expected = "None, a jax.lax.Precision or its name, or a pair of them"
        cure = "Names are 'default', 'high' and 'highest', in small letters."
        raise refusal(ValueError, name, expected, value, cure) from error
    return value


@functools.lru_cache(maxsize=64, typed=True)
def _multiply_at(value: Any) -> None:
    matrix = jax.ShapeDtypeStruct((1, 1), jnp.float32)
    jax.eval_shape(lambda a, b: jnp.matmul(a, b, precision=value), matrix, matrix)


def initializer(name: str, value: Any) -> Any:
    """Requires a function; what it returns is looked at when it is called.

    Raises:
      TypeError: it is no function.
    """
    if not callable(value):
        cure = "See jax.nn.initializers: jax.nn.initializers.zeros, or normal(0.1), for example."
        raise refusal(TypeError, name, "a function (key, shape, dtype) -> array", value, cure)
    return value


def activation(name: str, value: Any) -> Any:
    """Requires a function of one array, or the name of one in ``jax.nn``.

    Raises:
      ValueError: there is none of that name.
      TypeError: it is neither, or can be no part of a compiled program's key.
    """
    activation_of(name, value)
    return value


def activation_of(name: str, value: Any) -> Any:
    """Returns an activation function, looked up in ``jax.nn`` where it is given by name.

    Raises:
      ValueError: there is none of that name.
      TypeError: it is neither a name nor callable.
    """
    if isinstance(value, str):
        found = getattr(jax.nn, value, None)
        if not callable(found):
            raise ValueError(
                f"{name}: expected the name of a function in jax.nn, such as 'sigmoid', 'tanh', "
                f"'relu' or 'hard_sigmoid', got {value!r}."
            )
        return found
    if not callable(value):
        raise refusal(TypeError, name, "a function or the name of one", value)
    if isinstance(value, nn.Module) or type(value).__hash__ is None:
        cure = "Cells are compiled once per function; give a plain function without parameters."
        raise refusal(TypeError, name, "a hashable function or the name of one", value, cure)
    return value


# Held weakly: a function may close over tracers, which must not outlive their trace.
_keeping: weakref.WeakKeyDictionary[Any, set[int]] = weakref.WeakKeyDictionary()


def keeps_shape(name: str, value: Any, features: int) -> None:
    """Requires an activation to return an array like the one that it gets, which is not computed.

    Raises:
      TypeError: it does not take one array, or returns something else than a floating-point array.
      ValueError: it returns another shape.
    """
    function = activation_of(name, value)
    try:
        widths = _keeping.setdefault(function, set())
    except TypeError:  # Some objects cannot be held weakly.
        widths = set()
    if features in widths:
        return
    shape = (2, features)
    expected = f"{name}: expected a function of one array that returns one like it"
    try:
        out = jax.eval_shape(function, jax.ShapeDtypeStruct(shape, jnp.float32))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{expected}, got {value!r}, which fails for float32{list(shape)}: {error} Likely "
            "cause: it needs further arguments; bind them with functools.partial."
        ) from error
    except Exception:
        # Such as the name of a mesh axis, which is known where the layer is called.
        return
    if not isinstance(out, jax.ShapeDtypeStruct) or not jnp.issubdtype(out.dtype, jnp.floating):
        raise TypeError(f"{expected}, got {value!r}, which returns {out} for float32{list(shape)}.")
    if out.shape != shape:
        raise ValueError(
            f"{expected}, got {value!r}, which makes shape {out.shape} of {shape}. Likely cause: "
            "it gates, reduces or splits the features, and a cell's equations need all of them."
        )
    widths.add(features)
