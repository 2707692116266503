"""The NNX module around a Linen layer."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
from flax import nnx

from zoo.recurrent.call import flax_checks
from zoo.recurrent.call.conditions import Conditions
from zoo.recurrent.contract import Carry
from zoo.recurrent.nnx import inputs, state, streams


@dataclasses.dataclass(frozen=True)
class Definition:
    """Everything about a module that is no array; equal for modules that do the same.

    Attributes:
      layer: the Linen layer, unbound.
      paths: where its variables lie.
      streams: the random streams that a call may read.
      config: what ``registry.build`` makes the layer of; None for a layer that was given as such.
    """

    layer: Any
    paths: tuple[state.Path, ...]
    streams: tuple[str, ...]
    config: Mapping[str, Any] | None = dataclasses.field(compare=False)

    @functools.cached_property
    def collections(self) -> tuple[str, ...]:
        """The collections of variables that a call may change."""
        return tuple(dict.fromkeys(name for name, *_ in self.paths if name != "params"))

    def __repr__(self) -> str:
        """The Linen layer's."""
        return repr(self.layer)


class Recurrent(nnx.Module):
    """A recurrent layer of the zoo as a module of Flax NNX.

    ``zoo.recurrent.nnx.build`` makes one by name. It is called as the Linen layer is, without
    variables and method names::

        layer = build("scan_gru", D, rngs=nnx.Rngs(0), features=H)
        carry, ys = layer(None, xs)                     # xs: (T, *batch, D), ys: (T, *batch, H)
        carry, y = layer.step(carry, x)                 # x: (*batch, D)
        carry = layer.initialize_carry(None, x.shape)

    Parameters are ``nnx.Param`` at the paths that they have in Linen (``layer.hr.kernel``).
    Variables of other collections are NNX's kinds of them, and calls write back what they change.
    Random streams are in the state (``layer.rngs``) only where the layer reads some.

    As with ``nnx.Dropout``, dropouts are on until ``eval()`` is called, and the argument
    ``deterministic`` of a call goes before the attribute.

    Attributes:
      definition: the Linen layer, and what is known about it.
      deterministic: whether dropouts are off where a call does not say.

    Args:
      layer: a Linen layer that keeps the contract, such as ``scanned(SomeCell)(features=4)``.
      in_features: D, or one step's input, or its ``jax.ShapeDtypeStruct``, where inputs are not
        float vectors. It is found from ``variables`` if they are given.
      rngs: random streams: ``params`` for parameters, which equal those of
        ``layer.init(rngs.params(), ...)``, and those that the layer reads; or a key, whose
        parameters equal those of ``layer.init(key, ...)``.
      variables: of the Linen layer; drawn if None.
      config: what ``registry.build`` made the layer of, if it did.

    Raises:
      TypeError: ``layer`` is no Linen module, or ``rngs`` no random streams.
      ValueError: the variables are not those of the layer, or one has a name that the module needs
        for itself.

    Example:
      >>> import flax.linen as nn, jax
      >>> from flax import nnx
      >>> from zoo.recurrent import scanned
      >>> layer = Recurrent(scanned(nn.OptimizedLSTMCell)(features=4), 3, rngs=nnx.Rngs(0))
      >>> carry, ys = layer(None, jax.numpy.ones((7, 2, 3)))
      >>> ys.shape
      (7, 2, 4)
    """

    def __init__(
        self,
        layer: nn.Module,
        in_features: int | jax.Array | jax.ShapeDtypeStruct | None = None,
        *,
        rngs: nnx.Rngs | jax.Array | None = None,
        variables: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        inputs.require_linen(layer)
        source = streams.of(rngs) if variables is None or rngs is not None else None
        if variables is None:
            xs = inputs.sample(layer, in_features)
            drawn = {"params": rngs} if isinstance(rngs, jax.Array) else None
            variables = layer.init(drawn or streams.keys(("params",), source), None, xs)
        else:
            flax_checks.variables(variables)
            plain = nn.unbox(variables)
            found = in_features is None
            xs = inputs.fitting(layer, plain) if found else inputs.sample(layer, in_features)
        names = streams.read_by(layer, nn.unbox(variables), xs, source or ())
        self.definition = Definition(layer, state.paths(variables), names, config)
        self.deterministic = False
        if names:
            have = source is not None and all(streams.has(source, name) for name in names)
            self.rngs = nnx.data(nnx.Rngs(streams.keys(names, source)) if have else None)
        state.attach(self, variables)

    def __call__(
        self,
        carry: Carry | None,
        xs: jax.Array,
        seq_lengths: jax.Array | None = None,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
        deterministic: bool | None = None,
        intervals: jax.Array | None = None,
        *,
        rngs: nnx.Rngs | jax.Array | None = None,
    ) -> tuple[Carry, jax.Array]:
        """Runs the layer over a sequence; see ``zoo.recurrent.RecurrentLayer``.

        Args:
          carry: where to start from; None for the layer's initial carry.
          xs: inputs, float (T, *batch, D).
          seq_lengths: int (*batch,). Steps at t >= length are padding.
          mask: bool (T, *batch). A False step is skipped.
          resets: bool (T, *batch). Where True, the carry becomes the initial one before that step.
          deterministic: turns the layer's dropouts off; None for the module's own setting.
          intervals: float (T, *batch), for layers that know elapsed time.
          rngs: random streams of this call, in place of the module's; or a key.

        Returns:
          The last carry, and ys (T, *batch, H).

        Raises:
          ValueError: a shape does not fit, or a random stream is missing.
          TypeError: a dtype or a structure does not fit.
        """
        given = Conditions(seq_lengths, mask, resets, deterministic, intervals)
        return self._sequence("__call__", carry, xs, given, rngs)

    def carries(
        self,
        carry: Carry | None,
        xs: jax.Array,
        seq_lengths: jax.Array | None = None,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
        deterministic: bool | None = None,
        intervals: jax.Array | None = None,
        *,
        rngs: nnx.Rngs | jax.Array | None = None,
    ) -> Carry:
        """Returns the whole history of the carry; arguments are those of a call.

        Returns:
          A tree like a carry, its leaves with a time axis of length T+1, the initial one included.
        """
        given = Conditions(seq_lengths, mask, resets, deterministic, intervals)
        return self._sequence("carries", carry, xs, given, rngs)

    def history(
        self,
        carry: Carry | None,
        xs: jax.Array,
        seq_lengths: jax.Array | None = None,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
        deterministic: bool | None = None,
        intervals: jax.Array | None = None,
        *,
        rngs: nnx.Rngs | jax.Array | None = None,
    ) -> tuple[Carry, jax.Array]:
        """Returns what ``carries`` returns, and ys; arguments are those of a call."""
        given = Conditions(seq_lengths, mask, resets, deterministic, intervals)
        return self._sequence("history", carry, xs, given, rngs)

    def step(
        self,
        carry: Carry | None,
        x: jax.Array,
        intervals: jax.Array | None = None,
        *,
        rngs: nnx.Rngs | jax.Array | None = None,
    ) -> tuple[Carry, jax.Array]:
        """Takes one step, for streaming. Dropouts are off.

        Args:
          carry: where to start from; None for the layer's initial carry.
          x: float (*batch, D).
          intervals: float (*batch,), for layers that know elapsed time.
          rngs: as in a call.

        Returns:
          The new carry, and y (*batch, H).
        """
        names = self._streams(deterministic=True, starts=carry is None)
        return self._apply("step", (carry, x, intervals), names, rngs)

    def initialize_carry(
        self,
        rng: jax.Array | None,
        input_shape: tuple[int, ...],
        *,
        rngs: nnx.Rngs | jax.Array | None = None,
    ) -> Carry:
        """Returns the initial carry for one step's input shape, (*batch, D).

        Args:
          rng: a key, for a random initial carry; None for a stream's next one.
          input_shape: shape of one step's input.
          rngs: as in a call.
        """
        names = self._streams(deterministic=True, starts=rng is None)
        return self._apply("initialize_carry", (rng, input_shape), names, rngs)

    def carry_spec(self, input_shape: tuple[int, ...]) -> Carry:
        """Returns the carry's tree of ``jax.ShapeDtypeStruct`` for one step's input shape."""
        return self.definition.layer.carry_spec(input_shape)

    def describe(self, input_shape: tuple[int, ...]) -> str:
        """Returns what the layer makes of an input (T, *batch, D), as text for people."""
        return self.definition.layer.describe(input_shape)

    @property
    def output_features(self) -> int:
        """Size of the last axis of ys."""
        return self.definition.layer.output_features

    @property
    def causal(self) -> bool:
        """Whether ys at t depend on xs up to t only, so that the layer can be streamed."""
        return self.definition.layer.causal

    @property
    def feature_axes(self) -> int:
        """How many of the last axes of xs are features."""
        return self.definition.layer.feature_axes

    @property
    def reads_intervals(self) -> bool:
        """Whether the layer knows elapsed time."""
        return self.definition.layer.reads_intervals

    def set_view(self, deterministic: bool | None = None) -> None:
        """Sets what ``nnx.view`` sets.

        Args:
          deterministic: whether dropouts are off where a call does not say.
        """
        if deterministic is not None:
            self.deterministic = deterministic

    def _sequence(
        self,
        method: str,
        carry: Carry | None,
        xs: jax.Array,
        given: Conditions,
        rngs: nnx.Rngs | jax.Array | None,
    ) -> Any:
        own = self.deterministic if given.deterministic is None else given.deterministic
        quiet = flax_checks.deterministic(own)
        starts = carry is None or given.resets is not None
        names = self._streams(deterministic=quiet, starts=starts)
        args = carry, xs, *given._replace(deterministic=quiet)
        return self._apply(method, args, names, rngs)

    def _streams(self, *, deterministic: bool, starts: bool) -> list[str]:
        """The streams that a call reads: drawing from others would change them for nothing."""
        idle = {"dropout"} if deterministic else set()
        idle |= set() if starts else {"carry"}
        return [name for name in self.definition.streams if name not in idle]

    def _apply(
        self,
        method: str,
        args: tuple[Any, ...],
        names: list[str],
        rngs: nnx.Rngs | jax.Array | None,
    ) -> Any:
        definition = self.definition
        given = state.collect(self, definition.paths)
        own = getattr(self, "rngs", None)
        keys = streams.keys(names, own if rngs is None else streams.of(rngs))
        collections = definition.collections
        # Of nn.Module: what a layer's own apply checks beside it, keys and variables, is made here.
        run = functools.partial(nn.Module.apply, definition.layer, given, method=method, rngs=keys)
        if not collections:
            return run(*args)
        out, updates = run(*args, mutable=list(collections))
        state.write(self, updates, given)
        return out
