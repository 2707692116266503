"""What a layer is checked with: how it is built, an input, and the functions of both."""

import dataclasses
import functools
import unittest
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from zoo.recurrent.contract import Carry, RecurrentLayer

Check = Callable[["Case"], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A layer and an input; what several checks need of them is made once.

    Attributes:
      build: makes the layer; called with options of the layer as keyword arguments
        (``name``, ``time_axis``, ``reverse``, ``dtype``, ``param_dtype``, ``carry_dtype``,
        ``carry_init``, ``learned_carry``, ``dropout_rate``, ``recurrent_dropout_rate``,
        ``zoneout_rate``, ``implementation``) where it has them. ``functools.partial`` of the
        class will do.
      xs: float (T, B, *features), T >= 4, B >= 3, of ordinary size (normally distributed).
      options: the options that ``build`` takes; by default the layer's dataclass fields. Give
        them where ``build`` passes options on to a layer inside.

    Example:
      >>> import functools, jax, registry
      >>> from zoo.recurrent.testing import Case
      >>> xs = jax.random.normal(jax.random.key(0), (6, 3, 5))
      >>> case = Case(functools.partial(registry.build, "scan_gru", features=4), xs)
      >>> case.supports("reverse")
      True
      >>> carry, ys = case.run(case.start, case.xs)
      >>> ys.shape
      (6, 3, 4)
    """

    build: Callable[..., RecurrentLayer]
    xs: jax.Array
    options: frozenset[str] | None = None

    def __post_init__(self) -> None:
        """Checks the input."""
        shape, axes = jnp.shape(self.xs), getattr(self.layer, "feature_axes", 1)
        if len(shape) != 2 + axes or shape[0] < 4 or shape[1] < 3:
            raise ValueError(
                f"xs: expected (T, B, D) with T >= 4 and B >= 3 for the checks, got {shape}."
            )

    def __str__(self) -> str:
        """The layer's class."""
        return type(self.layer).__name__

    @functools.cached_property
    def host(self) -> np.ndarray:
        """``xs`` as a NumPy array: rearranging that compiles nothing."""
        return np.asarray(self.xs)

    @functools.cached_property
    def layer(self) -> RecurrentLayer:
        """The layer, built without further options."""
        return self.build()

    def supports(self, option: str) -> bool:
        """Whether the layer can be built with this option."""
        known = self.options
        if known is None:
            known = {f.name for f in dataclasses.fields(self.layer) if f.init}
        return option in known

    def variant(self, **options: Any) -> "Case":
        """Returns the case of the layer with other options.

        Raises:
          unittest.SkipTest: the layer has no such option.
        """
        for option in options:
            if not self.supports(option):
                raise inapplicable(f"{self} has no option {option}")
        return Case(functools.partial(self.build, **options), self.xs, self.options)

    @functools.cached_property
    def batch(self) -> int:
        """B."""
        return self.xs.shape[1]

    @functools.cached_property
    def features(self) -> tuple[int, ...]:
        """The feature axes of ``xs``: (D,), or axes of space before it."""
        return self.xs.shape[2:]

    @functools.cached_property
    def steps(self) -> int:
        """T."""
        return self.xs.shape[0]

    @functools.cached_property
    def variables(self) -> Any:
        """Variables for ``xs``, all of them random: zero biases would hide mistakes."""
        drawn = nn.meta.unbox(self.layer.init(jax.random.key(1), None, self.xs))
        random = np.random.default_rng(2)

        def move(x: jax.Array) -> jax.Array:
            if not jnp.issubdtype(x.dtype, jnp.floating):
                return x
            moved = np.asarray(x) + 0.1 * random.standard_normal(x.shape)
            return jnp.asarray(moved.astype(x.dtype))

        return jax.tree.map(move, drawn)

    def initial(self, shape: tuple[int, ...]) -> Carry:
        """The layer's initial carry for one step's input shape, (*batch, D)."""
        return self.layer.apply(self.variables, None, shape, method="initialize_carry")

    def call(self, carry: Carry | None, xs: Any, **conditions: Any) -> tuple[Carry, jax.Array]:
        """Calls the layer eagerly."""
        return self.layer.apply(self.variables, carry, jnp.asarray(xs), **conditions)

    @functools.cached_property
    def zero(self) -> Carry:
        """The layer's initial carry for ``xs``."""
        return self.initial(self.xs.shape[1:])

    @functools.cached_property
    def start(self) -> Carry:
        """Another carry to start from."""
        random = np.random.default_rng(3)

        def move(x: jax.Array) -> jax.Array:
            return jnp.asarray((x + 0.3 * random.standard_normal(x.shape)).astype(x.dtype))

        return jax.tree.map(move, jax.tree.map(np.asarray, self.zero))

    @functools.cached_property
    def _run(self) -> Callable[..., Any]:
        def run(variables: Any, carry: Carry, xs: jax.Array, conditions: Any) -> Any:
            return self.layer.apply(variables, carry, xs, **conditions)

        return jax.jit(run)

    def run(
        self, carry: Carry, xs: Any, variables: Any = None, **conditions: Any
    ) -> tuple[Carry, np.ndarray]:
        """Calls the layer, compiled; takes and returns NumPy arrays as well."""
        given = self.variables if variables is None else variables
        return jax.tree.map(np.asarray, self._run(given, carry, xs, conditions))

    @functools.cached_property
    def whole(self) -> tuple[Carry, np.ndarray]:
        """The carry and the outputs of ``xs``, from ``start``."""
        return self.run(self.start, self.xs)

    @functools.cached_property
    def _step(self) -> Callable[..., Any]:
        return jax.jit(functools.partial(self.layer.apply, method="step"))

    def step(self, carry: Carry, x: Any) -> tuple[Carry, jax.Array]:
        """Takes one step, compiled."""
        return self._step(self.variables, carry, x)

    def by_hand(
        self,
        carry: Carry,
        xs: np.ndarray,
        *,
        seq_lengths: np.ndarray | None = None,
        mask: np.ndarray | None = None,
        resets: np.ndarray | None = None,
    ) -> tuple[Carry, np.ndarray]:
        """Steps through ``xs`` (T, B, D) and does by hand what lengths, masks and resets mean.

        Returns:
          The history of the carry, (T + 1, B, ...), and ys.
        """
        carry = jax.tree.map(np.asarray, carry)
        history, ys = [carry], []
        for t in range(xs.shape[0]):
            taken = np.ones(xs.shape[1], bool)
            if seq_lengths is not None:
                taken &= t < seq_lengths
            if mask is not None:
                taken &= mask[t]
            entered = carry if resets is None else _where(resets[t], self.zero, carry)
            after, y = self.step(entered, xs[t])
            carry = _where(taken, after, carry)
            history.append(carry)
            ys.append(_where(taken, y, np.zeros_like(y)))
        return jax.tree.map(lambda *leaves: np.stack(leaves), *history), np.stack(ys)

    @functools.cached_property
    def conditions(self) -> dict[str, np.ndarray]:
        """Lengths (0 and T among them), a mask and resets, some of them on skipped steps."""
        random = np.random.default_rng(7)
        shape = (self.steps, self.batch)
        mask, resets = random.random(shape) < 0.7, random.random(shape) < 0.3
        # A reset on a masked step and one in padding, each beside steps that are taken, and are
        # not reset: in either direction of time, whoever makes or postpones them shows it.
        mask[:3, 1], resets[:3, 1] = (True, False, True), (False, True, False)
        mask[-2:, 1], resets[-2:, 1] = (True, False), (False, True)
        # One that is made.
        mask[2, 2] = resets[2, 2] = True
        lengths = np.full(self.batch, 2, np.int32)
        lengths[:3] = 0, self.steps - 1, self.steps
        return {"seq_lengths": lengths, "mask": mask, "resets": resets}

    @functools.cached_property
    def skipped(self) -> np.ndarray:
        """The steps that ``conditions`` skip, bool (T, B)."""
        time = np.arange(self.steps)[:, None]
        return ~self.conditions["mask"] | (time >= self.conditions["seq_lengths"])

    @functools.cached_property
    def _gradients(self) -> Callable[..., Any]:
        def loss(variables: Any, carry: Carry, xs: jax.Array, weights: Any, conditions: Any) -> Any:
            outputs = self.layer.apply(variables, carry, xs, **conditions)
            parts = jax.tree.map(_weighted, outputs, weights)
            return sum(jax.tree.leaves(parts), jnp.zeros(())), outputs

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))

    def gradients(
        self, weights: Any, xs: Any, variables: Any = None, carry: Any = None, **conditions: Any
    ) -> Any:
        """Differentiates the loss sum(weights · (carry, ys)) of the layer, from ``start``.

        Outputs with the weight 0 do not enter the loss, whatever they are; nor do numbers beyond a
        million, which stand for infinity.

        Args:
          weights: a tree like (carry, ys).
          xs: (T, B, D).
          variables: of the layer; by default the case's.
          carry: another first carry than ``start``.
          **conditions: of the call.

        Returns:
          ((loss, (carry, ys)), gradients by variables, carry and xs).
        """
        given = self.variables if variables is None else variables
        start = self.start if carry is None else carry
        found = self._gradients(given, start, xs, weights, conditions)
        return jax.tree.map(np.asarray, found)

    @functools.cached_property
    def weights(self) -> Any:
        """Weights for ``gradients``: random, of the shapes of (carry, ys)."""
        random = np.random.default_rng(4)
        return jax.tree.map(
            lambda x: random.uniform(0.5, 1.5, x.shape).astype(np.float32), self.whole
        )


def promise(text: str) -> Callable[[Check], Check]:
    """Marks a check with the promise that it is about; its failures say so.

    Args:
      text: the promise, in one sentence without its full stop.
    """

    def decorate(check: Check) -> Check:
        @functools.wraps(check)
        def checked(case: Case) -> None:
            try:
                with jax.default_matmul_precision("highest"):
                    check(case)
            except unittest.SkipTest:
                raise
            except AssertionError as error:
                raise AssertionError(f"{case} breaks the promise: {text}.\n{error}") from error
            except Exception as error:
                raise AssertionError(
                    f"{case} breaks the promise: {text}.\nExpected it to run, got "
                    f"{type(error).__name__}: {error}"
                ) from error

        return checked

    return decorate


def inapplicable(reason: str) -> unittest.SkipTest:
    """Returns what a check raises where the promise does not concern the layer."""
    return unittest.SkipTest(reason)


def causal_only(case: Case) -> None:
    """Skips a check where the layer cannot be streamed."""
    if not case.layer.causal:
        raise inapplicable(f"{case} is not causal")


def _where(condition: np.ndarray, yes: Any, no: Any) -> Any:
    def choose(a: Any, b: Any) -> np.ndarray:
        shaped = condition.reshape(condition.shape + (1,) * (a.ndim - condition.ndim))
        return np.where(shaped, np.asarray(a), np.asarray(b))

    return jax.tree.map(choose, yes, no)


def counts(x: Any) -> Any:
    """Where numbers belong into a loss: one that stands for infinity would hide all others."""
    return abs(x) < 1e6


def _weighted(x: jax.Array, weight: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    return jnp.sum(jnp.where((weight != 0) & counts(x), x, jnp.zeros_like(x)) * weight)
