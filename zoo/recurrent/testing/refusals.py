"""Checks that wrong calls are refused, in words that name the argument."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.recurrent.testing.case import Case, promise
from zoo.recurrent.testing.compare import require

Refusal = tuple[str, type[Exception], str, tuple[Any, ...], dict[str, Any]]


@promise("wrong calls raise ValueError or TypeError and name the argument, and what was expected")
def check_refusals(case: Case) -> None:
    """A table of wrong calls: the class of each error, and words in its message."""
    for what, kind, name, args, options in _calls(case):
        try:
            jax.eval_shape(
                lambda args, options: case.layer.apply(case.variables, *args, **options),
                args,
                options,
            )
        except kind as error:
            text = str(error)
            require(
                name in text and "expected" in text.lower(),
                f"{what}: expected a {kind.__name__} that names {name} and what was expected, got "
                f"{type(error).__name__}: {text}",
            )
        except Exception as error:
            raise AssertionError(
                f"{what}: expected a {kind.__name__} that names {name}, got "
                f"{type(error).__name__}: {error}"
            ) from error
        else:
            raise AssertionError(f"{what}: expected a {kind.__name__} that names {name}, got none.")


@promise("lengths outside [0, T] are an error where their values are known")
def check_length_range(case: Case) -> None:
    """Negative lengths, and lengths beyond T."""
    for length in (-1, case.steps + 1):
        lengths = jnp.full((case.batch,), length)
        try:
            case.layer.apply(case.variables, None, case.xs, seq_lengths=lengths)
        except ValueError as error:
            require("seq_lengths" in str(error), f"expected a message on seq_lengths, got: {error}")
        else:
            raise AssertionError(
                f"seq_lengths of {length} with T={case.steps}: expected a ValueError, got none."
            )


def _calls(case: Case) -> Iterator[Refusal]:
    xs, carry = case.host, jax.tree.map(np.asarray, case.start)
    steps, batch = xs.shape[:2]
    wider = jax.tree.map(lambda x: np.concatenate([x, x], axis=-1), carry)
    fewer = jax.tree.map(lambda x: x[:-1], carry)
    whole = jax.tree.map(lambda x: np.zeros(x.shape, np.int32), carry)
    mask = np.ones((steps, batch), bool)
    lengths = np.full(batch, steps, np.int32)
    yield "integer xs", TypeError, "xs", (None, xs.astype(np.int32)), {}
    yield "boolean xs", TypeError, "xs", (None, xs > 0), {}
    yield "xs of one axis", ValueError, "xs", (None, xs.reshape(-1)), {}
    yield "a wider carry", ValueError, "carry", (wider, xs), {}
    yield "a carry of fewer rows", ValueError, "carry", (fewer, xs), {}
    yield "a carry of integers", TypeError, "carry", (whole, xs), {}
    yield "a carry of another structure", TypeError, "carry", ([carry, carry, carry], xs), {}
    for name, value in (("mask", mask), ("resets", mask)):
        wrong = {"of integers": value.astype(np.int32), "of floats": value.astype(np.float32)}
        for kind, array in wrong.items():
            yield f"{name} {kind}", TypeError, name, (None, xs), {name: array}
        yield f"{name} batch-major", ValueError, name, (None, xs), {name: value.T}
        yield f"{name} with features", ValueError, name, (None, xs), {name: value[..., None]}
    floats = lengths.astype(np.float32)
    yield "seq_lengths of floats", TypeError, "seq_lengths", (None, xs), {"seq_lengths": floats}
    for kind, array in (("of another batch", lengths[1:]), ("per step", mask.astype(np.int32))):
        yield f"seq_lengths {kind}", ValueError, "seq_lengths", (None, xs), {"seq_lengths": array}
