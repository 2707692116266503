"""Products with several kernels at once, made now or remembered."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from zoo.recurrent.cells import Cell, Weights

Group = tuple[str, ...]
Stacks = Mapping[Group, jax.Array]


def stack_kernels(cell: Cell, weights: Weights) -> dict[Group, jax.Array]:
    """Stacks the kernels that are asked for together: (rows, G, width) for every group.

    One wide product has a third of the overhead of three narrow ones. The gates lie on an axis of
    their own, so that kernels sharded over their columns stack without moving any data.
    """
    groups = (cell.inputs, *cell.asks)
    return {g: jnp.stack([weights[name]["kernel"] for name in g], axis=1) for g in groups}


def transpose_stack(stack: jax.Array) -> jax.Array:
    """(rows, G, width) to (G, width, rows), for cotangents that lie side by side."""
    return jnp.moveaxis(stack, 0, -1)


def side_by_side(sums: Sequence[jax.Array]) -> jax.Array:
    """G arrays (..., width) as one, (..., G, width).

    On one device they are concatenated: XLA:CPU makes the parts of a stack one by one, without
    vector instructions, which took a third more of a backward step. On a mesh they are stacked,
    which moves no data where their last axis is sharded.
    """
    if not jax.typeof(sums[0]).sharding.mesh.empty:
        return jnp.stack(sums, axis=-2)
    wide = jnp.concatenate(sums, axis=-1)
    return wide.reshape((*wide.shape[:-1], len(sums), sums[0].shape[-1]))


def small_weights(weights: Weights) -> dict[str, dict[str, jax.Array]]:
    """Everything but the kernels: biases and scales."""
    return {
        name: {leaf: x for leaf, x in own.items() if leaf != "kernel"}
        for name, own in weights.items()
    }


def apart(wide: jax.Array) -> tuple[jax.Array, ...]:
    """The inverse of ``side_by_side``."""
    parts = jax.lax.split(wide, (1,) * wide.shape[-2], axis=wide.ndim - 2)
    return tuple(jnp.squeeze(part, axis=-2) for part in parts)


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """How products are made.

    Attributes:
      precision: of ``jax.lax.dot_general``.
      work_dtype: dtype of the sums; operands have the kernel's dtype.
    """

    precision: jax.lax.PrecisionLike
    work_dtype: jnp.dtype

    def multiply(self, a: jax.Array, kernel: jax.Array, axes: int = 1) -> jax.Array:
        """Contracts the last axes of ``a`` with the first ones of ``kernel``."""
        last = tuple(range(a.ndim - axes, a.ndim))
        return jax.lax.dot_general(
            a.astype(kernel.dtype),
            kernel,
            ((last, tuple(range(axes))), ((), ())),
            precision=self.precision,
            preferred_element_type=self.work_dtype,
        )

    def products(self, a: jax.Array, stack: jax.Array) -> tuple[jax.Array, ...]:
        """``a @ stack[:, g]`` for every g, by one product; its transpose concatenates."""
        wide = self.multiply(a, stack)
        return apart(wide)

    def kernel_gradient(self, a: jax.Array, wide: jax.Array, like: jax.Array) -> jax.Array:
        """The gradient of a stack from all steps: ``a`` transposed times the sums' cotangents.

        JAX's own transpose of ``products`` would move the sums instead, which are G times as wide;
        that alone took a fifth of a small layer's gradient.

        Args:
          a: what was multiplied, (..., rows).
          wide: cotangents of the G products side by side, (..., G, width).
          like: the stack, (rows, G, width).
        """
        leading = tuple(range(a.ndim - 1))
        sharding = jax.typeof(like).sharding
        gradient = jax.lax.dot_general(
            a.astype(like.dtype),
            wide.astype(like.dtype),
            ((leading, leading), ((), ())),
            precision=self.precision,
            preferred_element_type=self.work_dtype,
            out_sharding=None if sharding.mesh.empty else sharding,
        )
        return gradient.astype(like.dtype)


def add(x: jax.Array, addend: jax.Array | None) -> jax.Array:
    """Adds a bias (width,) or an array (..., width); nothing for None."""
    return x if addend is None else x + jnp.broadcast_to(addend, x.shape).astype(x.dtype)


class Multiplier:
    """Makes every product that it is asked for, and remembers the sums (``results``)."""

    def __init__(self, arithmetic: Arithmetic, stacks: Stacks):
        self.arithmetic, self.stacks = arithmetic, stacks
        self.results: list[tuple[jax.Array, ...]] = []

    def __call__(self, a: jax.Array, **addends: jax.Array | None) -> tuple[jax.Array, ...]:
        """The products, then the addends."""
        sums = tuple(map(add, self.products(a, tuple(addends)), addends.values()))
        self.results.append(sums)
        return sums

    def products(self, a: jax.Array, group: Group) -> tuple[jax.Array, ...]:
        """One wide product."""
        return self.arithmetic.products(a, self.stacks[group])


class Separate(Multiplier):
    """Makes one product per kernel, so that those which nobody reads cost nothing."""

    def products(self, a: jax.Array, group: Group) -> tuple[jax.Array, ...]:
        """G narrow products."""
        stack = self.stacks[group]
        return tuple(self.arithmetic.multiply(a, stack[:, g]) for g in range(len(group)))


class Single(Multiplier):
    """Multiplies by the kernels as they are: stacking them takes longer than one step does."""

    def __init__(self, arithmetic: Arithmetic, weights: Weights):
        super().__init__(arithmetic, {})
        self.weights = weights

    def products(self, a: jax.Array, group: Group) -> tuple[jax.Array, ...]:
        """One product per kernel."""
        return tuple(self.arithmetic.multiply(a, self.weights[name]["kernel"]) for name in group)


class Recall:
    """Gives back known sums instead of multiplying again.

    The cotangent of a sum goes to the argument (times the transposed kernel) and to the addend.
    Those of all sums of a product, side by side as that multiplication needs them, are also the
    cotangent of the product's tap, from where a caller picks them up to make the kernel's gradient
    of all steps at once.
    """

    def __init__(
        self, arithmetic: Arithmetic, transposed: Stacks, known: list, taps: list[jax.Array]
    ):
        self.arithmetic, self.transposed = arithmetic, transposed
        self.known, self.open = iter(known), iter(taps)
        self.arguments: list[jax.Array] = []

    @staticmethod
    def taps(known: list) -> list[jax.Array]:
        """A tap for every product."""
        return [side_by_side([jnp.zeros_like(x) for x in sums]) for sums in known]

    def __call__(self, a: jax.Array, **addends: jax.Array | None) -> tuple[jax.Array, ...]:
        """The next known sums, whatever ``a`` is."""
        self.arguments.append(a)
        known = next(self.known)
        present = {i: x for i, x in enumerate(addends.values()) if x is not None}
        biases = {i: x.astype(known[i].dtype) for i, x in present.items() if x.ndim < known[i].ndim}
        others = {i: add(jnp.zeros_like(known[i]), present[i]) for i in present if i not in biases}
        transposed = self.transposed[tuple(addends)]
        return _recall(self.arithmetic, transposed, a, known, biases, others, next(self.open))


# Not a method: the rules outlive a trace, and must not hold what belongs to it.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _recall(arithmetic, transposed, a, known, biases, others, tap):
    return known


def _recall_forward(arithmetic, transposed, a, known, biases, others, tap):
    like_a = jnp.zeros((), a.dtype)
    return known, (transposed, like_a, dict.fromkeys(biases), dict.fromkeys(others))


def _recall_backward(arithmetic, residuals, sums):
    transposed, like_a, biases, others = residuals
    wide = side_by_side(sums)
    back = arithmetic.multiply(wide, transposed, axes=2)
    parts = apart(wide)
    # All at once: a sum of each by itself is a program of its own to compile.
    total = jnp.sum(wide, axis=tuple(range(wide.ndim - 2)))
    d_biases, d_others = {i: total[i] for i in biases}, {i: parts[i] for i in others}
    return None, back.astype(like_a.dtype), parts, d_biases, d_others, wide


_recall.defvjp(_recall_forward, _recall_backward)
