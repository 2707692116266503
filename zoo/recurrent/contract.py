"""The contract that every layer of the zoo keeps."""

import functools
import inspect
import itertools
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import DenyList

from zoo.recurrent import jaxprs, unstable
from zoo.recurrent.call import checks, flax_checks, reading
from zoo.recurrent.call.conditions import Conditions

Carry = Any

_declaring: ContextVar[bool] = ContextVar("declaring", default=False)


def only_declares() -> bool:
    """Whether a layer is called for its parameters' sake: no value that it returns is looked at."""
    return _declaring.get()


class RecurrentLayer(nn.Module):
    """Base class of every recurrent layer.

    A layer maps ``(carry, xs) -> (carry, ys)``, as ``jax.lax.scan`` does. T is time, ``*batch``
    any number of batch axes, D input features and H hidden features::

        layer = registry.build("scan_gru", features=H)
        variables = layer.init(key, None, xs)                  # xs: (T, *batch, D)
        carry, ys = layer.apply(variables, None, xs)           # ys: (T, *batch, H)
        carry, y = layer.apply(variables, carry, x, method="step")   # x: (*batch, D)
        carry = layer.initialize_carry(key, x.shape)

    Where time is in xs and ys is the layer's ``time_axis``; time comes first by default. A
    subclass defines ``_sequence`` (or both ``__call__`` and ``history``), ``step``,
    ``initialize_carry``, ``carry_spec``, ``output_features`` and ``causal``. Its ``carry_spec`` is
    marked ``nn.nowrap``: composites ask for it where an inner layer is bound to no variables, which
    ``nn.tabulate`` does not allow for other methods.

    Conditions may be given by keyword or by position, in the order ``seq_lengths, mask, resets,
    deterministic, intervals``. Layers that are lifted by ``nn.vmap`` or ``nn.scan`` take them by
    position only, since Flax hands nothing else on (the README shows an ensemble).

    What comes first in and out is the carry, unlike with ``nn.RNN``. ``nn.Sequential`` hands on
    all that a module returns, so a second layer in it would start from the last carry of the first
    one, without an error where the shapes agree: its first outputs would depend on the first
    layer's last inputs. A layer cannot tell such a carry from one that is meant. Layers on top of
    each other are a ``stack``, ``registry.build("stack", layers=[...])``.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Guards what ``nn.vmap(Layer)`` and its like make of a method; see ``_keeps_keywords``."""
        super().__init_subclass__(**kwargs)
        reading.make_readable(cls.__init__)
        for name in ("__call__", "history", "carries"):
            own, base = cls.__dict__.get(name), getattr(super(cls, cls), name, None)
            # Flax lifts a class by making a subclass whose method wraps the one that it inherits.
            if own and base and inspect.unwrap(own) is inspect.unwrap(base):
                setattr(cls, name, _keeps_keywords(own))

    def __repr__(self) -> str:
        return reading.brief(self)

    def __call__(
        self,
        carry: Carry | None,
        xs: jax.Array,
        seq_lengths: jax.Array | None = None,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
        deterministic: bool = True,
        intervals: jax.Array | None = None,
    ) -> tuple[Carry, jax.Array]:
        """Runs the layer over a sequence.

        Shapes below are for ``time_axis=0``; the conditions have the axes of xs without the last.

        Args:
          carry: where to start from; None for the layer's initial carry. It is cast to the
            layer's ``carry_dtype``.
          xs: inputs, float (T, *batch, D). With T=0 the carry comes back as it is.
          seq_lengths: int (*batch,). Steps at t >= length are padding. Values outside [0, T] are
            an error where they are concrete; traced ones act as if clamped.
          mask: bool (T, *batch). A False step is skipped: the carry passes through, ys is 0
            there, and a reset on it is not made.
          resets: bool (T, *batch). Where True, the carry is replaced by the layer's initial carry
            before that step is taken. This is the ``is_first`` convention: an environment's
            ``done`` belongs to the step after it. A batch row is NaN from a non-finite input
            until its next reset, which neither values nor gradients of later steps feel.
          deterministic: turns the layer's dropouts off; False needs ``rngs={"dropout": key}``.
          intervals: float (T, *batch), not negative: the time that passes in each step, for
            sequences that are sampled irregularly; None is 1 throughout. Layers that know no
            elapsed time (``reads_intervals``) refuse it.

        Returns:
          The last carry, and ys (T, *batch, H).

        Raises:
          ValueError: a shape does not fit; the message says which, and the likely cause.
          TypeError: a dtype or a structure does not fit.
        """
        self._check_intervals(intervals)
        given = Conditions(seq_lengths, mask, resets, deterministic, intervals)
        return self._sequence(carry, xs, given, history=False)

    @nn.nowrap
    def _check_intervals(self, intervals: jax.Array | None) -> None:
        """Refuses elapsed times where the layer knows none."""
        if intervals is not None and not self.reads_intervals:
            raise checks.no_intervals(type(self).__name__)

    def step(
        self, carry: Carry | None, x: jax.Array, intervals: jax.Array | None = None
    ) -> tuple[Carry, jax.Array]:
        """Takes one step, for streaming, with the same variables as a call.

        Args:
          carry: where to start from; None for the layer's initial carry.
          x: float (*batch, D).
          intervals: float (*batch,), as in a call.

        Returns:
          The new carry, and y (*batch, H). Dropouts are off.

        Raises:
          ValueError: a shape does not fit.
          TypeError: a dtype or a structure does not fit.
        """
        raise NotImplementedError

    def carries(
        self,
        carry: Carry | None,
        xs: jax.Array,
        seq_lengths: jax.Array | None = None,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
        deterministic: bool = True,
        intervals: jax.Array | None = None,
    ) -> Carry:
        """Returns the whole history of the carry, the initial one included.

        Args:
          carry: as in a call.
          xs: as in a call.
          seq_lengths: as in a call; so are all others.
          mask: see there.
          resets: see there.
          deterministic: see there.
          intervals: see there.

        Returns:
          A tree like a carry, its leaves with a time axis of length T+1 where xs has T: index t
          is the carry before step t, and T the last one. With ``reverse`` index t+1 is the
          carry before step t, and 0 the last one.

        Raises:
          ValueError: a shape does not fit.
          TypeError: a dtype or a structure does not fit.
        """
        given = Conditions(seq_lengths, mask, resets, deterministic, intervals)._asdict()
        if intervals is None:
            del given["intervals"]  # Somebody's history may not know of it.
        return self.history(carry, xs, **given)[0]

    def history(
        self,
        carry: Carry | None,
        xs: jax.Array,
        seq_lengths: jax.Array | None = None,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
        deterministic: bool = True,
        intervals: jax.Array | None = None,
    ) -> tuple[Carry, jax.Array]:
        """Runs the layer as a call does; returns what ``carries`` returns, and ys.

        Args:
          carry: as in a call.
          xs: as in a call.
          seq_lengths: as in a call; so are all others.
          mask: see there.
          resets: see there.
          deterministic: see there.
          intervals: see there.

        Raises:
          ValueError: a shape does not fit.
          TypeError: a dtype or a structure does not fit.
        """
        self._check_intervals(intervals)
        given = Conditions(seq_lengths, mask, resets, deterministic, intervals)
        return self._sequence(carry, xs, given, history=True)

    def _sequence(
        self, carry: Carry | None, xs: jax.Array, given: Conditions, *, history: bool
    ) -> tuple[Carry, jax.Array]:
        """Runs a call, or with ``history`` what ``history`` returns; for subclasses to define."""
        raise NotImplementedError

    def initialize_carry(self, rng: jax.Array | None, input_shape: tuple[int, ...]) -> Carry:
        """Returns the initial carry for one step's input shape.

        Args:
          rng: a key; may be None where the layer's ``carry_init`` draws nothing.
          input_shape: shape of one step's input, (*batch, D).

        Returns:
          The carry, arrays (*batch, width) of the layer's ``carry_dtype``.

        Raises:
          ValueError: the initial carry is a parameter and the layer is not bound to its variables
            (use ``layer.apply(variables, rng, shape, method="initialize_carry")``), or it is
            random and there is no key.
        """
        raise NotImplementedError

    @nn.nowrap
    def carry_spec(self, input_shape: tuple[int, ...]) -> Carry:
        """Returns the carry's tree of ``jax.ShapeDtypeStruct`` for one step's input shape.

        Args:
          input_shape: shape of one step's input, (*batch, D).
        """
        raise NotImplementedError

    @property
    def output_features(self) -> int:
        """Size of the last axis of ys."""
        raise NotImplementedError

    @property
    def feature_axes(self) -> int:
        """How many of the last axes of xs are features: one, or axes of space as well."""
        return 1

    @property
    def reads_intervals(self) -> bool:
        """Whether the layer knows elapsed time, so that ``intervals`` means something to it."""
        return False

    @property
    def causal(self) -> bool:
        """Whether ys at t depend on xs up to t only, so that the layer can be streamed."""
        raise NotImplementedError

    @nn.nowrap
    def init(
        self,
        rngs: Any,
        *args: Any,
        method: Any = None,
        mutable: Any = DenyList("intermediates"),
        **kwargs: Any,
    ) -> Any:
        """Initialises the variables; as ``nn.Module.init``, at the cost of no step at all.

        Parameters depend on shapes alone, so nothing else of the arguments is looked at: T=1 and
        T=10000 cost the same. Where a variable does depend on the inputs, the layer is run.
        """
        flax_checks.keys(rngs)

        def declare(rngs: Any, args: Any, kwargs: Any) -> Any:
            token = _declaring.set(True)
            try:
                return super(RecurrentLayer, self).init(
                    rngs, *args, method=method, mutable=mutable, **kwargs
                )
            finally:
                _declaring.reset(token)

        if any(map(unstable.is_traced, jax.tree.leaves((rngs, args, kwargs)))):
            return declare(rngs, args, kwargs)
        return _without_inputs(declare, rngs, args, kwargs)

    @nn.nowrap
    def apply(self, variables: Any, *args: Any, rngs: Any = None, **kwargs: Any) -> Any:
        """Calls a method with these variables; as ``nn.Module.apply``."""
        flax_checks.variables(variables)
        flax_checks.keys(rngs)
        return super().apply(variables, *args, rngs=rngs, **kwargs)

    @nn.nowrap
    def describe(self, input_shape: tuple[int, ...]) -> str:
        """Returns what the layer makes of an input, as text for people.

        Args:
          input_shape: shape of xs, (T, *batch, D) for ``time_axis=0``.

        Returns:
          Lines with the shapes of ys and of the carry, the tree of parameters and their count.

        Raises:
          ValueError: the shape does not fit.
        """
        xs = jax.ShapeDtypeStruct(tuple(input_shape), jnp.float32)
        key = jax.eval_shape(lambda: jax.random.key(0))
        (carry, ys), variables = jax.eval_shape(
            lambda key, xs: self.init_with_output(key, None, xs), key, xs
        )
        lines = [f"xs      {_brief(xs)}"]
        for name, tree in (("ys", ys), ("carry", carry)):
            for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
                lines.append(f"{name + jax.tree_util.keystr(path):8}{_brief(leaf)}")
        lines.append("parameters")
        total = 0
        for path, leaf in jax.tree_util.tree_flatten_with_path(variables.get("params", {}))[0]:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            count = leaf.size
            total += count
            lines.append(f"  {name:30} {_brief(leaf):24} {count:,}")
        lines.append(f"  {'total':30} {'':24} {total:,}")
        return "\n".join(lines)


def _keeps_keywords(lifted: Callable[..., Any]) -> Callable[..., Any]:
    """Refuses a call of a lifted method whose keyword arguments Flax would drop with a warning."""

    @functools.wraps(lifted)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not kwargs:
            return lifted(self, *args)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "kwargs are not supported in", RuntimeWarning)
            try:
                return lifted(self, *args, **kwargs)
            except RuntimeWarning as warning:
                raise TypeError(
                    f"{type(self).__name__}: expected conditions by position, got the keywords "
                    f"{', '.join(kwargs)}, which nn.vmap and nn.scan of Flax drop. Cure: call "
                    "layer(carry, xs, seq_lengths, mask, resets, deterministic, intervals), None "
                    "for those that are not given, with an entry of in_axes for each of them."
                ) from warning

    return call


def _without_inputs(declare: Callable[..., Any], rngs: Any, *inputs: Any) -> Any:
    """``declare(rngs, *inputs)``, of which only that is run which does not need the inputs.

    The whole is traced, not run, and then done operation by operation, as without tracing: compiled
    as one program, random numbers would differ in their last bits.
    """
    leaves, treedef = jax.tree.flatten(inputs)
    is_array = [hasattr(x, "shape") and hasattr(x, "dtype") for x in leaves]
    arrays = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in itertools.compress(leaves, is_array)]
    keys, keys_treedef = jax.tree.flatten(rngs)

    def traced(keys: list[Any], arrays: list[Any]) -> Any:
        given = iter(arrays)
        mixed = [next(given) if array else x for x, array in zip(leaves, is_array, strict=True)]
        return declare(jax.tree.unflatten(keys_treedef, keys), *jax.tree.unflatten(treedef, mixed))

    try:
        jaxpr, known, shapes = jaxprs.trace(traced, keys, arrays)
    except jaxprs.UnknownProgramError:
        return declare(rngs, *inputs)
    needed, operations = jaxprs.behind(jaxpr, jaxpr.outvars)
    known.update(zip(jaxpr.invars[: len(keys)], keys, strict=True))
    if not known.keys() >= set(needed):
        return declare(rngs, *inputs)
    return jax.tree.unflatten(
        jax.tree.structure(shapes), jaxprs.evaluate(operations, known, jaxpr.outvars)
    )


def _brief(x: Any) -> str:
    return f"{x.dtype}{list(x.shape)}"
