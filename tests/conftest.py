"""What every test runs under: strict dtypes and ranks, and few, repeatable random examples."""

from pathlib import Path

import hypothesis
import jax

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# `--hypothesis-profile=slow` searches longer, and anew every time.
hypothesis.settings.register_profile("default", max_examples=15, deadline=None, derandomize=True)
hypothesis.settings.register_profile("slow", max_examples=150, deadline=None, print_blob=True)
hypothesis.settings.load_profile("default")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Doctests are for the library: what stands beside the tests to help them has none."""
    helper = collection_path.suffix == ".py" and not collection_path.name.startswith("test_")
    return True if helper else None
