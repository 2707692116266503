"""Makes a full layer of any Flax cell."""

import dataclasses
import functools
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.recurrent.call import checks, conditions, options, placement
from zoo.recurrent.call.conditions import Conditions
from zoo.recurrent.composites import probe, rows
from zoo.recurrent.contract import Carry, RecurrentLayer, only_declares
from zoo.recurrent.convention import TIME
from zoo.recurrent.engine.parts import Parts
from zoo.recurrent.engine.step import before_step

_OPTIONS: dict[str, tuple[Any, Any]] = {
    "time_axis": (int, 0),
    "reverse": (bool, False),
    "unroll": (int, 1),
    "checkpoint_every": (int | None, None),
    "truncate_every": (int | None, None),
}


@functools.cache
def scanned(cell_class: type[nn.RNNCellBase]) -> type["ScannedLayer"]:
    """Returns a layer class that runs a cell over time, with the whole contract.

    The class has the cell's own options, and besides them ``time_axis``, ``reverse``, ``unroll``,
    ``checkpoint_every`` and ``truncate_every``, as ``GatedLayer`` has them. Parameters are those of
    ``nn.scan`` over the cell, at the same places; whatever else the cell does (dropout, ``sow``)
    follows ``zoo.recurrent.TIME``. Conditions work as for every layer; a cell with several feature
    axes (``ConvLSTMCell``) has xs (T, *batch, *features) and conditions (T, *batch). Inputs may be
    whole numbers where the cell refuses others (an ``nn.Embed`` inside).

    The carry, and ys, may be any trees. A leaf of the carry whose shape follows the batch, on
    whichever axes, is skipped, reset and poisoned row by row. One whose shape does not (a step
    counter) belongs to all rows: a step is taken in it where any row takes it, and it is reset
    where every row that takes the step is. Of ys, leaves that begin with the batch axes have rows;
    others come out (T, ...), and are 0 where no row takes the step. Whole numbers have no NaN: of
    a poisoned row they stay as they were in the carry, and are 0 in ys. A cell without
    ``initialize_carry`` needs a carry in every call, and takes no resets; which of its leaves have
    rows follows from whether they begin with the batch axes.

    Args:
      cell_class: a subclass of ``nn.RNNCellBase``.

    Returns:
      The layer class; the same one for the same cell.

    Raises:
      TypeError: it is no such class; or, where the layer is used, the cell has variables besides
        its parameters (``nn.BatchNorm``).
      ValueError: an option of the cell has the name of an option, or of a method, of the layer.

    Example:
      >>> import jax, jax.numpy as jnp, flax.linen as nn
      >>> from zoo.recurrent import scanned
      >>> layer = scanned(nn.OptimizedLSTMCell)(features=4, time_axis=1)
      >>> xs = jnp.ones((2, 7, 3))
      >>> variables = layer.init(jax.random.key(0), None, xs)
      >>> (c, h), ys = layer.apply(variables, None, xs, seq_lengths=jnp.array([7, 5]))
      >>> ys.shape
      (2, 7, 4)
    """
    if not (isinstance(cell_class, type) and issubclass(cell_class, nn.RNNCellBase)):
        raise TypeError(
            f"scanned: expected a subclass of flax.linen.RNNCellBase, got {cell_class!r}. "
            "Likely cause: an instance; give the class, and its options to the layer."
        )
    own = [f for f in dataclasses.fields(cell_class) if f.name not in ("parent", "name") and f.init]
    taken = {*_OPTIONS, *(set(dir(ScannedLayer)) - set(dir(nn.RNNCellBase)))}
    clash = sorted({f.name for f in own} & taken)
    if clash:
        raise ValueError(f"scanned: {cell_class.__name__} has options of the layer's: {clash}.")
    namespace: dict[str, Any] = {
        "__doc__": f"``{cell_class.__name__}`` over time; see ``zoo.recurrent.scanned``.",
        "__module__": cell_class.__module__,
        "__annotations__": {},
        "_scanned_class": cell_class,
        "_scanned_options": tuple(f.name for f in own),
    }
    for f in own:
        namespace["__annotations__"][f.name] = f.type
        if f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING:
            namespace[f.name] = dataclasses.field(
                default=f.default, default_factory=f.default_factory, kw_only=f.kw_only
            )
        elif f.kw_only:
            namespace[f.name] = dataclasses.field(kw_only=True)
    for name, (kind, default) in _OPTIONS.items():
        namespace["__annotations__"][name] = kind
        namespace[name] = default
    return type(f"Scanned{cell_class.__name__}", (ScannedLayer,), namespace)


class ScannedLayer(RecurrentLayer):
    """Base class of what ``scanned`` makes."""

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        options.check(self, _OPTIONS)

    def setup(self) -> None:
        """Puts the cell's parameters where the layer is, as ``nn.scan`` of the cell would."""
        # The name must not be one that a cell gives to a part of its own.
        self._scanned_cell = self._new_cell(self._own)
        nn.share_scope(self, self._scanned_cell)

    @nn.nowrap
    def _new_cell(self, part: Any) -> nn.RNNCellBase:
        options = {
            name: jax.tree.map(
                lambda x: part(x) if _is_module(x) else x, getattr(self, name), is_leaf=_is_module
            )
            if _holds_module(getattr(self, name))
            else getattr(self, name)
            for name in self._scanned_options
        }
        return self._scanned_class(**options, parent=None)

    @nn.nowrap
    def _own(self, option: nn.Module) -> nn.Module:
        """A cell that a composite was given is not one for all of its layers."""
        elsewhere = option.parent is not self and isinstance(option.parent, RecurrentLayer)
        return option.clone(parent=None) if elsewhere else option

    @property
    def _unbound(self) -> nn.RNNCellBase:
        """The cell without its parameters; so are cells that are options of it."""
        return self._new_cell(lambda option: option.clone(parent=None))

    @property
    def feature_axes(self) -> int:
        """How many of the last axes of xs are features; see ``RecurrentLayer``."""
        try:
            return self._unbound.num_feature_axes
        except NotImplementedError as error:
            raise TypeError(
                f"scanned: expected {self._scanned_class.__name__}.num_feature_axes, the number of "
                "the last axes of xs that are features, got none. Cure: num_feature_axes = 1 in "
                "the class."
            ) from error

    @property
    def output_features(self) -> int:
        """Size of the last axis of ys."""
        found = probe.width(self._unbound, self.feature_axes)
        if found is None:
            raise TypeError(
                f"output_features: expected {self._scanned_class.__name__} to return one array, "
                "whose last axis does not depend on that of the inputs, got something else. "
                "Likely cause: a cell with several outputs, or without initialize_carry, in a "
                "stack or in both directions."
            )
        return found

    @property
    def causal(self) -> bool:
        """Whether time runs forwards."""
        return not self.reverse

    @nn.nowrap
    def initialize_carry(self, rng: jax.Array | None, input_shape: tuple[int, ...]) -> Carry:
        """Returns the cell's initial carry; see ``RecurrentLayer``."""
        if rng is None and probe.is_random(self._unbound, input_shape):
            streams = () if self.scope is None else ("carry", "params")
            stream = next(filter(self.has_rng, streams), None)
            if stream is None:
                raise ValueError(
                    "the cell's initial carry is random: expected a key, got none. Pass "
                    'rngs={"carry": key} to apply, a key to initialize_carry, or a carry.'
                )
            rng = self.make_rng(stream)
        rng = jax.random.key(0) if rng is None else rng
        variables = {} if self.scope is None else self._scanned_cell.variables
        try:
            initial = probe.initial_carry(self._unbound, rng, input_shape, variables)
        except flax.errors.FlaxError as error:
            if self.scope is None:
                raise ValueError(
                    "the cell's initial carry is made of variables: expected a layer that is bound "
                    "to them, got one that is not. Cure: layer.apply(variables, rng, shape, "
                    'method="initialize_carry").'
                ) from error
            initial = self._scanned_cell.initialize_carry(rng, tuple(input_shape))
        return jax.tree.map(jnp.asarray, initial)

    @nn.nowrap
    def carry_spec(self, input_shape: tuple[int, ...]) -> Carry:
        """Returns the carry's shapes and dtypes; see ``RecurrentLayer``."""
        return probe.carry_spec(self._unbound, tuple(input_shape))

    def _sequence(
        self, carry: Carry | None, xs: jax.Array, given: Conditions, *, history: bool
    ) -> tuple[Carry, jax.Array]:
        # ``deterministic`` says nothing to a cell: its dropout has an option of its own.
        final, ys, past = self._run(carry, xs, *given[:3], history)
        return past if history else final, ys

    def step(
        self, carry: Carry | None, x: jax.Array, intervals: jax.Array | None = None
    ) -> tuple[Carry, jax.Array]:
        """Takes one step; see ``RecurrentLayer``."""
        self._check_intervals(intervals)
        x, spec, carry = self._checked(carry, x, None)
        if carry is None:
            carry = self.initialize_carry(None, x.shape)
        new, y = self._scanned_cell(rows.like_spec(carry, spec), x)
        return rows.like_spec(new, spec, self._scanned_cell), y

    @nn.nowrap
    def _checked(
        self, carry: Carry | None, xs: jax.Array, axis: int | None
    ) -> tuple[jax.Array, Carry, Carry | None]:
        """Checks what a call, or a step, is given; returns xs, the carry's spec, and the carry."""
        name = "x" if axis is None else "xs"
        xs = checks.array(name, xs, "an array")
        floats = jnp.issubdtype(xs.dtype, jnp.floating)
        if floats and self.feature_axes:
            checks.inputs(xs, time_axis=axis, features=None, name=name)
        one_step = xs.shape
        if axis is not None:
            at = checks.normal_axis(axis, xs.ndim, feature_axes=self.feature_axes)
            one_step = xs.shape[:at] + xs.shape[at + 1 :]
        try:
            spec = self.carry_spec(one_step)
        except probe.NoInitialCarryError:
            if carry is None:
                raise
            carry = jax.tree.map(jnp.asarray, carry)
            spec = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), carry)
        if not floats and not probe.wants_whole_numbers(self._unbound, spec, one_step):
            checks.inputs(xs, time_axis=axis, features=None, name=name)
        return xs, spec, checks.carry(carry, spec, xs_shape=xs.shape, time_axis=axis)

    def _run(
        self,
        carry: Carry | None,
        xs: jax.Array,
        seq_lengths: jax.Array | None,
        mask: jax.Array | None,
        resets: jax.Array | None,
        history: bool = False,
    ) -> tuple[Carry, jax.Array, Carry | None]:
        cell, features = self._scanned_cell, self.feature_axes
        xs, spec, carry = self._checked(carry, xs, self.time_axis)
        axis = checks.normal_axis(self.time_axis, xs.ndim, feature_axes=features)
        checks.unsharded_time(xs, axis)
        one_step, steps = xs.shape[:axis] + xs.shape[axis + 1 :], xs.shape[axis]
        batch = one_step[: len(one_step) - features]
        seq_lengths, mask, resets = checks.conditions(
            seq_lengths, mask, resets, batch, xs.shape[: len(batch) + 1], steps
        )

        # A random initial carry is not drawn, nor its key asked for, where nothing starts from it.
        wanted = carry is None or resets is not None
        initial = rows.like_spec(self.initialize_carry(None, one_step), spec) if wanted else carry
        start = rows.like_spec(initial if carry is None else carry, spec)
        if only_declares() and not history:
            x = jax.lax.index_in_dim(xs, 0, axis, keepdims=False) if steps else jnp.zeros(one_step)
            _, y = cell(start, x.astype(xs.dtype))
            written = {name for name, tree in cell.variables.items() if tree}
            others = sorted(written - {"params", *TIME.stacked})
            if others:
                raise _other_collections(cell, str(others))
            return start, rows.repeat(y, batch, steps, axis), None
        conditional = any(x is not None for x in (seq_lengths, mask, resets))
        layout = rows.find(
            spec,
            batch,
            lambda other: self.carry_spec((*other, *one_step[len(batch) :])),
            conditional,
        )
        if steps == 0:
            x = jax.ShapeDtypeStruct(one_step, xs.dtype)
            y = probe.output_spec(self._unbound, spec, x)
            y = jax.tree.map(lambda y: jnp.zeros(y.shape, y.dtype), y)
            nothing = jax.tree.map(lambda x: jnp.broadcast_to(x, (0, *x.shape)), start)
            past = layout.history(start, nothing, axis, self.reverse)
            return start, rows.repeat(y, batch, steps, axis), past
        xs, mask, resets = jax.tree.map(lambda x: jnp.moveaxis(x, axis, 0), (xs, mask, resets))
        initial, start = (layout.place(tree, xs, features) for tree in (initial, start))
        first = start
        worst = tuple(layout.largest(start, xs, features)) if resets is not None else ()
        order = Parts(reverse=self.reverse)
        known = conditions.resolve(xs, worst, seq_lengths, mask, resets, order, features)
        xs = conditions.clean(xs, known)
        if known.poisoned is not None:
            start = layout.finite(start)
        signals = {"mask": known.taken, "reset": known.resets, **rows.shared_signals(known, layout)}
        if self.truncate_every is not None:
            signals["cut"] = conditions.cuts(steps, self.truncate_every, order)
        signals = {name: x for name, x in signals.items() if x is not None}
        initial, start, xs, signals = placement.mark_varying(initial, start, xs, signals)

        def advance(cell: nn.RNNCellBase, carry: Carry, at: Any) -> tuple[Carry, Any]:
            x, given = at
            entered = carry
            if "reset" in given:
                entered = layout.choose(given["reset"], given.get("all reset"), initial, entered)
            entered = before_step(
                entered, {name: given[name] for name in given if name == "cut"}, None
            )
            new, y = cell(entered, x)
            new = placement.reshard_like(rows.like_spec(new, spec, cell), carry)
            if "mask" in given:
                new = layout.choose(given["mask"], given.get("any taken"), new, carry)
            return new, (y, new if history else None)

        try:
            final, (ys, after) = self._scan(advance, start, (xs, signals))
        except flax.errors.ScopeCollectionNotFound as error:
            raise _other_collections(cell, "others") from error
        final = layout.poison(final, known.poisoned_carry)
        ys = jax.tree.map(lambda y: rows.outputs(y, known, batch, axis), ys)
        if not history:
            return final, ys, None
        after = layout.poison(after, known.poisoned, time=1)
        return final, ys, layout.history(first, after, axis, self.reverse)

    def _scan(self, advance: Any, start: Carry, inputs: Any) -> tuple[Carry, Any]:
        options = {"reverse": self.reverse, "unroll": self.unroll}
        if self.checkpoint_every is None:
            return TIME.lift(advance, **options)(self._scanned_cell, start, inputs)
        return _scan_chunks(
            self._scanned_cell, advance, start, inputs, self.checkpoint_every, options
        )


def _scan_chunks(
    cell: nn.RNNCellBase, advance: Any, start: Carry, inputs: Any, every: int, options: Any
) -> tuple[Carry, Any]:
    """Scans over rematerialised chunks, the last of which is filled up with steps not taken."""
    steps = jax.tree.leaves(inputs)[0].shape[0]
    count = -(-steps // every)
    missing = count * every - steps
    ahead = options["reverse"]

    def chunks(x: jax.Array) -> jax.Array:
        widths = [(missing, 0) if ahead else (0, missing)] + [(0, 0)] * (x.ndim - 1)
        return jnp.pad(x, widths).reshape((count, every, *x.shape[1:]))

    real = chunks(jnp.ones((steps,), bool))

    def take(cell: nn.RNNCellBase, carry: Carry, at: Any) -> tuple[Carry, Any]:
        here, real = at
        new, out = advance(cell, carry, here)
        return jax.tree.map(lambda a, b: jnp.where(real, a, b), new, carry), out

    def chunk(cell: nn.RNNCellBase, carry: Carry, part: Any) -> tuple[Carry, Any]:
        return TIME.lift(take, **options)(cell, carry, part)

    # Flax's trial trace forgets how a carry varies over devices, which the inner scan minds; it
    # serves the initialisation of parameters only.
    trial = {"check_constancy_invariants": cell.is_initializing()}
    lifted = TIME.lift(nn.remat(chunk), reverse=options["reverse"], options=trial)
    final, out = lifted(cell, start, (jax.tree.map(chunks, inputs), real))

    def unchunk(x: jax.Array) -> jax.Array:
        whole = x.reshape((count * every, *x.shape[2:]))
        return whole[missing:] if ahead else whole[:steps]

    return final, jax.tree.map(unchunk, out)


def _other_collections(cell: nn.RNNCellBase, others: str) -> TypeError:
    return TypeError(
        f"scanned: expected a cell whose variables are params (and intermediates), got "
        f"{type(cell).__name__}, which has {others} too. Likely cause: an nn.BatchNorm, whose "
        "statistics would count padding and mix all steps. Use nn.LayerNorm in the cell, or "
        "normalise xs before the layer."
    )


def _is_module(x: Any) -> bool:
    return isinstance(x, nn.Module)


def _holds_module(option: Any) -> bool:
    return any(map(_is_module, jax.tree.leaves(option, is_leaf=_is_module)))
