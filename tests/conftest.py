"""What every test runs under: strict dtypes and ranks, repeatable examples, one store of programs."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# `--hypothesis-profile=slow` searches longer, and anew every time.
hypothesis.settings.register_profile("default", max_examples=15, deadline=None, derandomize=True)
hypothesis.settings.register_profile("slow", max_examples=60, deadline=None, print_blob=True)
hypothesis.settings.load_profile("default")

# Two thirds of the time of a test go into compilation, and many tests compile the same programs: a
# folder that all processes of a run share saves making them again. One that is given is kept.
_STORE = {
    "JAX_COMPILATION_CACHE_DIR": "",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def pytest_configure(config: pytest.Config) -> None:
    """Makes the store, for this process and those that it starts, which read the environment."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="programs")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        os.environ |= _STORE | {"JAX_COMPILATION_CACHE_DIR": folder}
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(scope="module", autouse=True)
def _forget_programs() -> Iterator[None]:
    """Compiled programs are let go of after each file.

    A process may hold 65,530 memory maps on Linux, and a program of XLA's holds dozens: all tests
    in one process took more, and then the compiler crashed.
    """
    yield
    jax.clear_caches()


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Doctests are for the library: what stands beside the tests to help them has none."""
    helper = collection_path.suffix == ".py" and not collection_path.name.startswith("test_")
    return True if helper else None
