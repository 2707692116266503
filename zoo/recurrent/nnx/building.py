"""NNX modules by name, from Linen variables and from NNX's own layers, and back to Linen."""

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

import registry
from zoo.recurrent import convert
from zoo.recurrent.nnx import state
from zoo.recurrent.nnx.module import Recurrent


def build(
    name_or_mapping: str | Mapping[str, Any],
    in_features: int | jax.Array | jax.ShapeDtypeStruct,
    *,
    rngs: nnx.Rngs | jax.Array,
    **config: Any,
) -> Recurrent:
    """Builds a registered layer as an NNX module, parameters included.

    Args:
      name_or_mapping: as for ``registry.build``.
      in_features: D, the number of input features; see ``Recurrent``.
      rngs: random streams. Parameters are those of the Linen layer for the key ``rngs.params()``,
        or for the key itself if one is given.
      **config: options of the layer.

    Raises:
      registry.UnknownNameError: nothing has this name.
      registry.WrongOptionError: an option is unknown or missing.
      TypeError: the name stands for something else than a Linen layer; see ``Recurrent`` too.

    Example:
      >>> import jax
      >>> from flax import nnx
      >>> layer = build("scan_gru", 3, rngs=nnx.Rngs(0), features=4)
      >>> carry, ys = layer(None, jax.numpy.ones((7, 2, 3)))
      >>> ys.shape
      (7, 2, 4)
      >>> layer.hr.kernel.shape
      (4, 4)
      >>> carry, y = layer.step(carry, jax.numpy.ones((2, 3)))
    """
    layer, config = _built(name_or_mapping, config)
    return Recurrent(layer, in_features, rngs=rngs, config=config)


def from_linen(
    config: Mapping[str, Any],
    variables: Mapping[str, Any],
    *,
    rngs: nnx.Rngs | jax.Array | None = None,
) -> Recurrent:
    """Makes an NNX module of a Linen layer's configuration and variables.

    The converters' results go straight in: ``from_linen(*convert.from_torch(module))``.

    Args:
      config: what ``registry.build`` takes.
      variables: what ``layer.init`` returns.
      rngs: random streams, which only a layer with dropout or a random initial carry needs; they
        may be given to calls instead.

    Raises:
      ValueError: the variables are not those of this layer.
      TypeError: neither a configuration nor variables of Linen were given.

    Example:
      >>> import jax, registry
      >>> config = {"name": "scan_lstm", "features": 4}
      >>> xs = jax.numpy.ones((7, 2, 3))
      >>> variables = registry.build(config).init(jax.random.key(0), None, xs)
      >>> layer = from_linen(config, variables)
      >>> layer(None, xs)[1].shape
      (7, 2, 4)
    """
    layer, config = _built(config, {})
    return Recurrent(layer, rngs=rngs, variables=variables, config=config)


def to_linen(module: Recurrent) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the configuration and the variables of the Linen layer that a module is made of.

    Random streams stay behind: Linen takes keys with every call.

    Raises:
      ValueError: the module was not built by name.
      TypeError: it is another module.

    Example:
      >>> import jax, registry
      >>> from flax import nnx
      >>> module = build("scan_gru", 3, rngs=nnx.Rngs(0), features=4)
      >>> config, variables = to_linen(module)
      >>> config
      {'name': 'scan_gru', 'features': 4}
      >>> carry, ys = registry.build(config).apply(variables, None, jax.numpy.ones((7, 2, 3)))
    """
    if not isinstance(module, Recurrent):
        raise TypeError(
            f"to_linen: expected a module of zoo.recurrent.nnx, got {type(module).__name__}. Cure: "
            "for a model that contains one, the attribute that holds it; for a layer of Flax NNX, "
            "zoo.recurrent.convert.from_nnx."
        )
    definition = module.definition
    if definition.config is None:
        raise ValueError(
            f"to_linen: {type(definition.layer).__name__} was given as a layer, not by a name, so "
            "no configuration builds it. Cure: register it, and use build."
        )
    return dict(definition.config), state.boxed(module, definition.paths)


def from_nnx(
    module: Any, *, time_axis: int | None = None, rngs: nnx.Rngs | jax.Array | None = None
) -> Recurrent:
    """Makes a module of this project of ``nnx.RNN``, ``nnx.Bidirectional`` or a cell of Flax NNX.

    Args:
      module: see ``zoo.recurrent.convert.from_nnx``.
      time_axis: of the new module; by default what the old ones say: -2, or 0 if ``time_major``.
      rngs: as for ``from_linen``.

    Raises:
      zoo.recurrent.convert.ConversionError: no layer computes exactly the same.

    Example:
      >>> import jax
      >>> from flax import nnx
      >>> old = nnx.RNN(nnx.GRUCell(3, 4, rngs=nnx.Rngs(0)))
      >>> new = from_nnx(old)
      >>> xs = jax.numpy.ones((2, 7, 3))
      >>> carry, ys = new(None, xs)
      >>> bool(jax.numpy.allclose(ys, old(xs), atol=1e-6))
      True
    """
    return from_linen(*convert.from_nnx(module, time_axis=time_axis), rngs=rngs)


def _built(
    name_or_mapping: str | Mapping[str, Any], config: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """The Linen layer, and the mapping that it is built of."""
    if "name" in config:
        raise TypeError(
            "name: expected none, since a module of NNX has the name of the attribute that holds "
            f"it, got {config['name']!r}."
        )
    layer = registry.build(name_or_mapping, **config)
    given = name_or_mapping if isinstance(name_or_mapping, Mapping) else {"name": name_or_mapping}
    return layer, {**given, **config}
