"""A layer that puts several equal layers on top of each other."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.recurrent import checks, conditions, options, parameter_checks
from zoo.recurrent.composition import LayerLike, build_inner, config_of
from zoo.recurrent.contract import Carry, RecurrentLayer, only_declares
from zoo.recurrent.convention import DEPTH
from zoo.recurrent.sequence import drop


class Stack(RecurrentLayer):
    """Puts ``num_layers`` equal layers on top of each other.

    Each layer reads the outputs of the one below. The carry is a tuple with one carry per layer.
    Parameters of the first layer, whose inputs are xs, lie under ``first``; those of all others
    under ``rest``, every array with a first axis of ``num_layers - 1``. The others are scanned over
    depth (``zoo.recurrent.DEPTH``), so that 32 layers compile in the time of 2.

    Attributes:
      layer: the inner layer: a registered name, a mapping such as
        ``{"name": "scan_gru", "features": 64}``, or a layer class.
      num_layers: how many.
      dropout_rate: of what goes from one layer to the next (not of xs, nor of ys).
      residual: adds the input of every layer but the first to its output.
      layer_norm: normalises the input of every layer but the first (``rest/norm``), before dropout
        and inside the residual.
      time_axis: where time is, for all.
      reverse: whether time runs backwards, for all.

    Example:
      >>> import jax, jax.numpy as jnp, registry
      >>> layer = registry.build("stack", layer="scan_gru", features=4, num_layers=3)
      >>> xs = jnp.ones((7, 2, 3))
      >>> variables = layer.init(jax.random.key(0), None, xs)
      >>> carry, ys = layer.apply(variables, None, xs)
      >>> len(carry), ys.shape, variables["params"]["rest"]["hr"]["kernel"].shape
      (3, (7, 2, 4), (2, 4, 4))

    References:
      Graves, Mohamed & Hinton, Speech Recognition with Deep Recurrent Neural Networks, 2013
      (https://arxiv.org/abs/1303.5778); Zaremba, Sutskever & Vinyals, Recurrent Neural Network
      Regularization, 2014 (dropout between layers, https://arxiv.org/abs/1409.2329).
    """

    layer: LayerLike
    num_layers: int
    dropout_rate: float = 0.0
    residual: bool = False
    layer_norm: bool = False
    time_axis: int = 0
    reverse: bool = False

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        options.check(self)
        self._inner()

    def setup(self) -> None:
        """Builds the first layer, and one that stands for all others."""
        self.first = self._inner()
        if self.num_layers > 1:
            self.rest = _Upper(
                self.layer,
                self.dropout_rate,
                self.residual,
                self.layer_norm,
                self.time_axis,
                self.reverse,
            )

    @nn.nowrap
    def _inner(self) -> RecurrentLayer:
        return build_inner(self.layer, time_axis=self.time_axis, reverse=self.reverse)

    @property
    def output_features(self) -> int:
        """Size of the last axis of ys: that of every layer."""
        return self._inner().output_features

    @property
    def causal(self) -> bool:
        """Whether the inner layer is."""
        return self._inner().causal

    @nn.nowrap
    def carry_spec(self, input_shape: tuple[int, ...]) -> Carry:
        """Returns the carries' shapes and dtypes, one per layer; see ``RecurrentLayer``."""
        inner = self._inner()
        upper = inner.carry_spec((*input_shape[:-1], inner.output_features))
        return (inner.carry_spec(tuple(input_shape)), *(upper,) * (self.num_layers - 1))

    def __call__(
        self,
        carry: Carry | None,
        xs: jax.Array,
        seq_lengths: jax.Array | None = None,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
        deterministic: bool = True,
    ) -> tuple[Carry, jax.Array]:
        """Runs all layers; see ``RecurrentLayer``."""
        given = {"seq_lengths": seq_lengths, "mask": mask, "resets": resets}
        return self._climb("__call__", carry, xs, **given, deterministic=deterministic)

    def history(
        self,
        carry: Carry | None,
        xs: jax.Array,
        seq_lengths: jax.Array | None = None,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
        deterministic: bool = True,
    ) -> tuple[Carry, jax.Array]:
        """Returns one history per layer, and ys; see ``RecurrentLayer``."""
        given = {"seq_lengths": seq_lengths, "mask": mask, "resets": resets}
        return self._climb("history", carry, xs, **given, deterministic=deterministic)

    def _climb(
        self, method: str, carry: Carry | None, xs: jax.Array, **conditions: Any
    ) -> tuple[Carry, jax.Array]:
        """Calls a method ``(carry, xs) -> (carry, ys)`` of every layer, from the first up."""
        carry = self._checked(carry, xs)
        steps = xs.shape[:-1]
        axis = checks.normal_axis(self.time_axis, xs.ndim)
        if only_declares() and xs.shape[axis]:
            # One step declares the same, and lifting over depth runs what it lifts.
            xs = jax.lax.slice_in_dim(xs, 0, 1, axis=axis)
            conditions = {"deterministic": conditions["deterministic"]}
        start = None if carry is None else carry[0]
        first, ys = getattr(self.first, method)(start, xs, **conditions)

        def visit(layer: "_Upper", ys: jax.Array, carry: Carry) -> tuple[jax.Array, Carry]:
            carry, ys = getattr(layer, method)(carry, ys, **conditions)
            return ys, carry

        ys, upper = self._over_depth(visit, ys, carry)
        return (first, *upper), jnp.broadcast_to(ys, (*steps, ys.shape[-1]))

    def step(self, carry: Carry | None, x: jax.Array) -> tuple[Carry, jax.Array]:
        """Takes one step with every layer; see ``RecurrentLayer``."""
        x = checks.inputs(x, time_axis=None, features=None, name="x")
        carry = checks.carry(carry, self.carry_spec(x.shape), xs_shape=x.shape, time_axis=None)
        first, y = self.first.step(None if carry is None else carry[0], x)

        def visit(layer: "_Upper", y: jax.Array, carry: Carry) -> tuple[jax.Array, Carry]:
            carry, y = layer.step(carry, y)
            return y, carry

        y, upper = self._over_depth(visit, y, carry)
        return (first, *upper), y

    @nn.nowrap
    def initialize_carry(self, rng: jax.Array | None, input_shape: tuple[int, ...]) -> Carry:
        """Returns one initial carry per layer; see ``RecurrentLayer``."""
        count = self.num_layers
        keys = (None,) * count if rng is None else jax.random.split(rng, count)
        inner = self._inner() if self.scope is None else self.first
        upper_shape = (*input_shape[:-1], inner.output_features)
        first = inner.initialize_carry(keys[0], input_shape)
        if self.scope is None or count == 1:
            return (first, *(inner.initialize_carry(key, upper_shape) for key in keys[1:]))

        def visit(layer: "_Upper", nothing: None, key: jax.Array | None) -> tuple[None, Carry]:
            return nothing, layer.initialize_carry(key, upper_shape)

        lifted = DEPTH.lift(visit, length=count - 1)
        _, stacked = lifted(self.rest, None, None if rng is None else keys[1:])
        return (first, *_unstack(stacked, count - 1))

    def _over_depth(self, visit: Any, ys: jax.Array, carry: Carry | None) -> tuple[Any, Any]:
        """Applies ``visit`` to every layer above the first; returns its outputs and all carries."""
        count = self.num_layers - 1
        if not count:
            return ys, ()
        width = self.output_features if self.layer_norm else None
        parameter_checks.stacked(self.scope, "rest", count, width)
        stacked = None
        if carry is not None:
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *carry[1:])
        ys, stacked = DEPTH.lift(visit, length=count)(self.rest, ys, stacked)
        return ys, _unstack(stacked, count)

    def _checked(self, carry: Carry | None, xs: jax.Array) -> Carry | None:
        xs = checks.inputs(xs, time_axis=self.time_axis, features=None)
        axis = checks.normal_axis(self.time_axis, xs.ndim)
        spec = self.carry_spec(xs.shape[:axis] + xs.shape[axis + 1 :])
        return checks.carry(carry, spec, xs_shape=xs.shape, time_axis=self.time_axis)


class _Upper(nn.Module):
    """A layer above the first, with what lies between it and the one below."""

    layer: LayerLike
    dropout_rate: float
    residual: bool
    layer_norm: bool
    time_axis: int
    reverse: bool

    def setup(self) -> None:
        self.inner = build_inner(self.layer, time_axis=self.time_axis, reverse=self.reverse)
        nn.share_scope(self, self.inner)
        if self.layer_norm:
            self.norm = nn.LayerNorm()

    def __call__(
        self,
        carry: Carry | None,
        below: jax.Array,
        *,
        deterministic: bool = True,
        **conditions: Any,
    ) -> tuple[Carry, jax.Array]:
        xs = self._between(below, deterministic)
        carry, ys = self.inner(carry, xs, deterministic=deterministic, **conditions)
        return carry, ys + below if self.residual else ys

    def history(
        self,
        carry: Carry | None,
        below: jax.Array,
        *,
        deterministic: bool = True,
        **conditions: Any,
    ) -> tuple[Carry, jax.Array]:
        xs = self._between(below, deterministic)
        carry, ys = self.inner.history(carry, xs, deterministic=deterministic, **conditions)
        return carry, ys + below if self.residual else ys

    def step(self, carry: Carry | None, below: jax.Array) -> tuple[Carry, jax.Array]:
        carry, y = self.inner.step(carry, self._between(below, True))
        return carry, y + below if self.residual else y

    def initialize_carry(self, rng: jax.Array | None, input_shape: tuple[int, ...]) -> Carry:
        return self.inner.initialize_carry(rng, input_shape)

    def _between(self, below: jax.Array, deterministic: bool) -> jax.Array:
        xs = below
        if self.layer_norm:
            # Its parameters are float32 whatever the layers compute in.
            with jax.numpy_dtype_promotion("standard"):
                xs = conditions.around_nan(self.norm, below).astype(below.dtype)
        if deterministic or not self.dropout_rate:
            return xs
        return drop(self.make_rng("dropout"), self.dropout_rate, xs)


def _unstack(tree: Any, count: int) -> tuple[Any, ...]:
    return tuple(jax.tree.map(lambda x, k=k: x[k], tree) for k in range(count))


def build_stack(
    layer: LayerLike,
    num_layers: int,
    *,
    dropout_rate: float = 0.0,
    residual: bool = False,
    layer_norm: bool = False,
    time_axis: int = 0,
    reverse: bool = False,
    name: str | None = None,
    parent: Any = nn.module._unspecified_parent,
    **options: Any,
) -> Stack:
    """Builds ``Stack``; options that it does not know go to the inner layer.

    Args:
      layer: the inner layer, see ``Stack``.
      num_layers: see ``Stack``.
      dropout_rate: see ``Stack``.
      residual: see ``Stack``.
      layer_norm: see ``Stack``.
      time_axis: see ``Stack``.
      reverse: see ``Stack``.
      name: Flax's module name.
      parent: Flax's parent module.
      **options: options of the inner layer.

    Returns:
      The layer.

    Raises:
      TypeError: the inner layer does not know an option.
      ValueError: an option has no possible value.

    Example:
      >>> layer = build_stack({"name": "bidirectional", "layer": "gru", "features": 4}, 2)
      >>> layer.output_features
      8
    """
    config = config_of(layer, options)
    return Stack(
        config,
        num_layers,
        dropout_rate,
        residual,
        layer_norm,
        time_axis,
        reverse,
        name=name,
        parent=parent,
    )
