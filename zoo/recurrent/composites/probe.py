"""What is found out about a Flax cell before it has parameters: its carry, its outputs."""

import contextlib
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.recurrent import jaxprs, unstable


class NoInitialCarryError(ValueError):
    """The cell has no initial carry of its own."""


class _Initial(nn.Module):
    """Asks a cell for its initial carry as ``nn.RNN`` does, where the cell is bound."""

    cell: nn.RNNCellBase

    def __call__(self, rng: jax.Array, input_shape: tuple[int, ...]) -> Any:
        return self.cell.initialize_carry(rng, input_shape)


def initial_carry(
    cell: nn.RNNCellBase, rng: jax.Array, input_shape: tuple[int, ...], variables: Any
) -> Any:
    """Returns a cell's initial carry.

    Args:
      cell: the cell, unbound.
      rng: a key.
      input_shape: shape of one step's input.
      variables: the cell's variables.

    Raises:
      NoInitialCarryError: the cell does not define one.
      flax.errors.FlaxError: it is made of a variable that is missing, or of a random stream.
    """
    given = {collection: {"cell": tree} for collection, tree in variables.items()}
    with _aside(), _in_words(cell):
        return _Initial(cell, parent=None).apply(given, rng, tuple(input_shape))


def carry_spec(cell: nn.RNNCellBase, input_shape: tuple[int, ...]) -> Any:
    """Returns the tree of ``jax.ShapeDtypeStruct`` of a cell's initial carry.

    Raises:
      NoInitialCarryError: the cell does not define one.
    """
    with _aside(), _in_words(cell):
        return jax.eval_shape(lambda key: _fresh(cell, key, input_shape), _key())


def is_random(cell: nn.RNNCellBase, input_shape: tuple[int, ...]) -> bool:
    """Whether a cell's initial carry depends on its key."""
    try:
        with _aside(), _in_words(cell):
            jaxpr, _, _ = jaxprs.trace(
                lambda key: _fresh(cell, key, input_shape), jax.random.key(0)
            )
    except jaxprs.UnknownProgramError:
        return False
    return bool(jaxprs.behind(jaxpr, jaxpr.outvars)[0])


def output_spec(cell: nn.RNNCellBase, carry: Any, x: Any) -> Any:
    """Returns the tree of ``jax.ShapeDtypeStruct`` of a cell's outputs for one step."""
    with _aside():
        (_, y), _ = jax.eval_shape(cell.init_with_output, _key(), carry, x)
    return y


def wants_whole_numbers(cell: nn.RNNCellBase, carry: Any, shape: tuple[int, ...]) -> bool:
    """Whether a cell refuses inputs of floating point, as one with an ``nn.Embed`` inside does."""
    try:
        output_spec(cell, carry, jax.ShapeDtypeStruct(shape, jnp.float32))
    except (TypeError, ValueError):
        return True
    return False


def width(cell: nn.RNNCellBase, feature_axes: int) -> int | None:
    """Returns the size of the last axis of a cell's output, or None where that is not to be found.

    The width of inputs, which is not known, is taken to be ``features`` where the cell has such an
    option, and 1 elsewhere.
    """
    try:
        return _known_width(cell, feature_axes)  # pyright: ignore[reportArgumentType]
    except TypeError:  # an option that cannot be hashed
        return _width(cell, feature_axes)


def _width(cell: nn.RNNCellBase, feature_axes: int) -> int | None:
    features = getattr(cell, "features", None)
    for last in dict.fromkeys((features if isinstance(features, int) else 1, 1)):
        shape = (1,) * feature_axes + ((last,) if feature_axes else ())
        for dtype in (jnp.float32, jnp.int32):
            try:
                carry = carry_spec(cell, shape)
                y = output_spec(cell, carry, jax.ShapeDtypeStruct(shape, dtype))
            except Exception:
                # Whatever a cell raises for a width that was guessed is no one's mistake.
                continue
            return y.shape[-1] if getattr(y, "ndim", 0) else None
    return features if isinstance(features, int) else None


_known_width = functools.lru_cache(maxsize=256)(_width)


def _fresh(cell: nn.RNNCellBase, key: jax.Array, input_shape: tuple[int, ...]) -> Any:
    """The initial carry with new variables, whose key is another one."""
    initial, _ = _Initial(cell, parent=None).init_with_output(
        jax.random.key(0), key, tuple(input_shape)
    )
    return jax.tree.map(jnp.asarray, initial)


def _key() -> jax.ShapeDtypeStruct:
    return jax.eval_shape(lambda: jax.random.key(0))


def _aside() -> Any:
    """Keeps questions out of the table of ``nn.tabulate``, where every call is a row."""
    # Outside of it nothing must be written down: it would be taken for a leak of tracers.
    tabulating = getattr(unstable.find("flax.linen.module:_context"), "call_info_stack", None)
    table = unstable.find("flax.linen.module:_tabulate_context")
    return table() if tabulating and table is not None else contextlib.nullcontext()


@contextlib.contextmanager
def _in_words(cell: nn.RNNCellBase) -> Any:
    try:
        yield
    except NotImplementedError as error:
        name = type(cell).__name__
        raise NoInitialCarryError(
            f"carry: expected one, got None, or resets to it: {name} has no initial carry, because "
            "it does not define initialize_carry. Pass a carry, and no resets, or define "
            f"{name}.initialize_carry(rng, input_shape)."
        ) from error
