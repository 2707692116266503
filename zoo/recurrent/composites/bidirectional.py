"""A layer that runs another one in both directions."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.recurrent.call import conditions, options
from zoo.recurrent.call.conditions import Conditions
from zoo.recurrent.composites.composition import (
    Composite,
    LayerLike,
    build_inner,
    builder,
    call_inner,
)
from zoo.recurrent.contract import Carry, RecurrentLayer

Merge = Callable[[jax.Array, jax.Array], jax.Array]

_MERGES: dict[str, Merge] = {
    "concat": lambda forward, backward: jnp.concatenate([forward, backward], axis=-1),
    "sum": jnp.add,
    "mul": jnp.multiply,
    "mean": lambda forward, backward: (forward + backward) * 0.5,
}
_LINEAR = ("concat", "sum", "mean")


class Bidirectional(Composite):
    """Runs a layer forwards and another of the same kind backwards, and merges their outputs.

    The carry is the pair (forward, backward). Parameters lie under ``forward`` and ``backward``.
    With lengths, the backward layer starts at each sequence's own end. It cannot be streamed.

    When to choose it:
      Where the whole sequence is known before an answer is due, as in tagging, in recognising
      recorded speech, or in an encoder: every output then knows what comes before and after it. It
      can neither be streamed nor generate step by step.

    Attributes:
      layer: the inner layer: a registered name, a mapping such as
        ``{"name": "scan_gru", "features": 64}``, or a layer class.
      merge: "concat" (2H features), "sum", "mul", "mean", or a function of both outputs, arrays
        (T, *batch, H), whose result has their axes but the last. With None, ys are the pair
        (forward, backward); no other layer can read it, so this is for the outermost one.
      time_axis: where time is, for both.
      reverse: swaps the directions: the parameters under ``forward`` run backwards. So does a
        ``reverse`` of the inner layer.

    Example:
      >>> import jax, jax.numpy as jnp, registry
      >>> layer = registry.build("bidirectional", layer="scan_gru", features=4)
      >>> xs = jnp.ones((7, 2, 3))
      >>> variables = layer.init(jax.random.key(0), None, xs)
      >>> (forward, backward), ys = layer.apply(
      ...     variables, None, xs, seq_lengths=jnp.array([7, 5]))
      >>> forward.shape, ys.shape
      ((2, 4), (7, 2, 8))

    References:
      Schuster & Paliwal, Bidirectional Recurrent Neural Networks, 1997.
    """

    layer: LayerLike
    merge: str | Merge | None = "concat"
    time_axis: int = 0
    reverse: bool = False

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        options.check(self)
        self._inner(self.reverse)

    def setup(self) -> None:
        """Builds both directions."""
        self.forward = self._inner(self.reverse)
        self.backward = self._inner(not self.reverse)

    @nn.nowrap
    def _inner(self, reverse: bool) -> RecurrentLayer:
        return build_inner(self.layer, time_axis=self.time_axis, reverse=reverse)

    @nn.nowrap
    def _recurrent(self) -> tuple[RecurrentLayer]:
        return (self._inner(False),)

    @property
    def output_features(self) -> int:
        """Size of the last axis of ys, after merging."""
        if self.merge is None:
            raise ValueError(
                "output_features: expected one array of outputs, got merge=None, with which there "
                "are two, (forward, backward), as wide as the inner layer's. Cure: merge them."
            )
        one = jax.ShapeDtypeStruct((1, 1, self._inner(False).output_features), jnp.float32)
        return jax.eval_shape(self._merge, one, one).shape[-1]

    @property
    def one_output(self) -> bool:
        """Whether both outputs are merged."""
        return self.merge is not None

    @property
    def feature_axes(self) -> int:
        """Those of the inner layer."""
        return self._inner(False).feature_axes

    @property
    def reads_intervals(self) -> bool:
        """Whether the inner layer does."""
        return self._inner(False).reads_intervals

    @property
    def causal(self) -> bool:
        """False: every output depends on the whole sequence."""
        return False

    @nn.nowrap
    def carry_spec(self, input_shape: tuple[int, ...]) -> Carry:
        """Returns the pair of both carries' shapes and dtypes; see ``RecurrentLayer``."""
        spec = self._inner(False).carry_spec(input_shape)
        return spec, spec

    @nn.nowrap
    def _merge(self, forward: jax.Array, backward: jax.Array) -> jax.Array:
        merge = self.merge if callable(self.merge) else _MERGES[str(self.merge)]
        ys = merge(forward, backward)
        if not isinstance(ys, jax.Array) or not ys.ndim or ys.shape[:-1] != forward.shape[:-1]:
            got = f"shape {ys.shape}" if isinstance(ys, jax.Array) else type(ys).__name__
            raise ValueError(
                f"merge: expected a function of two arrays {forward.shape} that returns one array "
                f"{(*forward.shape[:-1], 'width')}, got {got}. Likely cause: it works along "
                "another axis than the last. For both outputs as a pair, build with merge=None."
            )
        return ys

    def _sequence(
        self, carry: Carry | None, xs: jax.Array, given: Conditions, *, history: bool
    ) -> tuple[Carry, Any]:
        carry, axis = self._checked(carry, xs)
        given = self._own_steps(given, xs, axis)
        first, second = (None, None) if carry is None else carry
        method = "history" if history else "__call__"
        first, forward = call_inner(self.forward, method, first, xs, given)
        second, backward = call_inner(self.backward, method, second, xs, given)
        ys = self._merged(forward, backward, xs.shape[axis], axis, given.seq_lengths, given.mask)
        return (first, second), ys

    def _merged(
        self,
        forward: jax.Array,
        backward: jax.Array,
        steps: int,
        axis: int,
        seq_lengths: jax.Array | None,
        mask: jax.Array | None,
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        if self.merge is None:
            return forward, backward
        if self.merge in _LINEAR:
            return self._merge(forward, backward)
        # What lies before a reset in one direction may lie after it in the other.
        ys = conditions.skipping_nan(self._merge, forward, backward)
        if not callable(self.merge) or (seq_lengths is None and mask is None):
            return ys
        # A function may make something of two zeros.
        mask = None if mask is None else jnp.moveaxis(jnp.asarray(mask), axis, 0)
        seq_lengths = None if seq_lengths is None else jnp.asarray(seq_lengths)
        valid = conditions.valid_steps(steps, seq_lengths, mask)
        assert valid is not None
        return conditions.select(jnp.moveaxis(valid, 0, axis), ys, jnp.zeros_like(ys))

    def step(
        self, carry: Carry | None, x: jax.Array, intervals: jax.Array | None = None
    ) -> tuple[Carry, jax.Array]:
        """Raises TypeError: the backward direction needs the end of the sequence first."""
        raise TypeError(
            "step: a bidirectional layer cannot take one step: expected a causal layer, because "
            "the backward direction starts from the end of the sequence. Call the layer with a "
            "whole sequence, or stream a unidirectional one."
        )

    @nn.nowrap
    def initialize_carry(self, rng: jax.Array | None, input_shape: tuple[int, ...]) -> Carry:
        """Returns the pair of both initial carries; see ``RecurrentLayer``."""
        keys = (None, None) if rng is None else jax.random.split(rng)
        if self.scope is None:
            layers = self._inner(False), self._inner(True)
        else:
            layers = self.forward, self.backward
        return tuple(
            layer.initialize_carry(key, input_shape)
            for layer, key in zip(layers, keys, strict=True)
        )


build_bidirectional = builder("build_bidirectional", Bidirectional)
