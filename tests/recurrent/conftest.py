"""What the tests of the layers share."""

import contextlib
from collections.abc import Callable, Iterator

import jax
import pytest

from tests.recurrent import hopper


@pytest.fixture(scope="package", autouse=True)
def quick_compilation() -> Iterator[None]:
    """Compiles without LLVM's dearest passes: these tests are about values, on small arrays."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def full_compilation() -> Iterator[None]:
    """Compiles as users do, where memory or time are what is tested."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def machine() -> Iterator[Callable[..., None]]:
    """``hopper.put`` for the time of a test, the last one in force."""
    with contextlib.ExitStack() as stack:
        yield lambda **differences: stack.enter_context(hopper.put(**differences))
    jax.clear_caches()
