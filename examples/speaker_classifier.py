"""The model of the vowel example, in Flax Linen and in Flax NNX."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from flax import nnx
from vowel_recordings import COEFFICIENTS, SPEAKERS

import registry
from zoo.recurrent import RecurrentLayer
from zoo.recurrent.nnx import build


class SpeakerClassifier(nn.Module):
    """Averages a recurrent layer's outputs over each recording and names the speaker.

    Attributes:
      layer: any recurrent layer with time first.
      dropout: of the averages.
    """

    layer: RecurrentLayer
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, xs: jax.Array, seq_lengths: jax.Array, key: jax.Array | None = None
    ) -> jax.Array:
        """Maps xs (T, B, D) and lengths (B,) to logits (B, speakers); drops if there is a key."""
        _, ys = self.layer(None, xs, seq_lengths=seq_lengths, deterministic=key is None)
        mean = ys.sum(axis=0) / seq_lengths[:, None].astype(ys.dtype)
        mean = nn.Dropout(self.dropout)(mean, deterministic=key is None, rng=key)
        return nn.Dense(SPEAKERS, name="readout")(mean)


class SpeakerModule(nnx.Module):
    """The same as a module of NNX.

    Args:
      layer: a mapping for ``zoo.recurrent.nnx.build``.
      in_features: D.
      dropout: of the averages.
      rngs: random streams.
    """

    def __init__(self, layer: dict[str, Any], in_features: int, dropout: float, *, rngs: nnx.Rngs):
        self.layer = build(layer, in_features, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)
        self.readout = nnx.Linear(self.layer.output_features, SPEAKERS, rngs=rngs)

    def __call__(
        self, xs: jax.Array, seq_lengths: jax.Array, key: jax.Array | None = None
    ) -> jax.Array:
        """Maps xs (T, B, D) and lengths (B,) to logits (B, speakers); drops if there is a key."""
        quiet = key is None
        _, ys = self.layer(None, xs, seq_lengths=seq_lengths, deterministic=quiet, rngs=key)
        mean = ys.sum(axis=0) / seq_lengths[:, None].astype(ys.dtype)
        return self.readout(self.dropout(mean, deterministic=quiet, rngs=key))


class Model(NamedTuple):
    """A model as two functions.

    Attributes:
      init: key, xs, lengths -> variables.
      logits: variables, xs, lengths, key or None -> logits (B, speakers).
    """

    init: Callable[[jax.Array, jax.Array, jax.Array], Any]
    logits: Callable[[Any, jax.Array, jax.Array, jax.Array | None], jax.Array]


def in_linen(layer: dict[str, Any], dropout: float) -> Model:
    """The model in Flax Linen."""
    model = SpeakerClassifier(registry.build(layer), dropout)

    def logits(variables: Any, xs: jax.Array, lengths: jax.Array, key: Any = None) -> jax.Array:
        rngs = {} if key is None else {"dropout": key}
        return model.apply(variables, xs, lengths, key, rngs=rngs)

    return Model(model.init, logits)


def in_nnx(layer: dict[str, Any], dropout: float, in_features: int = COEFFICIENTS) -> Model:
    """The model in Flax NNX, with the parameters that the other one has for the same key."""
    module = SpeakerModule(layer, in_features, dropout, rngs=nnx.Rngs(0))
    graphdef, drawn, rest = nnx.split(module, nnx.Param, ...)

    def init(key: jax.Array, xs: jax.Array, lengths: jax.Array) -> Any:
        # Paths are the same in both, so that the parameters of the one are a state of the other.
        params = in_linen(layer, dropout).init(key, xs, lengths)["params"]
        state = jax.tree.map(lambda x: x, drawn)
        nnx.replace_by_pure_dict(state, params)
        return state

    def logits(state: Any, xs: jax.Array, lengths: jax.Array, key: Any = None) -> jax.Array:
        return nnx.merge(graphdef, state, rest, copy=True)(xs, lengths, key)

    return Model(init, logits)
