"""A layer without a state: a function, or another Flax module, of every step's features."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.recurrent.call import checks, conditions, flax_checks
from zoo.recurrent.call.conditions import Conditions
from zoo.recurrent.contract import Carry, RecurrentLayer


class Pointwise(RecurrentLayer):
    """Applies a function to the features of every step; the carry is the empty tuple.

    Attributes:
      function: maps an array (..., D) to one (..., H), every row by itself; or the class of a Flax
        module whose call does. Its variables lie where this layer's would.
      options: options of the class.
      time_axis: where time is.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp
      >>> layer = Pointwise(nn.Dense, {"features": 4})
      >>> xs = jnp.ones((7, 2, 3))
      >>> variables = layer.init(jax.random.key(0), None, xs)
      >>> carry, ys = layer.apply(variables, None, xs)
      >>> carry, ys.shape
      ((), (7, 2, 4))
    """

    function: Callable[..., jax.Array]
    options: Mapping[str, Any]
    time_axis: int = 0

    def setup(self) -> None:
        """Builds the module, if it is one."""
        if isinstance(self.function, type):
            self.applied = self.function(**self.options, parent=None)
            nn.share_scope(self, self.applied)

    @nn.nowrap
    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of one step's output for that of its input, (*batch, D)."""
        x = jax.ShapeDtypeStruct(tuple(input_shape), jnp.float32)

        def run(x: jax.Array) -> jax.Array:
            if not isinstance(self.function, type):
                return self._answer(self.function, x)
            keys = {name: jax.random.key(0) for name in ("params", "dropout")}
            module = self.function(**self.options, parent=None)
            more = self._flags(True)
            return self._answer(lambda x: module.init_with_output(keys, x, **more)[0], x)

        return jax.eval_shape(run, x).shape

    @property
    def causal(self) -> bool:
        """True: ys at t depend on xs at t."""
        return True

    @nn.nowrap
    def carry_spec(self, input_shape: tuple[int, ...]) -> Carry:
        """Returns the empty tuple; see ``RecurrentLayer``."""
        return ()

    @nn.nowrap
    def initialize_carry(self, rng: jax.Array | None, input_shape: tuple[int, ...]) -> Carry:
        """Returns the empty tuple; see ``RecurrentLayer``."""
        return ()

    def _sequence(
        self, carry: Carry | None, xs: jax.Array, given: Conditions, *, history: bool
    ) -> tuple[Carry, jax.Array]:
        seq_lengths, mask, resets, _, _ = given
        deterministic = flax_checks.deterministic(given.deterministic)
        xs = checks.inputs(xs, time_axis=self.time_axis, features=None)
        axis = checks.normal_axis(self.time_axis, xs.ndim)
        # How many axes are features is known to the layers around: there may be several.
        ranks = {jnp.ndim(x) for x in (mask, resets) if x is not None}
        if seq_lengths is not None:
            ranks.add(jnp.ndim(seq_lengths) + 1)
        shape = xs.shape[: min({*ranks, xs.ndim - 1})]
        batch = shape[:axis] + shape[axis + 1 :]
        known = checks.conditions(seq_lengths, mask, resets, batch, shape, xs.shape[axis])
        seq_lengths, mask, _ = known
        mask = None if mask is None else jnp.moveaxis(mask, axis, 0)
        valid = conditions.valid_steps(xs.shape[axis], seq_lengths, mask)
        if valid is None:
            return (), self._apply(xs, deterministic)
        valid = jnp.moveaxis(valid, 0, axis)
        xs = conditions.select(valid, xs, jnp.zeros_like(xs))
        ys = self._apply(xs, deterministic)
        # The function may make something of a zero.
        return (), conditions.select(valid, ys, jnp.zeros_like(ys))

    def step(
        self, carry: Carry | None, x: jax.Array, intervals: jax.Array | None = None
    ) -> tuple[Carry, jax.Array]:
        """Applies the function to one step; see ``RecurrentLayer``."""
        self._check_intervals(intervals)
        return (), self._apply(checks.inputs(x, time_axis=None, features=None, name="x"), True)

    def _apply(self, xs: jax.Array, deterministic: bool) -> jax.Array:
        function = self.applied if isinstance(self.function, type) else self.function
        more = self._flags(deterministic)
        # A row that is not finite is not run, so that gradients of later steps do not feel it.
        bad = ~jnp.isfinite(xs).all(axis=-1)
        xs = conditions.select(bad, jnp.zeros_like(xs), xs)
        with jax.numpy_dtype_promotion("standard"):
            ys = self._answer(lambda xs: function(xs, **more), xs)
        return conditions.poison(ys, bad)

    @nn.nowrap
    def _flags(self, deterministic: bool) -> dict[str, bool]:
        if not isinstance(self.function, type):
            return {}
        asked = "deterministic" in inspect.signature(self.function.__call__).parameters
        return {"deterministic": deterministic} if asked else {}

    @nn.nowrap
    def _answer(self, function: Callable[..., Any], xs: jax.Array) -> jax.Array:
        what = getattr(self.function, "__name__", repr(self.function))
        ys = function(xs)
        if not isinstance(ys, jax.Array) or ys.shape[:-1] != xs.shape[:-1] or not ys.ndim:
            got = f"shape {ys.shape}" if isinstance(ys, jax.Array) else type(ys).__name__
            raise ValueError(
                f"layers: expected {what} to map an array {(*xs.shape[:-1], 'D')} to one "
                f"{(*xs.shape[:-1], 'H')}, got {got}. Likely cause: a function that mixes steps or "
                "returns more than an array. A function that builds a layer is given by "
                '{"name": function}.'
            )
        return ys
