"""Validation of what a caller passes: once per call, at trace time, in words that help.

Shapes and dtypes go through chex, so that ``chex.disable_asserts()`` turns them off together with
a program's own. Their errors are AssertionErrors as well, for code that catches chex's failures.
"""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

import registry
from zoo.recurrent import unstable

_CURES = {
    bool: "Convert it with `!= 0`.",
    int: "Lengths are whole steps.",
    float: "Times are numbers of floating point.",
}


class ShapeError(ValueError, AssertionError):
    """An array has another rank or shape than the contract says."""


class DTypeError(TypeError, AssertionError):
    """An array has another dtype than the contract says."""


def array(name: str, value: Any, what: str) -> jax.Array:
    """Requires an array and returns it as one.

    Raises:
      TypeError: it is something else.
    """
    if isinstance(value, jax.Array):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return jnp.asarray(value)
    cure = "Convert it with jnp.asarray."
    if name == "xs":
        cure = "Likely cause: the arguments are (carry, xs); pass carry=None for the initial carry."
    raise TypeError(f"{name}: expected {what}, got {type(value).__name__}. {cure}")


def inputs(
    xs: Any,
    *,
    time_axis: int | None,
    features: int | None,
    name: str = "xs",
    feature_axes: int = 1,
) -> jax.Array:
    """Checks the inputs of a call, or of one step.

    Args:
      xs: the inputs, float (T, *batch, D) for time_axis 0; (*batch, D) where it is None.
      time_axis: where time is; None for one step.
      features: D of existing parameters, or None where there are none yet.
      name: what the caller calls the array.
      feature_axes: how many of the last axes are features.

    Returns:
      xs as a JAX array.

    Raises:
      TypeError: it is no array, or not one of floating point.
      ValueError: it has too few axes, or another feature size than the parameters.
    """
    last = "D" if feature_axes == 1 else f"{feature_axes - 1} axes of space, D"
    shape = f"(T, *batch, {last})" if time_axis is not None else f"(*batch, {last})"
    xs = array(name, xs, f"a float array {shape}")
    chex.assert_type(
        xs,
        float,
        custom_message=(
            f"{name}: expected a floating dtype, got {xs.dtype}{list(xs.shape)}. Likely cause: "
            "token ids, or a mask in the place of the inputs; embed or convert them first."
        ),
        exception_type=DTypeError,
    )
    least = feature_axes if time_axis is None else feature_axes + 1
    if xs.ndim < least:
        cause = (
            "a single feature without its axis; use xs[..., None]."
            if time_axis is not None
            else "a scalar, or xs of a whole sequence where one step is expected."
        )
        raise ShapeError(f"{name}: expected {shape}, got shape {xs.shape}. Likely cause: {cause}")
    time = None
    if time_axis is not None:
        time = normal_axis(time_axis, xs.ndim, name, feature_axes)
    if features is not None and xs.shape[-1] != features:
        cause = ""
        if time is not None and xs.shape[time] == features:
            cause = (
                " Likely cause: the feature axis comes last; this array has it where time should "
                f"be, at axis {time}: (D, T) instead of (T, D)? Transpose it."
            )
        elif time_axis is not None and features in xs.shape:
            cause = " Likely cause: the axes are in another order; the feature axis comes last."
        chex.assert_axis_dimension(
            xs,
            xs.ndim - 1,
            features,
            custom_message=(
                f"{name}: expected {features} features on the last axis, the width that the "
                f"existing parameters have, got shape {xs.shape}.{cause}"
            ),
            exception_type=ShapeError,
        )
    return xs


def normal_axis(time_axis: int, ndim: int, name: str = "xs", feature_axes: int = 1) -> int:
    """The time axis counted from the front, for an array of ``ndim`` axes, the features last.

    Raises:
      ValueError: there is no such axis, or it is the feature axis.
    """
    axis = time_axis + ndim if time_axis < 0 else time_axis
    if not 0 <= axis < ndim - feature_axes:
        last = (
            "the last, which holds" if feature_axes == 1 else f"the last {feature_axes}, which hold"
        )
        raise ShapeError(
            f"time_axis={time_axis} does not fit {name} with {ndim} axes: expected an axis before "
            f"{last} the features. Likely cause: {name} lacks its batch or time axis."
        )
    return axis


def carry(given: Any, expected: Any, *, xs_shape: tuple[int, ...], time_axis: int | None) -> Any:
    """Checks a carry as a whole tree against what the layer expects.

    Args:
      given: the carry as it was passed; None stays None.
      expected: the same tree of ``jax.ShapeDtypeStruct``.
      xs_shape: shape of the inputs, for the message.
      time_axis: where time is in them; None for one step.

    Returns:
      The carry with its leaves as JAX arrays, and tuples where lists were restored for them.

    Raises:
      TypeError: another structure, or leaves that are not floating-point arrays.
      ValueError: another shape.
    """
    if given is None:
        return None
    given = _with_containers_of(expected, given)
    want, have = jax.tree.structure(expected), jax.tree.structure(given)
    shapes = jax.tree.map(lambda x: x.shape, expected)
    if want != have:
        cause = "the carry of another kind of layer, or of one direction or layer only."
        if want == jax.tree.structure((0, 0)):
            cause = "an LSTM carry is the pair (c, h), in this order."
        if any(not hasattr(leaf, "shape") for leaf in jax.tree.leaves(given)):
            cause = "numbers in the place of arrays, as JSON holds them; use jnp.asarray on each."
        elif isinstance(given, dict):
            cause = "a state dict; flax.serialization.from_state_dict(target, it) makes a carry."
        raise DTypeError(
            f"carry: expected the structure {_brief(expected)}, got {_brief(given)}. "
            f"Likely cause: {cause} Use layer.initialize_carry, or None."
        )
    given = jax.tree.map(_carry_leaf, given, expected)
    for path, (got, ref) in _pairs(given, expected):
        where = f"carry{path}"
        kind, name = _kind(ref)
        if not jnp.issubdtype(got.dtype, kind):
            raise DTypeError(f"{where}: expected {name}, got {got.dtype}{list(got.shape)}.")
        chex.assert_shape(
            got,
            ref.shape,
            custom_message=(
                f"{where}: expected shape {ref.shape}, got {got.shape} (whole carry expected: "
                f"{shapes}; xs: {xs_shape}).{_carry_cause(given, expected, xs_shape, time_axis)}"
            ),
            exception_type=ShapeError,
        )
    return given


def _carry_leaf(given: Any, expected: Any) -> jax.Array:
    if expected.shape == () and isinstance(given, int | float):
        whole = isinstance(given, int) and jnp.issubdtype(expected.dtype, jnp.number)
        return jnp.asarray(given, expected.dtype if whole else None)
    return array("carry", given, f"an array of {_kind(expected)[1]}")


def _kind(x: Any) -> tuple[Any, str]:
    kinds = (jnp.floating, "a floating dtype"), (jnp.integer, "whole numbers"), (jnp.bool_, "bools")
    others = (jnp.complexfloating, "a complex dtype"), (jax.dtypes.prng_key, "random keys")
    return next(kind for kind in (*kinds, *others) if jnp.issubdtype(x.dtype, kind[0]))


def _with_containers_of(expected: Any, given: Any) -> Any:
    # Plain ones only: a named tuple may have its fields in another order.
    plain = {type(expected), type(given)} <= {list, tuple}
    if plain and len(given) == len(expected):
        return type(expected)(map(_with_containers_of, expected, given))
    if type(given) is type(expected) is dict and given.keys() == expected.keys():
        return {key: _with_containers_of(each, given[key]) for key, each in expected.items()}
    return given


def _carry_cause(
    given: Any, expected: Any, xs_shape: tuple[int, ...], time_axis: int | None
) -> str:
    got = [x.shape for x in jax.tree.leaves(given)]
    want = [x.shape for x in jax.tree.leaves(expected)]
    if len(got) == 2 and got[::-1] == want:
        return " Likely cause: an LSTM carry is (c, h); this looks like (h, c)."
    if all(len(g) == len(w) and g[:-1] == w[:-1] for g, w in zip(got, want, strict=True)):
        return " Likely cause: a carry of another width; features decides it, not the carry."
    if time_axis == 0 and len(xs_shape) == 3 and all(g[:1] == xs_shape[:1] for g in got):
        return (
            " Likely cause: xs is batch-major (B, T, D); build the layer with time_axis=1, or "
            "swap the first two axes."
        )
    return " Likely cause: a carry of another batch."


def steps(name: str, value: Any, shape: tuple[int, ...], kind: type, what: str) -> jax.Array | None:
    """Checks ``seq_lengths``, ``mask``, ``resets`` or ``intervals``; None stays None.

    Raises:
      TypeError: another dtype.
      ValueError: another shape.
    """
    if value is None:
        return None
    value = array(name, value, what)
    chex.assert_type(
        value,
        kind,
        custom_message=f"{name}: expected {what}, got {value.dtype}{list(value.shape)}. "
        + _CURES[kind],
        exception_type=DTypeError,
    )
    chex.assert_shape(
        value,
        shape,
        custom_message=(
            f"{name}: expected shape {shape} ({what}), got {value.shape}. Likely cause: "
            "another time_axis, a missing batch axis, or a feature axis too many."
        ),
        exception_type=ShapeError,
    )
    return value


def conditions(
    seq_lengths: Any,
    mask: Any,
    resets: Any,
    batch: tuple[int, ...],
    steps_shape: tuple[int, ...],
    total: int,
) -> tuple[jax.Array | None, jax.Array | None, jax.Array | None]:
    """Checks a call's lengths, mask and resets, any of which may be None.

    Args:
      seq_lengths: int (*batch,).
      mask: bool, the axes of xs without the last.
      resets: like ``mask``.
      batch: the batch axes of xs.
      steps_shape: the shape of xs without the last axis.
      total: T.

    Returns:
      The three as JAX arrays.

    Raises:
      TypeError: another dtype.
      ValueError: another shape, or a concrete length outside [0, T].
    """
    what = "bool, the axes of xs without the last"
    seq_lengths = steps("seq_lengths", seq_lengths, batch, int, "int (*batch,)")
    lengths_in_range(seq_lengths, total)
    mask = steps("mask", mask, steps_shape, bool, what)
    return seq_lengths, mask, steps("resets", resets, steps_shape, bool, what)


def intervals(given: Any, shape: tuple[int, ...]) -> jax.Array | None:
    """Checks the elapsed time of every step, or of one; None stays None.

    Args:
      given: float, the axes of xs (or x) without its features.
      shape: these axes.

    Raises:
      TypeError: another dtype.
      ValueError: another shape, or a concrete interval that is negative.
    """
    what = "float, the axes of xs without the last"
    value = steps("intervals", given, shape, float, what)
    known = _known(value)
    if known is not None and (least := known.min()) < 0:
        raise ShapeError(
            f"intervals: expected no negative elapsed time, got a minimum of {least}. Likely "
            "cause: times of day, or differences taken in the other order."
        )
    return value


def no_intervals(layer: str) -> TypeError:
    """The error of a layer that knows no elapsed time."""
    known = [name for name in registry.names() if "intervals" in (registry.spec(name).inputs or "")]
    return TypeError(
        f"intervals: expected None, got elapsed times: {layer} knows no time between steps. Cure: "
        f"build {' or '.join(known)}, or give the intervals as a feature of xs."
    )


def lengths_in_range(seq_lengths: jax.Array | None, total: int) -> None:
    """Requires concrete lengths to lie in [0, T]; traced ones are clamped by whoever uses them.

    Raises:
      ValueError: one of them does not.
    """
    values = _known(seq_lengths)
    if values is None:
        return
    if values.min() < 0 or values.max() > total:
        raise ShapeError(
            f"seq_lengths: expected values in [0, T] with T={total}, got a minimum of "
            f"{values.min()} and a maximum of {values.max()}. Likely cause: lengths of another "
            "batch, or xs was cut to fewer steps."
        )


def _known(x: jax.Array | None) -> np.ndarray | None:
    """The values of an array; None where there are none, or none that this process knows."""
    if x is None or unstable.is_traced(x) or not x.size or not x.is_fully_addressable:
        return None
    return np.asarray(x)


def unsharded_time(xs: jax.Array, axis: int) -> None:
    """Requires time to be whole on every device of an explicit mesh: steps follow one another.

    Raises:
      ValueError: it is sharded.
    """
    spec = jax.typeof(xs).sharding.spec
    if spec[axis] is None:
        return
    whole = [None if k == axis else entry for k, entry in enumerate(spec)]
    raise ShapeError(
        f"xs: expected a time axis ({axis}) that is whole on every device, because each step needs "
        f"the one before, got {xs.dtype}{list(xs.shape)} where it is sharded over the mesh axis "
        f"{spec[axis]!r}. Likely cause: the batch axis was meant, or time_axis is another one. "
        f"Cure: jax.sharding.reshard(xs, jax.P({', '.join(map(repr, whole))}))."
    )


def _pairs(given: Any, expected: Any) -> list[tuple[str, tuple[Any, Any]]]:
    flat, _ = jax.tree_util.tree_flatten_with_path(given)
    refs = jax.tree.leaves(expected)
    return [
        (jax.tree_util.keystr(path), (leaf, ref))
        for (path, leaf), ref in zip(flat, refs, strict=True)
    ]


def _brief(tree: Any) -> str:
    def brief(x: Any) -> str:
        shape = getattr(x, "shape", None)
        return f"array{tuple(shape)}" if shape is not None else type(x).__name__

    return str(jax.tree.map(brief, tree)).replace("'", "")
