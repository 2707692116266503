"""Makes a full layer of any Flax cell."""

import dataclasses
import functools
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.recurrent import checks, conditions, jaxprs, options, placement
from zoo.recurrent.contract import Carry, RecurrentLayer, only_declares
from zoo.recurrent.convention import TIME
from zoo.recurrent.step import enter, leave

_OPTIONS: dict[str, tuple[type, Any]] = {
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
    axes (``ConvLSTMCell``) has xs (T, *batch, *features) and conditions (T, *batch).

    Args:
      cell_class: a subclass of ``nn.RNNCellBase``.

    Returns:
      The layer class; the same one for the same cell.

    Raises:
      TypeError: it is no such class; or, where the layer is used, the cell has variables besides
        its parameters (``nn.BatchNorm``).
      ValueError: an option of the cell has the name of an option of the layer.

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
    own = [f for f in dataclasses.fields(cell_class) if f.name not in ("parent", "name")]
    clash = sorted({f.name for f in own} & set(_OPTIONS))
    if clash:
        raise ValueError(f"scanned: {cell_class.__name__} has options of the layer's: {clash}.")
    namespace: dict[str, Any] = {
        "__doc__": f"``{cell_class.__name__}`` over time; see ``zoo.recurrent.scanned``.",
        "__module__": cell_class.__module__,
        "__annotations__": {},
        "cell_class": cell_class,
        "cell_options": tuple(f.name for f in own),
    }
    for f in own:
        namespace["__annotations__"][f.name] = f.type
        if f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING:
            namespace[f.name] = dataclasses.field(
                default=f.default, default_factory=f.default_factory
            )
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
        self.cell = self._new_cell()
        nn.share_scope(self, self.cell)

    @nn.nowrap
    def _new_cell(self) -> nn.RNNCellBase:
        options = {name: getattr(self, name) for name in self.cell_options}
        return self.cell_class(**options, parent=None)

    @property
    def output_features(self) -> int:
        """Size of the last axis of ys."""
        return self.features

    @property
    def causal(self) -> bool:
        """Whether time runs forwards."""
        return not self.reverse

    @nn.nowrap
    def initialize_carry(self, rng: jax.Array | None, input_shape: tuple[int, ...]) -> Carry:
        """Returns the cell's initial carry; see ``RecurrentLayer``."""
        cell = self._new_cell()

        def draw(key: jax.Array) -> Carry:
            return cell.initialize_carry(key, tuple(input_shape))

        if rng is None and _uses_its_argument(draw):
            for stream in ("carry", "params"):
                if self.scope is not None and self.has_rng(stream):
                    return draw(self.make_rng(stream))
            raise ValueError(
                "the cell's initial carry is random: expected a key, got none. Pass "
                'rngs={"carry": key} to apply, a key to initialize_carry, or a carry.'
            )
        return draw(jax.random.key(0) if rng is None else rng)

    @nn.nowrap
    def carry_spec(self, input_shape: tuple[int, ...]) -> Carry:
        """Returns the carry's shapes and dtypes; see ``RecurrentLayer``."""
        cell = self._new_cell()
        key = jax.eval_shape(lambda: jax.random.key(0))
        return jax.eval_shape(lambda k: cell.initialize_carry(k, tuple(input_shape)), key)

    def __call__(
        self,
        carry: Carry | None,
        xs: jax.Array,
        seq_lengths: jax.Array | None = None,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
        deterministic: bool = True,
    ) -> tuple[Carry, jax.Array]:
        """Runs the cell over a sequence; see ``RecurrentLayer``.

        ``deterministic`` is for layers with dropouts of their own; a cell's dropout is the cell's.
        """
        final, ys, _ = self._run(carry, xs, seq_lengths, mask, resets)
        return final, ys

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
        _, ys, history = self._run(carry, xs, seq_lengths, mask, resets, history=True)
        return history, ys

    def step(self, carry: Carry | None, x: jax.Array) -> tuple[Carry, jax.Array]:
        """Takes one step; see ``RecurrentLayer``."""
        x = checks.inputs(x, time_axis=None, features=None, name="x")
        spec = self.carry_spec(x.shape)
        carry = checks.carry(carry, spec, xs_shape=x.shape, time_axis=None)
        if carry is None:
            carry = self.initialize_carry(None, x.shape)
        new, y = self.cell(_cast_like(carry, spec), x)
        return _cast_like(new, spec), y

    def _run(
        self,
        carry: Carry | None,
        xs: jax.Array,
        seq_lengths: jax.Array | None,
        mask: jax.Array | None,
        resets: jax.Array | None,
        history: bool = False,
    ) -> tuple[Carry, jax.Array, Carry | None]:
        features = self.cell.num_feature_axes
        xs = checks.inputs(xs, time_axis=self.time_axis, features=None)
        axis = checks.normal_axis(self.time_axis, xs.ndim, feature_axes=features)
        checks.unsharded_time(xs, axis)
        one_step = xs.shape[:axis] + xs.shape[axis + 1 :]
        spec = self.carry_spec(one_step)
        carry = checks.carry(carry, spec, xs_shape=xs.shape, time_axis=self.time_axis)
        batch, steps = one_step[:-features], xs.shape[axis]
        seq_lengths, mask, resets = checks.conditions(
            seq_lengths, mask, resets, batch, xs.shape[:-features], steps
        )

        # A random initial carry is not drawn, nor its key asked for, where nothing starts from it.
        wanted = carry is None or resets is not None
        initial = self.initialize_carry(None, one_step) if wanted else carry
        start = _cast_like(initial if carry is None else carry, spec)
        if only_declares() and not history:
            x = jax.lax.index_in_dim(xs, 0, axis, keepdims=False) if steps else jnp.zeros(one_step)
            _, y = self.cell(start, x.astype(xs.dtype))
            written = {name for name, tree in self.cell.variables.items() if tree}
            others = sorted(written - {"params", *TIME.stacked})
            if others:
                raise _other_collections(self.cell, str(others))
            ys = jnp.expand_dims(y, axis)
            return start, jnp.broadcast_to(ys, (*y.shape[:axis], steps, *y.shape[axis:])), None
        if steps == 0:
            y = jax.eval_shape(self.cell.clone(parent=None).init_with_output, *self._one(spec, xs))
            ys = jnp.zeros((*xs.shape[:-features], *y[0][1].shape[len(batch) :]), y[0][1].dtype)
            return start, ys, jax.tree.map(lambda x: jnp.expand_dims(x, axis), start)
        xs, mask, resets = jax.tree.map(lambda x: jnp.moveaxis(x, axis, 0), (xs, mask, resets))
        initial = placement.like_data(initial, xs, features)
        start = placement.like_data(start, xs, features)
        known = conditions.understand(xs, start, seq_lengths, mask, resets, self.reverse, features)
        xs = conditions.clean(xs, known)
        first = start
        if known.poisoned is not None:
            start = jax.tree.map(lambda x: jnp.where(jnp.isfinite(x), x, jnp.zeros_like(x)), start)
        signals = {"mask": known.taken, "reset": known.resets}
        if self.truncate_every is not None:
            signals["cut"] = conditions.cuts(steps, self.truncate_every, self.reverse)
        signals = {name: x for name, x in signals.items() if x is not None}
        initial, start, xs, signals = placement.align(initial, start, xs, signals)

        def advance(cell: nn.RNNCellBase, carry: Carry, at: Any) -> tuple[Carry, Any]:
            x, signals = at
            new, y = cell(enter(carry, signals, initial), x)
            new = leave(carry, placement.settle(_cast_like(new, spec), carry), signals)
            return new, (y, new if history else None)

        try:
            final, (ys, after) = self._scan(advance, start, (xs, signals))
        except flax.errors.ScopeCollectionNotFound as error:
            raise _other_collections(self.cell, "others") from error
        final = conditions.poison(final, known.poisoned_carry)
        ys = jnp.moveaxis(conditions.outputs(ys, known), 0, axis)
        if not history:
            return final, ys, None
        after = conditions.poison(after, known.poisoned)
        return final, ys, conditions.with_first(first, after, axis, self.reverse)

    def _scan(self, advance: Any, start: Carry, inputs: Any) -> tuple[Carry, Any]:
        options = {"reverse": self.reverse, "unroll": self.unroll}
        if self.checkpoint_every is None:
            return TIME.lift(advance, **options)(self.cell, start, inputs)
        return _scan_chunks(self.cell, advance, start, inputs, self.checkpoint_every, options)

    def _one(self, spec: Carry, xs: jax.Array) -> tuple[Any, Any, Any]:
        axis = checks.normal_axis(self.time_axis, xs.ndim, feature_axes=self.cell.num_feature_axes)
        one_step = xs.shape[:axis] + xs.shape[axis + 1 :]
        return jax.random.key(0), spec, jax.ShapeDtypeStruct(one_step, xs.dtype)


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
        whole = x.reshape((-1, *x.shape[2:]))
        return whole[missing:] if ahead else whole[:steps]

    return final, jax.tree.map(unchunk, out)


def _other_collections(cell: nn.RNNCellBase, others: str) -> TypeError:
    return TypeError(
        f"scanned: expected a cell whose variables are params (and intermediates), got "
        f"{type(cell).__name__}, which has {others} too. Likely cause: an nn.BatchNorm, whose "
        "statistics would count padding and mix all steps. Use nn.LayerNorm in the cell, or "
        "normalise xs before the layer."
    )


def _cast_like(carry: Carry, spec: Carry) -> Carry:
    return jax.tree.map(lambda x, like: x.astype(like.dtype), carry, spec)


def _uses_its_argument(draw: Any) -> bool:
    try:
        jaxpr, _, _ = jaxprs.trace(draw, jax.random.key(0))
    except jaxprs.UnknownProgramError:
        return False
    return bool(jaxprs.behind(jaxpr, jaxpr.outvars)[0])
