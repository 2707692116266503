"""Reading foreign weights: every key is checked, and every key is used or the conversion fails."""

import difflib
import functools
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.recurrent.convert.errors import ConversionError

_FLOATS = tuple(map(jnp.dtype, ("float16", "bfloat16", "float32", "float64")))


class Source:
    """Hands out the arrays of a flat mapping, checks their shapes, and refuses leftovers.

    Args:
        arrays: arrays of any library by name.
        origin: what the mapping is, in words; every message begins with it.
        prefix: only keys that begin with it belong to this source. The others are ignored.
        separator: what stands between a prefix and the key.

    Example:
        >>> source = Source({"cell.w": np.ones((2, 3)), "head.w": np.ones(1)}, "weights", "cell")
        >>> source.take("w", (2, 3)).shape
        (2, 3)
        >>> source.finish()
    """

    def __init__(
        self, arrays: Mapping[str, Any], origin: str, prefix: str = "", separator: str = "."
    ) -> None:
        """Lists the keys; no array is read yet."""
        self.origin = origin
        if prefix and not prefix.endswith(separator):
            prefix += separator
        strangers = [key for key in arrays if not isinstance(key, str)]
        if strangers:
            raise ConversionError(
                f"{origin}: expected names as keys; found {strangers[:8]!r}. Likely cause: not the "
                "weights but what holds them, or an optimiser's state. Take those keys out."
            )
        self._prefix = prefix
        self._arrays = arrays
        self._left = [key[len(prefix) :] for key in arrays if key.startswith(prefix)]
        self._all = tuple(self._left)

    def __contains__(self, key: str) -> bool:
        """Whether there was such a key to begin with."""
        return key in self._all

    def __iter__(self) -> Iterator[str]:
        """Goes through all keys, without the prefix."""
        return iter(self._all)

    def shape(self, key: str) -> tuple[int, ...]:
        """Returns the shape at `key` without using the key up.

        Raises:
            ConversionError: there is no such key.
        """
        if key not in self._all:
            raise ConversionError(
                f"{self.origin}: key '{self._prefix}{key}' is missing; {self._found(key)}."
            )
        value = self._arrays[self._prefix + key]
        if hasattr(value, "shape"):
            return tuple(value.shape)
        return as_numpy(value, f"{self.origin}: key '{self._prefix}{key}'").shape

    def take(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
        """Returns the array at `key`, which must have exactly `shape`, and uses the key up.

        Raises:
            ConversionError: no such key, another shape, or no floating-point numbers.
        """
        if key not in self._all:
            raise ConversionError(
                f"{self.origin}: key '{self._prefix}{key}' of shape {shape} is missing; "
                f"{self._found(key)}."
            )
        full = self._prefix + key
        array = as_numpy(self._arrays[full], f"{self.origin}: key '{full}'")
        if array.shape != tuple(shape):
            self.mismatch(key, str(tuple(shape)))
        if array.dtype not in _FLOATS:
            raise ConversionError(
                f"{self.origin}: key '{self._prefix}{key}' has dtype {array.dtype}; expected "
                f"floating-point weights, {', '.join(d.name for d in _FLOATS)}. Quantised weights "
                "have to be dequantised, narrower ones widened and wider ones narrowed first."
            )
        self._left.remove(key)
        return array.astype(common_dtype({array.dtype, *self._dtypes}), copy=False)

    @functools.cached_property
    def _dtypes(self) -> list[np.dtype]:
        arrays = [self._arrays[self._prefix + key] for key in self._all]
        names = {str(getattr(array, "dtype", "")).removeprefix("torch.") for array in arrays}
        return [dtype for dtype in _FLOATS if dtype.name in names]

    def mismatch(self, key: str, expected: str) -> None:
        """Raises the error that says which shape was found at `key` and which was expected."""
        raise ConversionError(
            f"{self.origin}: key '{self._prefix}{key}' has shape {self.shape(key)}; "
            f"expected {expected}."
        )

    def finish(self) -> None:
        """Checks that every key was used.

        Raises:
            ConversionError: some keys are left; they are named with their shapes.
        """
        if self._left:
            left = ", ".join(map(self._described, self._left[:8]))
            more = f" and {len(self._left) - 8} more" if len(self._left) > 8 else ""
            raise ConversionError(
                f"{self.origin}: keys are left over that the layer has no place for: {left}{more}."
                " Take them out, or name the place of the layer's own keys."
            )

    def _found(self, key: str) -> str:
        deeper = sorted(k[: -len(key)] for k in self._arrays if k != key and k.endswith(key))
        deeper = [prefix for prefix in deeper if prefix != self._prefix]
        if deeper:
            return f"it is there under the prefix {', '.join(map(repr, deeper[:6]))}"
        if not self._all:
            heads = sorted({k.split(".")[0].split("/")[0] for k in self._arrays})[:8]
            return f"no key begins with {self._prefix!r}, they begin with {heads}"
        near = difflib.get_close_matches(key, self._all, n=4, cutoff=0.0)
        return "found " + ", ".join(map(self._described, near))

    def _described(self, key: str) -> str:
        value = self._arrays[self._prefix + key]
        what = tuple(value.shape) if hasattr(value, "shape") else f"(a {type(value).__name__})"
        return f"'{self._prefix}{key}' {what}"


def _torch_numpy(value: Any, what: str) -> np.ndarray:
    torch = sys.modules["torch"]
    try:
        value = value.detach().cpu()
        if value.dtype == torch.bfloat16:
            # NumPy has no bfloat16 of its own, so torch cannot hand it over: pass the bits.
            return value.view(torch.int16).numpy().view(jnp.bfloat16)
        return value.numpy()
    except (TypeError, RuntimeError) as error:
        raise ConversionError(
            f"{what} is a torch tensor of {value.dtype}, {value.layout} on {value.device}, and has "
            f"no array of numbers ({str(error).splitlines()[0]}). Expected a dense tensor of "
            "float16, bfloat16, float32 or float64: use .dequantize(), .to_dense() or "
            ".to(torch.bfloat16), or load the weights of a module that is on 'meta'."
        ) from error


def as_numpy(value: Any, what: str) -> np.ndarray:
    """Returns the array of any library as a NumPy array of the same dtype.

    Raises:
        ConversionError: `value` is no array of numbers.
    """
    if hasattr(value, "detach"):
        return _torch_numpy(value, what)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ConversionError(
            f"{what} holds a {type(value).__name__} of rows of unequal lengths; expected an array "
            "of numbers. Likely cause: a record of the training, which is no weight."
        ) from error
    if array.dtype == object:
        raise ConversionError(
            f"{what} holds a {type(value).__name__} of objects; expected an array of numbers."
        )
    return array


def common_dtype(dtypes: Iterable[Any]) -> np.dtype:
    """Returns the narrowest dtype that holds the numbers of all: float32 for two kinds of half.

    Example:
        >>> common_dtype([np.float16, jnp.bfloat16])
        dtype('float32')
    """
    found = {jnp.dtype(dtype) for dtype in dtypes}
    if found >= {jnp.dtype(np.float16), jnp.dtype(jnp.bfloat16)}:
        # NumPy knows no common dtype of these two.
        found.add(np.dtype(np.float32))
        found.remove(np.dtype(np.float16))
    return np.result_type(*found)


def as_jax(tree: Any) -> Any:
    """Returns `tree` with JAX arrays as leaves, in the dtype they have where JAX can have it."""
    # A copy: foreign memory that its owner goes on training must not change under JAX.
    return jax.tree.map(lambda leaf: jnp.array(leaf, dtype=runnable(leaf.dtype)), tree)


def runnable(dtype: Any) -> np.dtype:
    """Returns the dtype that JAX will give an array of `dtype`."""
    return jnp.dtype(np.float32 if dtype == np.float64 and not _has_x64() else dtype)


def flatten(tree: Mapping[Any, Any], separator: str = "/") -> dict[str, Any]:
    """Returns a nested mapping as a flat one, with the keys joined by `separator`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            for rest, leaf in flatten(value, separator).items():
                flat[f"{key}{separator}{rest}"] = leaf
        else:
            flat[str(key)] = value
    return flat


def count_gates(source: Source, key: str, axis: int, width: int) -> int:
    """Returns how many gates of `width` features are fused along `axis` of the kernel at `key`.

    Raises:
        ConversionError: it is not one (simple RNN), three (GRU) or four (LSTM).
    """
    shape = source.shape(key)
    gates, rest = divmod(shape[axis], width) if len(shape) == 2 and width else (0, 1)
    if rest or gates not in (1, 3, 4):
        source.mismatch(
            key,
            f"two axes, axis {axis} being {width} (RNN), {3 * width} (GRU) or {4 * width} (LSTM)",
        )
    return gates


def _has_x64() -> bool:
    return jax.dtypes.canonicalize_dtype(np.float64) == np.float64
