"""What every test runs under: strict dtypes and ranks, repeatable examples, a store of programs."""

import os
import shutil
import tempfile
import zlib
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
# folder saves making them again, also after they were let go of.
_STORE = "TEST_PROGRAMS"


def pytest_configure(config: pytest.Config) -> None:
    """Makes the store, where the environment names none that is to be kept."""
    if _STORE not in os.environ:
        os.environ[_STORE] = folder = tempfile.mkdtemp(prefix="programs")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    # JAX does not write a program at one stroke, so another process might read half of one: every
    # process has a folder of its own, and those that tests start have none.
    own = Path(os.environ[_STORE]) / os.environ.get("PYTEST_XDIST_WORKER", "alone")
    jax.config.update("jax_compilation_cache_dir", str(own))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Defines --share."""
    parser.addoption("--share", metavar="I/N", help="run the I-th of N shares of the tests alone")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keeps one share of the tests: of a table, every N-th row or so, whatever its order is."""
    if not (given := config.getoption("--share")):
        return
    index, count = map(int, given.split("/"))
    if not 0 <= index < count:
        raise pytest.UsageError(f"--share: expected I/N with 0 <= I < N, got {given!r}")

    def taken(item: pytest.Item) -> bool:
        # On meshes, one process answers for all rows of a table, so they are not parted.
        own = item.nodeid.split("[")[0] if "placement" in item.nodeid else item.nodeid
        return zlib.crc32(own.encode()) % count == index

    config.hook.pytest_deselected(items=[item for item in items if not taken(item)])
    items[:] = [item for item in items if taken(item)]


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
