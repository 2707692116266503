"""Layers made of layers: how inner layers are named, kept and built."""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

import registry
from zoo.recurrent.call import checks, conditions, reading, sequence
from zoo.recurrent.call.conditions import Conditions
from zoo.recurrent.composites.pointwise import Pointwise
from zoo.recurrent.contract import Carry, RecurrentLayer, only_declares
from zoo.recurrent.engine.parts import Parts

LayerLike = str | Mapping[str, Any] | Callable[..., Any]

_BUILDER_DOC = """Builds ``{0}``; options that it does not know go to the inner layers.

Args:
  *args: see ``{0}``.
  **options: see ``{0}``; all others are options of the inner layers.

Returns:
  The layer.

Raises:
  TypeError: an inner layer does not know an option.
  ValueError: an option has no possible value.
"""


class Composite(RecurrentLayer):
    """Base class of layers made of layers.

    Configurations among the options are frozen: mappings become ``flax.core.FrozenDict``, lists
    become tuples. A composite is so hashable and equal by value, as Flax's own modules are.
    """

    inner: ClassVar[tuple[str, ...]] = ("layer",)
    """The fields that hold configurations of inner layers."""

    def __post_init__(self) -> None:
        """Freezes the options."""
        for field in dataclasses.fields(self):
            if field.init and field.name not in ("parent", "name"):
                object.__setattr__(self, field.name, _frozen(getattr(self, field.name)))
        super().__post_init__()

    @property
    def one_output(self) -> bool:
        """Whether ys is one array, so that another layer can read it."""
        return True

    @nn.nowrap
    def _recurrent(self) -> Iterable[RecurrentLayer]:
        """The recurrent layers inside, bound to nothing; for subclasses to define."""
        raise NotImplementedError

    @property
    def sequence_axis(self) -> str | None:
        """The mesh axis that all layers inside share time out over; see ``LinearLayer``."""
        names = {getattr(layer, "sequence_axis", None) for layer in self._recurrent()}
        if len(names) > 1:
            raise ValueError(
                "sequence_axis: expected the same of all inner layers, got "
                f"{' and '.join(sorted(map(repr, names)))}. Likely cause: a layer whose steps need "
                "the state before them, for which time is whole. Cure: linear recurrences only, "
                "each with this option."
            )
        return names.pop()

    @nn.nowrap
    def _own_steps(self, given: Conditions, xs: jax.Array, axis: int) -> Conditions:
        """Conditions whose lengths are a mask, where this device has a part of time only.

        What lies between layers counts steps from zero, on whatever device it is.
        """
        axis_name = self.sequence_axis
        if axis_name is None or only_declares():
            return given
        axes = sequence.manual_axes(axis_name, xs, ("seq_lengths", given.seq_lengths))
        if not axes or given.seq_lengths is None:
            return given
        every_step = xs.shape[: xs.ndim - self.feature_axes]
        parts, steps = Parts(axes), xs.shape[axis]
        lengths, mask, _ = checks.conditions(
            *(given.seq_lengths, given.mask, given.resets),
            every_step[:axis] + every_step[axis + 1 :],
            every_step,
            steps * parts.count,
        )
        mask = None if mask is None else jnp.moveaxis(mask, axis, 0)
        valid = conditions.valid_steps(steps, lengths, mask, parts.first_step(steps))
        assert valid is not None
        return given._replace(seq_lengths=None, mask=jnp.moveaxis(valid, 0, axis))

    @nn.nowrap
    def _checked(self, carry: Carry | None, xs: jax.Array) -> tuple[Carry | None, int]:
        """Checks the carry and the inputs of a call; returns the carry, and where time is."""
        axes = self.feature_axes
        xs = checks.inputs(xs, time_axis=self.time_axis, features=None, feature_axes=axes)
        axis = checks.normal_axis(self.time_axis, xs.ndim, feature_axes=axes)
        spec = self.carry_spec(xs.shape[:axis] + xs.shape[axis + 1 :])
        carry = checks.carry(carry, spec, xs_shape=xs.shape, time_axis=self.time_axis)
        return carry, axis


def builder(name: str, composite: type[Composite]) -> Callable[..., Composite]:
    """Returns a function that builds a composite; what it does not know goes to the inner layers.

    The function's signature is that of the class, and ``**options``.

    Args:
      name: what the function is called.
      composite: the class.

    Example:
      >>> from zoo.recurrent import Bidirectional
      >>> build = builder("build", Bidirectional)
      >>> build("scan_gru", features=4).layer["features"]
      4
      >>> list(inspect.signature(build).parameters)[-3:]
      ['parent', 'name', 'options']
    """
    kinds = inspect.Parameter
    parameters = [
        kinds(
            field.name,
            kinds.KEYWORD_ONLY if field.name in ("parent", "name") else kinds.POSITIONAL_OR_KEYWORD,
            default=kinds.empty if field.default is dataclasses.MISSING else field.default,
            annotation=field.type,
        )
        for field in dataclasses.fields(composite)
        if field.init
    ]
    parameters.sort(key=lambda parameter: parameter.kind)
    parameters.append(kinds("options", kinds.VAR_KEYWORD, annotation=Any))
    signature = inspect.Signature(parameters, return_annotation=composite)

    def build(*args: Any, **options: Any) -> Composite:
        given = signature.bind(*args, **options).arguments
        rest = given.pop("options", {})
        for field in composite.inner:
            if given.get(field) is not None:
                given[field] = _with_options(given[field], rest)
        return composite(**given)

    build.__name__ = build.__qualname__ = name
    build.__module__ = composite.__module__
    build.__doc__ = _BUILDER_DOC.format(composite.__name__)
    build.__signature__ = reading.readable(signature)
    return build


def config_of(layer: LayerLike, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns one mapping for an inner layer, its options merged.

    Args:
      layer: a registered name, a mapping with "name" and options, or a layer class.
      options: further options, which win over the mapping's.

    Raises:
      TypeError: ``layer`` is something else.
    """
    config = {**layer, **options} if isinstance(layer, Mapping) else {"name": layer, **options}
    what = config.get("name")
    if isinstance(what, str) or (callable(what) and not isinstance(what, nn.Module)):
        return config
    got = f"a mapping whose name is {what!r}" if isinstance(layer, Mapping) else repr(type(layer))
    raise TypeError(
        "layer: expected a registered name, a mapping such as "
        f'{{"name": "scan_gru", "features": 64}} or a layer class, got {got}. '
        "A layer that is already built cannot be repeated: give its class or its mapping."
    )


def is_plain(entry: LayerLike) -> bool:
    """Whether an entry of a list is no recurrent layer: a function, or another Flax module's class.

    Args:
      entry: a registered name, a mapping with "name" and options, a class or a function.

    Raises:
      TypeError: it is none of these.
    """
    factory = _factory(config_of(entry, {}))
    if isinstance(factory, type):
        known = RecurrentLayer, nn.RNNCellBase
        return issubclass(factory, nn.Module) and not issubclass(factory, known)
    return not isinstance(entry, str | Mapping)


def build_plain(entry: LayerLike, *, time_axis: int, reverse: bool) -> Pointwise:
    """Builds a ``Pointwise`` of what is plain; ``reverse`` says nothing to it."""
    config = config_of(entry, {})
    options = {key: value for key, value in config.items() if key != "name"}
    return Pointwise(_factory(config), _frozen(options), time_axis, parent=None)


def build_inner(config: LayerLike, **forced: Any) -> RecurrentLayer:
    """Builds an inner layer.

    Args:
      config: see ``config_of``.
      **forced: options that the composite decides (``time_axis``, ``reverse``). A layer with a
        ``reverse`` of its own runs the other way than the composite says.

    Raises:
      ValueError: the inner configuration contradicts the composite.
      TypeError: what was built is no recurrent layer.
    """
    config = config_of(config, {})
    axis = forced["time_axis"]
    if config.get("time_axis", axis) != axis:
        raise ValueError(
            f"the inner layer has time_axis={config['time_axis']!r}, the one around it "
            f"time_axis={axis!r}: expected the same. Cure: set it on the outermost layer only."
        )
    forced["reverse"] = bool(forced["reverse"]) != bool(config.get("reverse", False))
    what = config["name"]
    factory = _factory(config)
    if isinstance(factory, type) and not issubclass(factory, RecurrentLayer):
        raise _no_layer(what, f"the class {factory.__name__}", factory)
    if isinstance(what, str):
        layer = registry.build(config, **forced, parent=None)
    else:
        options = {key: value for key, value in config.items() if key != "name"}
        try:
            layer = factory(**{**options, **forced}, parent=None)
        except TypeError as error:
            if isinstance(factory, type):
                raise
            raise _no_layer(what, f"a function that answers: {error}") from error
    if not isinstance(layer, RecurrentLayer):
        raise _no_layer(what, type(layer).__name__, type(layer))
    if isinstance(layer, Composite) and not layer.one_output:
        raise TypeError(
            f"layer: expected an inner layer whose ys is one array, got {what!r} with merge=None, "
            "whose ys are two. Cure: merge them, or make it the outermost layer."
        )
    return layer


def call_inner(
    layer: RecurrentLayer, method: str, carry: Carry | None, xs: jax.Array, given: Conditions
) -> tuple[Carry, Any]:
    """Calls a method of a layer inside with what the layer around it was given.

    Args:
      layer: the layer.
      method: "__call__", "history" or "step".
      carry: its carry, or None.
      xs: its inputs, of one step for "step".
      given: the conditions; intervals go to layers that read them.
    """
    known = {} if method == "step" else given._asdict()
    known.pop("intervals", None)
    if given.intervals is not None and layer.reads_intervals:
        known["intervals"] = given.intervals
    return getattr(layer, method)(carry, xs, **known)


def _no_layer(what: Any, got: str, kind: type | None = None) -> TypeError:
    cure = "Give a registered name, a mapping with one, or the class of a recurrent layer."
    if kind is not None and issubclass(kind, nn.RNNCellBase):
        cure = f"A cell becomes a layer by zoo.recurrent.scanned({kind.__name__})."
    elif kind is not None and issubclass(kind, nn.Module):
        cure += ' Other modules may stand between layers, in the list "layers" of a stack.'
    return TypeError(f"layer: expected {what!r} to build a RecurrentLayer, got {got}. {cure}")


def _factory(config: Mapping[str, Any]) -> Callable[..., Any]:
    what = config["name"]
    return registry.spec(what).factory if isinstance(what, str) else what


def _with_options(layers: Any, options: Mapping[str, Any]) -> Any:
    """Merges options into the configuration of a layer, or of every recurrent layer of a list."""
    if isinstance(layers, list | tuple):
        return tuple(x if is_plain(x) else config_of(x, options) for x in layers)
    return config_of(layers, options)


def _frozen(value: Any) -> Any:
    """Copies mappings, lists and sets to what cannot change; everything else is left as it is."""
    if isinstance(value, Mapping):
        return FrozenDict({key: _frozen(x) for key, x in value.items()})
    if isinstance(value, list) or type(value) is tuple:
        return tuple(map(_frozen, value))
    return frozenset(value) if isinstance(value, set) else value
