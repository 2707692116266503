"""The leaf layer: one cell, its parameters and its options behind the contract."""

from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers
from flax.linen.linear import default_kernel_init
from flax.typing import Dtype, Initializer, PrecisionLike

from zoo.recurrent import checks, dtypes, option_checks, options, parameter_checks, parameters
from zoo.recurrent.cells import Cell
from zoo.recurrent.contract import Carry, RecurrentLayer, only_declares
from zoo.recurrent.engine import Engine
from zoo.recurrent.sequence import Program, run
from zoo.recurrent.step import Step

Activation = Callable[[jax.Array], jax.Array]
Leaves = tuple[jax.Array, ...]


class GatedLayer(RecurrentLayer):
    """Base class of the leaf layers; a subclass says which cell it runs (``cell``).

    Attributes:
      features: H, the width of the hidden state.
      time_axis: where time is in xs, ys, masks and resets: 0 is (T, *batch, D), 1 is (B, T, D),
        -2 is (*batch, T, D).
      reverse: whether time runs backwards; ys stay in the order of xs.
      unroll: steps per iteration of the time loop. Measured on CPU, more than 1 only hurts.
      use_bias: whether the cell has biases.
      gate_fn: activation of the gates, or its name in ``jax.nn`` ("sigmoid", "hard_sigmoid").
      activation_fn: activation of the candidate state, or its name ("tanh", "relu").
      kernel_init: initialiser of the input kernels.
      recurrent_kernel_init: initialiser of the recurrent kernels.
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
      recurrent_dropout_rate: of the hidden state where it is multiplied, one mask per sequence
        (Gal & Ghahramani 2016).
      zoneout_rate: probability of keeping the previous state, per element and step (Krueger et
        al. 2017).
      implementation: "scan" is ``nn.scan`` of one step, "fused" computes the same with
        everything possible outside of the time loop, "auto" takes what was measured to be
        faster: "fused" on CPU.
    """

    features: int
    time_axis: int = 0
    reverse: bool = False
    unroll: int = 1
    use_bias: bool = True
    gate_fn: Activation | str = nn.sigmoid
    activation_fn: Activation | str = nn.tanh
    kernel_init: Initializer = default_kernel_init
    recurrent_kernel_init: Initializer = initializers.orthogonal()
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
    recurrent_dropout_rate: float = 0.0
    zoneout_rate: float = 0.0
    implementation: str = "auto"

    cell_class: ClassVar[type[Cell]]
    cell_options: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        options.check(self)
        for name in ("gate_fn", "activation_fn"):
            option_checks.keeps_shape(name, getattr(self, name), self.features)

    @property
    def cell(self) -> Cell:
        """The equations, with this layer's options."""
        return self.cell_class(
            features=self.features,
            gate_fn=option_checks.activation_of("gate_fn", self.gate_fn),
            activation_fn=option_checks.activation_of("activation_fn", self.activation_fn),
            use_bias=self.use_bias,
            **{name: getattr(self, name) for name in self.cell_options},
        )

    @property
    def output_features(self) -> int:
        """Size of the last axis of ys: the width of h."""
        return self.cell.widths[-1]

    @property
    def causal(self) -> bool:
        """Whether time runs forwards."""
        return not self.reverse

    @nn.nowrap
    def carry_spec(self, input_shape: tuple[int, ...]) -> Carry:
        """Returns the carry's shapes and dtypes; see ``RecurrentLayer``."""
        dtype = dtypes.canonical(self.carry_dtype)
        batch = tuple(input_shape[:-1])
        return self._packed(
            tuple(jax.ShapeDtypeStruct((*batch, width), dtype) for width in self.cell.widths)
        )

    def __call__(
        self,
        carry: Carry | None,
        xs: jax.Array,
        seq_lengths: jax.Array | None = None,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
        deterministic: bool = True,
    ) -> tuple[Carry, jax.Array]:
        """Runs the layer over a sequence; see ``RecurrentLayer``."""
        final, ys = self._run(carry, xs, seq_lengths, mask, resets, deterministic)
        return self._packed(final), ys

    def history(
        self,
        carry: Carry | None,
        xs: jax.Array,
        seq_lengths: jax.Array | None = None,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
        deterministic: bool = True,
    ) -> tuple[Carry, jax.Array]:
        """Returns the whole history of the carry, and ys; see ``RecurrentLayer``."""
        _, (ys, history) = self._run(
            carry, xs, seq_lengths, mask, resets, deterministic, history=True
        )
        return self._packed(history), ys

    def step(self, carry: Carry | None, x: jax.Array) -> tuple[Carry, jax.Array]:
        """Takes one step; see ``RecurrentLayer``."""
        x = checks.inputs(x, time_axis=None, features=self._known_inputs(), name="x")
        spec = self.carry_spec(x.shape)
        carry = checks.carry(carry, spec, xs_shape=x.shape, time_axis=None)
        weights, learned = self._parameters(x.shape[-1])
        start = None if carry is None else self._leaves(carry)
        initial = self._initial(x.shape[:-1], learned) if start is None else start
        program = self._program(x, weights, axis=0)
        final, ys = run(program, weights, initial, start, x[None], None, None, None, None)
        return self._packed(final), ys[0]

    @nn.nowrap
    def initialize_carry(self, rng: jax.Array | None, input_shape: tuple[int, ...]) -> Carry:
        """Returns the initial carry for one step's input shape; see ``RecurrentLayer``."""
        batch = tuple(input_shape[:-1])
        if not self.learned_carry:
            return self._packed(self._initial(batch, None, rng))
        if self.scope is None:
            raise ValueError(
                "initialize_carry: the initial carry is a parameter (learned_carry=True), so the "
                "layer has to be bound to its variables. Use layer.apply(variables, rng, "
                'input_shape, method="initialize_carry"), or pass carry=None.'
            )
        return self._packed(self._initial(batch, self._parameters(input_shape[-1])[1]))

    def _run(
        self,
        carry: Carry | None,
        xs: jax.Array,
        seq_lengths: jax.Array | None,
        mask: jax.Array | None,
        resets: jax.Array | None,
        deterministic: bool,
        *,
        history: bool = False,
    ) -> tuple[Carry, Any]:
        xs = checks.inputs(xs, time_axis=self.time_axis, features=self._known_inputs())
        axis = checks.normal_axis(self.time_axis, xs.ndim)
        checks.unsharded_time(xs, axis)
        batch, steps = xs.shape[:axis] + xs.shape[axis + 1 : -1], xs.shape[axis]
        spec = self.carry_spec((*batch, xs.shape[-1]))
        carry = checks.carry(carry, spec, xs_shape=xs.shape, time_axis=self.time_axis)
        known = checks.conditions(seq_lengths, mask, resets, batch, xs.shape[:-1], steps)
        deterministic = checks.deterministic(deterministic)

        weights, learned = self._parameters(xs.shape[-1])
        start = None if carry is None else self._leaves(carry)
        # A random initial carry is not drawn, nor its key asked for, where nothing starts from it.
        wanted = start is None or resets is not None
        initial = self._initial(batch, learned) if wanted else start
        program = self._program(xs, weights, axis, history)
        if steps == 0:
            final = initial if start is None else start
            ys = jnp.zeros((*xs.shape[:-1], self.output_features), program.engine.dtype)
            return final, (ys, tuple(jnp.expand_dims(x, axis) for x in final)) if history else ys
        if only_declares() and not history:
            some = jnp.broadcast_to(xs[..., :1], (*xs.shape[:-1], self.output_features))
            return initial, some.astype(program.engine.dtype)
        key = self.make_rng("dropout") if self._drops and not deterministic else None
        return run(program, weights, initial, start, xs, *known, key)

    def _program(self, xs: jax.Array, weights: Any, axis: int, history: bool = False) -> Program:
        dtype = self.dtype
        if dtype is None:
            dtype = dtypes.promote(xs.dtype, *(x.dtype for x in jax.tree.leaves(weights)))
        dtype = dtypes.canonical(dtype)
        work_dtype = dtypes.promote(dtype, self.carry_dtype)
        return Program(
            step=Step(self.cell, work_dtype, self.zoneout_rate),
            engine=Engine(
                implementation=self.implementation,
                reverse=self.reverse,
                unroll=self.unroll,
                checkpoint_every=self.checkpoint_every,
                dtype=dtype,
                precision=self.precision,
            ),
            time_axis=axis,
            truncate_every=self.truncate_every,
            dropout_rate=self.dropout_rate,
            recurrent_dropout_rate=self.recurrent_dropout_rate,
            history=history,
        )

    @property
    def _drops(self) -> bool:
        return any((self.dropout_rate, self.recurrent_dropout_rate, self.zoneout_rate))

    @nn.compact
    def _parameters(self, inputs: int) -> tuple[dict[str, dict[str, jax.Array]], Leaves | None]:
        """Declares or reads the parameters: the weights, and the initial carry if it is one."""
        cell = self.cell
        state = cell.widths[-1]
        weights = {
            name: parameters.Projection(
                spec,
                rows=inputs if spec.source == "input" else spec.rows or state,
                kernel_init=(
                    self.kernel_init if spec.source == "input" else self.recurrent_kernel_init
                ),
                bias_init=self.bias_init,
                param_dtype=self.param_dtype,
                name=name,
            )()
            for name, spec in cell.kernels.items()
        }
        if not self.learned_carry:
            return weights, None
        return weights, tuple(
            parameters.parameter(
                self, f"initial_{name}", "carry_init", self.carry_init, (width,), self.param_dtype
            )
            for name, width in zip(cell.carry_names, cell.widths, strict=True)
        )

    @nn.nowrap
    def _initial(
        self, batch: tuple[int, ...], learned: Leaves | None, rng: jax.Array | None = None
    ) -> Leaves:
        """The initial carry; a key is looked for only where ``carry_init`` wants one."""
        dtype = dtypes.canonical(self.carry_dtype)
        widths = self.cell.widths
        if learned is not None:
            return tuple(jnp.broadcast_to(x.astype(dtype), (*batch, x.shape[-1])) for x in learned)

        def draw(key: jax.Array | None) -> Leaves:
            keys = (key,) if len(widths) == 1 else (None,) * len(widths)
            if key is not None and len(widths) > 1:
                keys = tuple(jax.random.split(key, len(widths)))
            init = parameter_checks.drawn("carry_init", self.carry_init)
            return tuple(
                init(k, (*batch, width), dtype) for k, width in zip(keys, widths, strict=True)
            )

        if rng is not None:
            checks.keys(rng, "rng")
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
        if self.scope is None:
            return None
        cell = self.cell
        return parameter_checks.rows(self.scope, cell.inputs[0], cell.kernels[cell.inputs[0]].width)

    @nn.nowrap
    def _packed(self, leaves: Leaves) -> Carry:
        """The carry as users see it: a bare array where there is only one."""
        return leaves if len(leaves) > 1 else leaves[0]

    def _leaves(self, carry: Carry) -> Leaves:
        """A carry as the engines see it: always a tuple, in the carry's own dtype."""
        dtype = dtypes.canonical(self.carry_dtype)
        leaves = carry if len(self.cell.widths) > 1 else (carry,)
        return tuple(x.astype(dtype) for x in leaves)
