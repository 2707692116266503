"""Gradients of every layer, kept from one build to the next while no source has changed."""

import hashlib
import importlib.metadata
from pathlib import Path

import numpy as np

from docs.extensions.gallery import layers, memory


def gradients(root: Path, kept: Path) -> dict[str, np.ndarray]:
    """The gradients by lag of every layer that is not made of others.

    Args:
      root: of the repository.
      kept: a folder of this build's.
    """
    file = kept / f"gradients-{_sources(root)}.npz"
    if file.is_file():
        with np.load(file) as found:
            return dict(found)
    found = {name: memory.gradients(name) for name in layers.names() if layers.is_leaf(name)}
    kept.mkdir(parents=True, exist_ok=True)
    for old in kept.glob("gradients-*.npz"):
        old.unlink()
    np.savez(file, **found)  # pyright: ignore[reportArgumentType]
    return found


def _sources(root: Path) -> str:
    digest = hashlib.sha256()
    for path in [*sorted((root / "zoo").rglob("*.py")), Path(memory.__file__)]:
        digest.update(path.read_bytes())
    for library in ("jax", "jaxlib", "flax"):
        digest.update(importlib.metadata.version(library).encode())
    return digest.hexdigest()[:16]
