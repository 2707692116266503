"""A layer that puts several layers on top of each other."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.recurrent.call import checks, flax_checks, options, parameter_checks
from zoo.recurrent.call.conditions import Conditions
from zoo.recurrent.composites import runs
from zoo.recurrent.composites.composition import (
    Composite,
    LayerLike,
    build_inner,
    build_plain,
    builder,
    call_inner,
)
from zoo.recurrent.composites.pointwise import Pointwise
from zoo.recurrent.composites.runs import Run
from zoo.recurrent.composites.upper import Upper, climb, side_by_side
from zoo.recurrent.contract import Carry, RecurrentLayer, only_declares
from zoo.recurrent.convention import DEPTH

_NOT_FOUND = (
    parameter_checks.MissingError,
    flax.errors.ScopeParamNotFoundError,
    flax.errors.ScopeCollectionNotFound,
)


class Stack(Composite):
    """Puts layers on top of each other: ``num_layers`` equal ones, or those of a list.

    Each layer reads the outputs of the one below. The carry is a tuple with one carry per layer.
    Parameters of the first layer, whose inputs are xs, lie under ``first``; those of all others
    under ``rest``, every array with a first axis of ``num_layers - 1``. The others are scanned over
    depth (``zoo.recurrent.DEPTH``), so that 32 layers compile in the time of 2.

    In a list, parameters of the entry with index i lie under ``layers_i``. Of neighbours that are
    equal, the first has its own; those of the others, scanned over depth, lie under the name of the
    second, with a first axis as long as there are others: ``[a, a, a, b]`` has ``layers_0``,
    ``layers_1`` (first axis 2) and ``layers_3``. Beside recurrent layers, an entry may be a
    function of the features of every step (``jax.nn.relu``), or the class of another Flax module
    whose call is one (``{"name": nn.Dense, "features": 8}``), with the empty tuple for a carry. It
    belongs to what is below it: to xs, or to the outputs of a recurrent layer.

    Options that the stack does not know go to the inner layers, to every recurrent one of a list,
    and win over what is written there.

    When to choose it:
      Where one layer is not enough. Graves, Mohamed & Hinton 2013 found depth to matter more than
      the size of a layer in speech recognition. Linear recurrences need it, because what depends on
      a state is left to the layers above. For many layers, take ``residual`` or ``skip``, with
      ``layer_norm``.

    Attributes:
      layer: the inner layer: a registered name, a mapping such as
        ``{"name": "scan_gru", "features": 64}``, or a layer class.
      num_layers: how many.
      dropout_rate: of what goes from one recurrent layer to the next (not of xs, nor of ys).
      residual: adds the input of every recurrent layer but the first to its output; with ``skip``,
        the outputs below without xs. The widths have to agree.
      layer_norm: normalises the input of every recurrent layer but the first (``rest/norm``, or
        ``layers_i/norm``), before dropout and inside the residual; with ``skip``, without xs.
      time_axis: where time is, for all.
      reverse: whether time runs backwards, for all; an inner layer with a ``reverse`` of its own
        runs the other way than the stack.
      layers: the list, from the first layer up, in the place of ``layer`` and ``num_layers``.
      skip: every recurrent layer but the first reads xs beside the outputs of the one below, in
        this order, and ys are the outputs of all recurrent layers side by side, the first one's
        first (Graves 2013, section 2).

    Example:
      >>> import jax, jax.numpy as jnp, registry
      >>> layer = registry.build("stack", layer="scan_gru", features=4, num_layers=3)
      >>> xs = jnp.ones((7, 2, 3))
      >>> variables = layer.init(jax.random.key(0), None, xs)
      >>> carry, ys = layer.apply(variables, None, xs)
      >>> len(carry), ys.shape, variables["params"]["rest"]["hr"]["kernel"].shape
      (3, (7, 2, 4), (2, 4, 4))
      >>> layer = registry.build("stack", layers=[
      ...     {"name": "bidirectional", "layer": "scan_gru", "features": 4},
      ...     jax.nn.relu,
      ...     {"name": "scan_lstm", "features": 6},
      ... ])
      >>> carry, ys = layer.apply(layer.init(jax.random.key(0), None, xs), None, xs)
      >>> len(carry), ys.shape
      (3, (7, 2, 6))

    References:
      Graves, Mohamed & Hinton, Speech Recognition with Deep Recurrent Neural Networks, 2013
      (https://arxiv.org/abs/1303.5778); Graves, Generating Sequences with Recurrent Neural
      Networks, 2013 (skip connections, https://arxiv.org/abs/1308.0850); Zaremba, Sutskever &
      Vinyals, Recurrent Neural Network Regularization, 2014 (dropout between layers,
      https://arxiv.org/abs/1409.2329).
    """

    layer: LayerLike | None = None
    num_layers: int | None = None
    dropout_rate: float = 0.0
    residual: bool = False
    layer_norm: bool = False
    time_axis: int = 0
    reverse: bool = False
    layers: Sequence[LayerLike] | None = None
    skip: bool = False

    inner: ClassVar[tuple[str, ...]] = ("layer", "layers")

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        options.check(self)
        if self.layers is None:
            if self.layer is None:
                raise TypeError(
                    'stack: expected "layer" and "num_layers", or "layers", got neither.'
                )
            if self.num_layers is None:
                raise TypeError("num_layers: expected an int >= 1, got None.")
        elif self.layer is not None or self.num_layers is not None:
            raise TypeError('stack: expected "layer" and "num_layers", or "layers", got both.')
        elif not isinstance(self.layers, tuple):
            raise TypeError(f"layers: expected a list of layers, got {self.layers!r}.")
        elif all(run.plain for run in self._runs()):
            raise ValueError(
                f"layers: expected at least one recurrent layer, got {list(self.layers)}."
            )
        for _ in self._built():  # what cannot be built is refused now
            pass
        if self.residual and self.layers is not None:
            self._check_residual()

    def setup(self) -> None:
        """Builds the layers; one stands for all that are scanned over depth."""
        above = False
        for run in self._runs():
            module = self._upper(run.config) if above and not run.plain else self._build(run)
            above = above or not run.plain
            setattr(self, run.name, module)

    @property
    def output_features(self) -> int:
        """Size of the last axis of ys: that of the last layer, or with ``skip`` that of all."""
        widths = self._widths()
        return sum(widths) if self.skip else widths[-1]

    @property
    def feature_axes(self) -> int:
        """The most that an inner layer has: functions between them take any."""
        return max(layer.feature_axes for _, layer in self._built())

    @property
    def reads_intervals(self) -> bool:
        """Whether any inner layer does; the others do without."""
        return any(layer.reads_intervals for _, layer in self._built())

    @property
    def causal(self) -> bool:
        """Whether all inner layers are."""
        return all(layer.causal for _, layer in self._built())

    @nn.nowrap
    def carry_spec(self, input_shape: tuple[int, ...]) -> Carry:
        """Returns the carries' shapes and dtypes, one per layer; see ``RecurrentLayer``."""
        specs: list[Carry] = []
        for run, layer, shape in self._shaped(input_shape):
            specs += (layer.carry_spec(shape),) * run.count
        return tuple(specs)

    def _sequence(
        self, carry: Carry | None, xs: jax.Array, given: Conditions, *, history: bool
    ) -> tuple[Carry, jax.Array]:
        given = given._replace(deterministic=flax_checks.deterministic(given.deterministic))
        return self._run("history" if history else "__call__", carry, xs, given)

    def step(
        self, carry: Carry | None, x: jax.Array, intervals: jax.Array | None = None
    ) -> tuple[Carry, jax.Array]:
        """Takes one step with every layer; see ``RecurrentLayer``."""
        self._check_intervals(intervals)
        axes = self.feature_axes
        x = checks.inputs(x, time_axis=None, features=None, name="x", feature_axes=axes)
        carry = checks.carry(carry, self.carry_spec(x.shape), xs_shape=x.shape, time_axis=None)
        return self._climb("step", carry, x, Conditions(intervals=intervals))

    @nn.nowrap
    def initialize_carry(self, rng: jax.Array | None, input_shape: tuple[int, ...]) -> Carry:
        """Returns one initial carry per layer; see ``RecurrentLayer``."""
        shaped = list(self._shaped(input_shape))
        count = sum(run.count for run, _, _ in shaped)
        keys = iter((None,) * count if rng is None else jax.random.split(rng, count))
        if self.scope is not None:
            runs.check_variables(self._runs(), self._params())
        carries: list[Carry] = []
        for run, layer, shape in shaped:
            own: list[Any] = list(itertools.islice(keys, run.count))
            if self.scope is None:
                carries += [layer.initialize_carry(key, shape) for key in own]
                continue
            layer = getattr(self, run.name)
            if not run.repeated:
                carries.append(layer.initialize_carry(own[0], shape))
                continue

            def visit(layer: Upper, nothing: None, key: Any, shape: Any = shape) -> Any:
                return nothing, layer.initialize_carry(key, shape)

            stacked = None if rng is None else jnp.stack(own)
            _, stacked = DEPTH.lift(visit, length=run.count)(layer, None, stacked)
            carries += _unstack(stacked, run.count)
        return tuple(carries)

    def _run(
        self, method: str, carry: Carry | None, xs: jax.Array, given: Conditions
    ) -> tuple[Carry, jax.Array]:
        """Calls a method with a whole sequence."""
        carry, axis = self._checked(carry, xs)
        given = self._own_steps(given, xs, axis)
        steps = xs.shape[axis]
        if only_declares() and steps:
            # One step declares the same, and lifting over depth runs what it lifts.
            xs = jax.lax.slice_in_dim(xs, 0, 1, axis=axis)
            given = Conditions(deterministic=given.deterministic)
        carry, ys = self._climb(method, carry, xs, given)
        return carry, jnp.repeat(ys, steps, axis) if ys.shape[axis] != steps else ys

    def _climb(
        self, method: str, carry: Carry | None, xs: jax.Array, given: Conditions
    ) -> tuple[Carry, jax.Array]:
        """Calls a method ``(carry, xs) -> (carry, ys)`` of every layer, from the first up."""
        runs.check_variables(self._runs(), self._params())
        each_carry = itertools.repeat(None) if carry is None else iter(carry)
        carries: list[Carry] = []
        outputs: list[jax.Array] = []
        inputs = below = xs
        for run in self._runs():
            layer, starts = getattr(self, run.name), list(itertools.islice(each_carry, run.count))
            try:
                if run.repeated:
                    width = below.shape[-1] if self.layer_norm else None
                    parameter_checks.stacked(self.scope, run.name, run.count, width)
                    new, each = self._over_depth(method, layer, starts, below, inputs, given)
                elif isinstance(layer, Upper):
                    one, ys = layer.run(method, starts[0], below, inputs, given)
                    new, each = (one,), (ys,)
                else:
                    one, ys = call_inner(layer, method, starts[0], below, given)
                    new, each = (one,), (ys,)
            except _NOT_FOUND as error:
                raise runs.missing_variables(self._runs(), self._params(), error) from error
            carries += new
            below = each[-1]
            if not run.plain:
                outputs += each
            elif outputs:
                outputs[-1] = below
            else:
                inputs = below
        return tuple(carries), side_by_side(*outputs) if self.skip else below

    def _over_depth(
        self,
        method: str,
        layer: Upper,
        starts: list[Carry | None],
        below: jax.Array,
        xs: jax.Array,
        given: Conditions,
    ) -> tuple[tuple[Carry, ...], tuple[jax.Array, ...]]:
        """Climbs equal layers; returns all carries, and the outputs of all (or of the last)."""
        stacked = None
        if only_declares():
            # Parameters that come out of a loop would seem to depend on what goes in.
            below, xs = jnp.zeros(below.shape, below.dtype), jnp.zeros(xs.shape, xs.dtype)
        if starts[0] is not None:
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)

        # Flax's trial trace forgets that devices have different parts of time. It looks for what
        # layers share, and there is nothing.
        trial = self.sequence_axis is None
        inputs = stacked, below, xs
        last, (stacked, each) = climb(layer, method, len(starts), trial, inputs, given)
        outputs = _unstack(each, len(starts)) if self.skip else (last,)
        return _unstack(stacked, len(starts)), outputs

    @nn.nowrap
    def _runs(self) -> list[Run]:
        if self.layers is None:
            assert self.layer is not None and self.num_layers is not None
            return runs.repeated(self.layer, self.num_layers)
        return runs.listed(self.layers)

    @nn.nowrap
    def _upper(self, config: LayerLike) -> Upper:
        return Upper(
            config,
            self.dropout_rate,
            self.residual,
            self.layer_norm,
            self.skip,
            self.time_axis,
            self.reverse,
        )

    @nn.nowrap
    def _params(self) -> Mapping[str, Any]:
        return self.variables.get("params", {})

    @nn.nowrap
    def _build(self, run: Run) -> RecurrentLayer:
        build = build_plain if run.plain else build_inner
        return build(run.config, time_axis=self.time_axis, reverse=self.reverse)

    @nn.nowrap
    def _built(self) -> Iterator[tuple[Run, RecurrentLayer]]:
        """Every part, and its layer, bound to nothing."""
        layer: RecurrentLayer | None = None
        for run in self._runs():
            # What is repeated is as the one before it, which is not.
            layer = layer if run.repeated and layer is not None else self._build(run)
            yield run, layer

    @nn.nowrap
    def _recurrent(self) -> Iterator[RecurrentLayer]:
        return (layer for run, layer in self._built() if not run.plain)

    @nn.nowrap
    def _shaped(
        self, input_shape: tuple[int, ...]
    ) -> Iterator[tuple[Run, RecurrentLayer, tuple[int, ...]]]:
        """Every part, its layer, bound to nothing, and the shape of one step of what it reads."""
        inputs = shape = tuple(input_shape)
        before, above = None, False
        for run, layer in self._built():
            if before is not None:
                shape = _output_shape(before, shape)
                inputs = inputs if above else shape
            beside = (*shape[:-1], inputs[-1] + shape[-1])
            yield run, layer, beside if above and self.skip and not run.plain else shape
            before, above = layer, above or not run.plain

    @nn.nowrap
    def _widths(self) -> list[int]:
        """The width of every recurrent layer's outputs, after the functions that belong to them."""
        widths: list[int] = []
        for run, layer in self._built():
            if not run.plain:
                widths += [layer.output_features] * run.count
            elif widths:
                (widths[-1],) = layer.output_shape((widths[-1],))
        return widths

    @nn.nowrap
    def _check_residual(self) -> None:
        below = None
        for run, layer in self._built():
            if run.plain:
                below = below and layer.output_shape((below,))[-1]
                continue
            width = layer.output_features
            if below is not None and width != below:
                raise ValueError(
                    f"residual: expected all layers to be as wide as what they read, got {width} "
                    f"features at {run.name} above {below}. Cure: one width, or residual=False."
                )
            below = width


def _output_shape(layer: RecurrentLayer, shape: tuple[int, ...]) -> tuple[int, ...]:
    if isinstance(layer, Pointwise):
        return layer.output_shape(shape)
    if layer.feature_axes == 1:
        return (*shape[:-1], layer.output_features)
    # Convolutions may change the extent of space, and every array of a carry has it.
    (*space, _) = jax.tree.leaves(layer.carry_spec(shape))[0].shape
    return (*space, layer.output_features)


def _unstack(tree: Any, count: int) -> tuple[Any, ...]:
    return tuple(jax.tree.map(lambda x, k=k: x[k], tree) for k in range(count))


build_stack = builder("build_stack", Stack)
