"""The base class of leaf layers: a cell, its parameters and its options behind the contract."""

import dataclasses
import functools
import math
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers
from flax.linen.linear import default_kernel_init
from flax.typing import Dtype, Initializer, PrecisionLike

from zoo.recurrent.call import (
    checks,
    dtypes,
    flax_checks,
    options,
    parameter_checks,
    parameters,
)
from zoo.recurrent.call.conditions import Conditions
from zoo.recurrent.call.program import Program, run
from zoo.recurrent.cell import Cell, Kernel, Weights
from zoo.recurrent.contract import Carry, RecurrentLayer, only_declares
from zoo.recurrent.engine import Engine
from zoo.recurrent.engine.step import Step

Leaves = tuple[jax.Array, ...]


class LeafLayer(RecurrentLayer):
    """Base class of the leaf layers; a subclass says which cell it runs (``cell_class``).

    What a layer takes beside these options is said by ``GatedLayer`` and ``LinearLayer``. Options
    that the cell has beside those of every ``Cell`` are fields of both.

    Attributes:
      features: H, the width of the hidden state.
      time_axis: where time is in xs, ys, masks and resets: 0 is (T, *batch, D), 1 is (B, T, D),
        -2 is (*batch, T, D).
      reverse: whether time runs backwards; ys stay in the order of xs.
      unroll: steps per iteration of the time loop. Measured on CPU, more than 1 only hurts; on a
        GPU "fused" takes 8 at the least.
      use_bias: whether the cell has biases.
      kernel_init: initialiser of the input kernels.
      bias_init: initialiser of the biases.
      carry_init: initialiser of the initial carry. A random one follows ``rngs`` ("carry", or else
        "params").
      learned_carry: whether the initial carry is a parameter, ``initial_h`` (and ``initial_c``),
        of shape (H,), itself initialised by ``carry_init``.
      dtype: dtype of products and of ys; None for the common dtype of xs and parameters.
      param_dtype: dtype of the parameters.
      carry_dtype: dtype of the carry, whatever comes in.
      precision: of the products, see ``jax.lax.Precision``.
      checkpoint_every: keep no more than the carry at every so many steps (or a little more often,
        where that takes less memory) for the backward pass and recompute the others; the values
        are the same, memory falls and time rises a little.
      truncate_every: stop the gradient every so many steps (truncated backpropagation through
        time, Williams & Peng 1990); the values are the same.
      dropout_rate: of the inputs, drawn anew for every step.
      zoneout_rate: probability of keeping the previous state, per element and step (Krueger et
        al. 2017).
      implementation: "scan" is ``nn.scan`` of one step, "fused" computes the same with
        everything possible outside of the time loop, "auto" takes what was measured to be
        fastest: "fused" on CPUs and GPUs. Linear layers have "parallel" and "kernel" too,
        ``ScanGRU`` and ``ScanLSTM`` have "kernel".
    """

    features: int
    time_axis: int = 0
    reverse: bool = False
    unroll: int = 1
    use_bias: bool = True
    kernel_init: Initializer = default_kernel_init
    bias_init: Initializer = initializers.zeros_init()
    carry_init: Initializer = initializers.zeros_init()
    learned_carry: bool = False
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    carry_dtype: Dtype = jnp.float32
    precision: PrecisionLike = None
    checkpoint_every: int | None = None
    truncate_every: int | None = None
    dropout_rate: float = 0.0
    zoneout_rate: float = 0.0
    implementation: str = "auto"

    cell_class: ClassVar[type[Cell]]
    own_options: ClassVar[tuple[options.Option, ...]] = ()
    """What ``zoo.recurrent.call.options`` does not know of the options that a subclass adds."""

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        options.check(self)

    @property
    def _cell_options(self) -> dict[str, Any]:
        known = type(self).__dataclass_fields__
        names = _option_names(self.cell_class)
        return {name: getattr(self, name) for name in names if name in known}

    @property
    def cell(self) -> Cell:
        """The equations, with this layer's options."""
        return self.cell_class(**self._cell_options)

    @property
    def output_features(self) -> int:
        """Size of the last axis of ys."""
        return self.cell.output_width

    @property
    def causal(self) -> bool:
        """Whether time runs forwards."""
        return not self.reverse

    @property
    def feature_axes(self) -> int:
        """How many of the last axes of xs are features; see ``RecurrentLayer``."""
        return self.cell.feature_axes

    @property
    def reads_intervals(self) -> bool:
        """Whether the layer knows elapsed time; see ``RecurrentLayer``."""
        return self.cell_class.reads_intervals

    @nn.nowrap
    def carry_spec(self, input_shape: tuple[int, ...]) -> Carry:
        """Returns the carry's shapes and dtypes; see ``RecurrentLayer``."""
        shapes = self._carry_shapes(tuple(input_shape))
        return self._packed(tuple(map(jax.ShapeDtypeStruct, shapes, self._carry_dtypes)))

    @nn.nowrap
    def _carry_shapes(self, input_shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        cell = self.cell
        first = len(input_shape) - cell.feature_axes
        space = cell.space(input_shape[first:-1])
        return tuple((*input_shape[:first], *space, width) for width in cell.widths)

    @property
    def _carry_dtypes(self) -> tuple[Any, ...]:
        dtype = dtypes.canonical(self.carry_dtype)
        wide = dtypes.promote(dtype, jnp.float32)
        cell = self.cell_class
        return tuple(wide if name in cell.float32 else dtype for name in cell.carry_names)

    def step(
        self, carry: Carry | None, x: jax.Array, intervals: jax.Array | None = None
    ) -> tuple[Carry, jax.Array]:
        """Takes one step; see ``RecurrentLayer``."""
        feature_axes = self.feature_axes
        x = checks.inputs(
            x, time_axis=None, features=self._known_inputs(), name="x", feature_axes=feature_axes
        )
        self._check_intervals(intervals)
        intervals = checks.intervals(intervals, x.shape[: x.ndim - feature_axes])
        carry = checks.carry(carry, self.carry_spec(x.shape), xs_shape=x.shape, time_axis=None)
        weights, learned = self._parameters(x.shape[-1])
        start = None if carry is None else self._leaves(carry)
        initial = self._initial(x.shape, learned) if start is None else start
        program = self._program(x, weights, axis=0)
        intervals = None if intervals is None else intervals[None]
        given = Conditions(deterministic=None, intervals=intervals)
        final, ys = run(program, weights, initial, start, x[None], given)
        return self._packed(final), ys[0]

    @nn.nowrap
    def initialize_carry(self, rng: jax.Array | None, input_shape: tuple[int, ...]) -> Carry:
        """Returns the initial carry for one step's input shape; see ``RecurrentLayer``."""
        input_shape = tuple(input_shape)
        if not self.learned_carry:
            return self._packed(self._initial(input_shape, None, rng))
        if self.scope is None:
            raise ValueError(
                "initialize_carry: the initial carry is a parameter (learned_carry=True), so the "
                "layer has to be bound to its variables. Use layer.apply(variables, rng, "
                'input_shape, method="initialize_carry"), or pass carry=None.'
            )
        return self._packed(self._initial(input_shape, self._parameters(input_shape[-1])[1]))

    def _sequence(
        self, carry: Carry | None, xs: jax.Array, given: Conditions, *, history: bool
    ) -> tuple[Carry, Any]:
        feature_axes = self.feature_axes
        xs = checks.inputs(
            xs,
            time_axis=self.time_axis,
            features=self._known_inputs(),
            feature_axes=feature_axes,
        )
        axis = checks.normal_axis(self.time_axis, xs.ndim, feature_axes=feature_axes)
        sequence_axes = self._sequence_axes(carry, xs, axis, given, history)
        one_step, steps = xs.shape[:axis] + xs.shape[axis + 1 :], xs.shape[axis]
        batch = one_step[: len(one_step) - feature_axes]
        carry = checks.carry(
            carry, self.carry_spec(one_step), xs_shape=xs.shape, time_axis=self.time_axis
        )
        every_step = xs.shape[: xs.ndim - feature_axes]
        total = steps * math.prod(map(jax.lax.axis_size, sequence_axes))
        known = checks.conditions(*given[:3], batch, every_step, total)
        intervals = checks.intervals(given.intervals, every_step)
        deterministic = flax_checks.deterministic(given.deterministic)
        given = Conditions(*known, None, intervals)

        weights, learned = self._parameters(xs.shape[-1])
        start = None if carry is None else self._leaves(carry)
        # A random initial carry is not drawn, nor its key asked for, where nothing starts from it.
        wanted = start is None or given.resets is not None
        initial = self._initial(one_step, learned) if wanted or start is None else start
        program = self._program(xs, weights, axis, history, sequence_axes)
        if steps == 0:
            final = initial if start is None else start
            ys = self._zeros(final, 0, axis, program.engine.dtype)
            past = tuple(jnp.expand_dims(x, axis) for x in final)
            return self._packed(past if history else final), ys
        if only_declares() and not history:
            ys = self._zeros(initial, steps, axis, program.engine.dtype)
            return self._packed(initial), ys
        key = self.make_rng("dropout") if self._drops and not deterministic else None
        final, out = run(program, weights, initial, start, xs, given, key)
        if not history:
            return self._packed(final), out
        ys, past = out
        return self._packed(past), ys

    @nn.nowrap
    def _zeros(self, carry: Leaves, steps: Any, axis: int, dtype: Any) -> jax.Array:
        """Outputs of no meaning, for a carry."""
        shape = [*carry[-1].shape[:-1], self.output_features]
        shape.insert(axis, steps)
        return jnp.zeros(shape, dtype)

    def _sequence_axes(
        self, carry: Carry | None, xs: jax.Array, axis: int, given: Conditions, history: bool
    ) -> tuple[str, ...]:
        """The axes of a ``jax.shard_map`` that time is shared out over; here, it must be whole."""
        checks.unsharded_time(xs, axis)
        return ()

    def _program(
        self,
        xs: jax.Array,
        weights: Any,
        axis: int,
        history: bool = False,
        sequence_axes: tuple[str, ...] = (),
    ) -> Program:
        dtype = self.dtype
        if dtype is None:
            dtype = dtypes.promote(xs.dtype, *(x.dtype for x in jax.tree.leaves(weights)))
        dtype = dtypes.canonical(dtype)
        work_dtype = dtypes.promote(dtype, *self._carry_dtypes, *self.cell_class.at_least)
        return Program(
            step=Step(self.cell, work_dtype, self.zoneout_rate),
            engine=Engine(
                implementation=self.implementation,
                reverse=self.reverse,
                unroll=self.unroll,
                checkpoint_every=self.checkpoint_every,
                dtype=dtype,
                precision=self.precision,
                history=history,
                sequence_axes=sequence_axes,
            ),
            time_axis=axis,
            truncate_every=self.truncate_every,
            dropout_rate=self.dropout_rate,
            recurrent_dropout_rate=self._recurrent_dropout_rate,
            history=history,
            feature_axes=self.feature_axes,
        )

    @property
    def _drops(self) -> bool:
        return any((self.dropout_rate, self._recurrent_dropout_rate, self.zoneout_rate))

    @property
    def _recurrent_dropout_rate(self) -> float:
        return 0.0

    @nn.compact
    def _parameters(self, inputs: int) -> tuple[dict[str, dict[str, jax.Array]], Leaves | None]:
        """Declares or reads the parameters: the weights, and the initial carry if it is one.

        Weights are as an engine wants them: a kernel with a window is a matrix of all its rows.
        """
        cell = self.cell
        weights = {}
        for name, kernel in cell.kernels_for(inputs).items():
            if kernel.diagonal:
                option, init = self._vector_init(name, weights)
                vector = parameters.parameter(
                    self, name, option, init, (kernel.width,), self.param_dtype
                )
                weights[name] = {"vector" if kernel.source == "none" else "kernel": vector}
                continue
            reads_inputs = kernel.source == "input"
            weights[name] = parameters.Projection(
                kernel,
                rows=inputs if reads_inputs else kernel.rows or cell.widths[-1],
                kernel_init=self._kernel_init(name, kernel, inputs),
                bias_init=self._bias_init(name),
                param_dtype=self.param_dtype,
                name=name,
            ).matrix()
        if not self.learned_carry:
            return weights, None
        return weights, tuple(
            parameters.parameter(
                self, f"initial_{name}", "carry_init", self.carry_init, (width,), self.param_dtype
            )
            for name, width in zip(cell.carry_names, cell.widths, strict=True)
        )

    @nn.nowrap
    def _kernel_init(self, name: str, kernel: Kernel, inputs: int) -> Initializer:
        """The initialiser of a kernel; ``inputs`` is D."""
        return self.kernel_init

    @nn.nowrap
    def _bias_init(self, name: str) -> Initializer:
        """The initialiser of the bias beside a kernel."""
        return self.bias_init

    @nn.nowrap
    def _vector_init(self, name: str, drawn: Weights) -> tuple[str, Initializer]:
        """The option that a vector is initialised by, and its value; ``drawn`` is what there is."""
        return "bias_init", self.bias_init

    @nn.nowrap
    def _initial(
        self, input_shape: tuple[int, ...], learned: Leaves | None, rng: jax.Array | None = None
    ) -> Leaves:
        """The initial carry; a key is looked for only where ``carry_init`` wants one."""
        shapes, kinds, cell = self._carry_shapes(input_shape), self._carry_dtypes, self.cell_class
        if learned is not None:
            return tuple(
                jnp.broadcast_to(x.astype(dtype), shape)
                for x, shape, dtype in zip(learned, shapes, kinds, strict=True)
            )

        # A carry_init that was asked for is asked for everything.
        constants = cell.starts if self.carry_init is type(self).carry_init else {}
        fixed = tuple(constants.get(name) for name in cell.carry_names)

        def draw(key: jax.Array | None) -> Leaves:
            return parameters.draw_carry(key, self.carry_init, shapes, kinds, fixed)

        if rng is not None:
            flax_checks.keys(rng, "rng")
            return draw(rng)
        try:
            return draw(None)
        except (TypeError, AttributeError) as error:
            for stream in ("carry", "params"):
                if self.scope is not None and self.has_rng(stream):
                    return draw(self.make_rng(stream))
            # What fails with a key too is no initialiser, and says so.
            jax.eval_shape(draw, jax.random.key(0))
            raise ValueError(
                "carry_init draws random numbers: expected a key for the initial carry, got none. "
                'Pass rngs={"carry": key} to apply, a key to initialize_carry, or a carry.'
            ) from error

    def _known_inputs(self) -> int | None:
        """The feature size that existing parameters were made for."""
        cell = self.cell
        name = cell.inputs[0]
        kernel = cell.kernels[name]
        return self._rows(name, kernel.width, kernel.window)

    def _rows(self, name: str, width: int, window: tuple[int, ...] = ()) -> int | None:
        """The rows of an existing kernel."""
        if self.scope is None:
            return None
        return parameter_checks.rows(self.scope, name, (*window, None, width))

    @nn.nowrap
    def _packed(self, leaves: tuple[Any, ...]) -> Carry:
        """The carry as users see it: a bare array where there is only one."""
        (*others, last) = leaves
        return (*others, last) if others else last

    def _leaves(self, carry: Carry) -> Leaves:
        """A carry as the engines see it: always a tuple, in the carry's own dtypes."""
        leaves: Any = carry if len(self._carry_dtypes) > 1 else (carry,)
        return tuple(x.astype(dtype) for x, dtype in zip(leaves, self._carry_dtypes, strict=True))


@functools.cache
def _option_names(cell_class: type[Cell]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cell_class))
