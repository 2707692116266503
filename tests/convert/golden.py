"""Golden cases in npz files: nested data as JSON, and the arrays in it end to end. No pickle."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "golden"


def save(library: str, cases: list[dict[str, Any]]) -> Path:
    """Writes the cases of a library; returns the path. All arrays have to be float32."""
    arrays: list[np.ndarray] = []
    text = json.dumps(_encode(cases, arrays), separators=(",", ":"))
    path = FOLDER / f"{library}.npz"
    text = np.frombuffer(text.encode(), np.uint8)
    np.savez_compressed(path, cases=text, numbers=np.concatenate([a.ravel() for a in arrays]))
    return path


def load(library: str) -> list[dict[str, Any]]:
    """Reads the cases of a library."""
    with np.load(FOLDER / f"{library}.npz", allow_pickle=False) as file:
        return _decode(json.loads(file["cases"].tobytes()), file["numbers"])


def every_case() -> Iterator[tuple[str, dict[str, Any]]]:
    """Goes through the cases of all libraries."""
    for path in sorted(FOLDER.glob("*.npz")):
        for case in load(path.stem):
            yield path.stem, case


def _encode(value: Any, arrays: list[np.ndarray]) -> Any:
    if isinstance(value, dict):
        return {str(key): _encode(each, arrays) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(each, arrays) for each in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    array = np.asarray(value)
    if array.dtype != np.float32:
        raise TypeError(f"expected float32, got {array.dtype}")
    offset = sum(each.size for each in arrays)
    arrays.append(array)
    return {"offset": offset, "shape": list(array.shape)}


def _decode(value: Any, numbers: np.ndarray) -> Any:
    if isinstance(value, dict):
        if set(value) == {"offset", "shape"}:
            end = value["offset"] + math.prod(value["shape"])
            return numbers[value["offset"] : end].reshape(value["shape"])
        return {key: _decode(each, numbers) for key, each in value.items()}
    if isinstance(value, list):
        return [_decode(each, numbers) for each in value]
    return value
