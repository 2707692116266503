"""All checks, and how they are run one after another."""

import unittest
from collections.abc import Callable, Collection, Iterable

import jax

from zoo.recurrent.contract import RecurrentLayer
from zoo.recurrent.testing import (
    activations,
    calls,
    carries,
    conditions,
    numbers,
    options,
    parameters,
    refusals,
)
from zoo.recurrent.testing.case import Case, Check

CHECKS: tuple[Check, ...] = (
    calls.check_shapes,
    calls.check_eval_shape,
    calls.check_jit,
    calls.check_steps,
    calls.check_chunks,
    calls.check_causality,
    calls.check_batch_axes,
    calls.check_time_axis,
    calls.check_no_steps,
    carries.check_initialize_carry,
    carries.check_carries,
    carries.check_random_carry,
    carries.check_learned_carry,
    options.check_reverse,
    options.check_implementations,
    activations.check_activations,
    options.check_deterministic,
    options.check_dropouts,
    conditions.check_seq_lengths,
    conditions.check_mask,
    conditions.check_resets,
    conditions.check_skipped_resets,
    conditions.check_conditions_together,
    conditions.check_intervals,
    conditions.check_padding_cannot_leak,
    conditions.check_resets_stop_leaks,
    numbers.check_gradients,
    numbers.check_dtypes,
    parameters.check_parameters,
    parameters.check_parents,
    parameters.check_init_cost,
    parameters.check_describe,
    refusals.check_refusals,
    refusals.check_length_range,
)
"""Every check: a function of a ``Case`` that raises AssertionError where a promise is broken, and
``unittest.SkipTest`` where the promise does not concern the layer."""


def check_layer(
    build: Callable[..., RecurrentLayer],
    xs: jax.Array,
    *,
    options: Iterable[str] | None = None,
    skip: Collection[str] = (),
) -> None:
    """Checks that a layer keeps every promise of the contract.

    Args:
      build: makes the layer, and takes its options as keyword arguments; see ``Case``.
      xs: float (T, B, *features), T >= 4, B >= 3.
      options: the options that ``build`` takes; by default the layer's dataclass fields.
      skip: names of checks that are not run, such as "check_causality".

    Raises:
      AssertionError: promises are broken; the message says which, and what was expected and got.
      ValueError: ``xs`` does not do, or ``skip`` names a check that does not exist.

    Example:
      >>> import functools, jax
      >>> from zoo.recurrent import ScanElman
      >>> from zoo.recurrent.testing import CHECKS, check_layer
      >>> xs = jax.random.normal(jax.random.key(0), (4, 3, 2))
      >>> others = [c.__name__ for c in CHECKS if c.__name__ != "check_steps"]
      >>> check_layer(functools.partial(ScanElman, 3), xs, skip=others)
    """
    unknown = set(skip) - {check.__name__ for check in CHECKS}
    if unknown:
        raise ValueError(f"skip: expected names of checks, got {sorted(unknown)}.")
    case = Case(build, xs, None if options is None else frozenset(options))
    broken = []
    for check in CHECKS:
        if check.__name__ in skip:
            continue
        try:
            check(case)
        except unittest.SkipTest:
            continue
        except AssertionError as error:
            broken.append(f"{check.__name__}: {error}")
    if broken:
        raise AssertionError("\n\n".join(broken))
