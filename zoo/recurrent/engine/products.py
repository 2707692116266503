"""Products with several kernels at once, made now or remembered."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from zoo.recurrent.cell import Cell, Weights

Group = tuple[str, ...]
Stacks = Mapping[Group, jax.Array]


def stack_kernels(cell: Cell, weights: Weights) -> dict[Group, jax.Array]:
    """Stacks the kernels of every product: (rows, G, width) for dense ones.

    Diagonal kernels become (G, width), block-diagonal ones (N, rows/N, G, width/N): the number of
    axes tells the structure.

    One wide product has a third of the overhead of three narrow ones. The gates lie on an axis of
    their own, so that kernels sharded over their columns stack without moving any data.
    """
    groups = (cell.inputs, *cell.products)
    return {g: jnp.stack([weights[name]["kernel"] for name in g], axis=-2) for g in groups}


def transpose_stack(stack: jax.Array) -> jax.Array:
    """(rows, G, width) to (G, width, rows), for cotangents that lie side by side."""
    return stack if stack.ndim == 2 else jnp.moveaxis(stack, -3, -1)


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

    def multiply_stack(self, a: jax.Array, stack: jax.Array) -> jax.Array:
        """``a`` (..., rows) by each of G kernels, side by side: (..., G, width)."""
        if stack.ndim == 3:
            return self.multiply(a, stack)
        a = a.astype(stack.dtype)
        if stack.ndim == 2:
            return self._by_features(a[..., None, :], stack)
        heads, rows, _, width = stack.shape
        blocks = self._by_heads(
            a.reshape((*a.shape[:-1], heads, rows)), stack, ((a.ndim,), (1,)), a.ndim - 1
        )
        return blocks.reshape((*blocks.shape[:-2], heads * width))

    def multiply_one(self, a: jax.Array, kernel: jax.Array) -> jax.Array:
        """``a @ kernel``, (..., width)."""
        if kernel.ndim == 2:
            return self.multiply(a, kernel)
        return jnp.squeeze(self.multiply_stack(a, jnp.expand_dims(kernel, -2)), axis=-2)

    def pull_back(self, wide: jax.Array, transposed: jax.Array) -> jax.Array:
        """The cotangent of ``a`` for those of its products (..., G, width): (..., rows)."""
        if transposed.ndim == 3:
            return self.multiply(wide, transposed, axes=2)
        wide = wide.astype(transposed.dtype)
        if transposed.ndim == 2:
            return jnp.sum(self._by_features(wide, transposed), axis=-2)
        heads, _, width, rows = transposed.shape
        cut = wide.reshape((*wide.shape[:-1], heads, width))
        axes = ((cut.ndim - 3, cut.ndim - 1), (1, 2))
        back = self._by_heads(cut, transposed, axes, cut.ndim - 2)
        return back.reshape((*back.shape[:-2], heads * rows))

    def _by_features(self, a: jax.Array, vectors: jax.Array) -> jax.Array:
        """Multiplies feature by feature."""
        shape = (*a.shape[:-2], *vectors.shape)
        a, vectors = a.astype(self.work_dtype), vectors.astype(self.work_dtype)
        return jnp.broadcast_to(a, shape) * jnp.broadcast_to(vectors, shape)

    def _by_heads(
        self,
        a: jax.Array,
        kernel: jax.Array,
        contracted: tuple[tuple[int, ...], tuple[int, ...]],
        heads_axis: int,
    ) -> jax.Array:
        """Contracts every head by itself; the heads come out last but one."""
        out = jax.lax.dot_general(
            a,
            kernel,
            (contracted, ((heads_axis,), (0,))),
            precision=self.precision,
            preferred_element_type=self.work_dtype,
        )
        return jnp.moveaxis(out, 0, -2)

    def products(self, a: jax.Array, stack: jax.Array) -> tuple[jax.Array, ...]:
        """``a @ stack[:, g]`` for every g, by one product; its transpose concatenates."""
        return apart(self.multiply_stack(a, stack))

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
        a, wide, heads = a.astype(like.dtype), wide.astype(like.dtype), ((), ())
        if like.ndim == 2:
            wide = wide.astype(self.work_dtype)
            a = jnp.broadcast_to(a[..., None, :].astype(self.work_dtype), wide.shape)
            return jnp.sum(a * wide, axis=leading).astype(like.dtype)
        if like.ndim == 4:
            a = a.reshape((*a.shape[:-1], like.shape[0], like.shape[1]))
            wide = wide.reshape((*wide.shape[:-1], like.shape[0], like.shape[-1]))
            heads = ((a.ndim - 2,), (wide.ndim - 2,))
        gradient = jax.lax.dot_general(
            a,
            wide,
            ((leading, leading), heads),
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
        kernels = (stack[..., g, :] for g in range(len(group)))
        return tuple(self.arithmetic.multiply_one(a, kernel) for kernel in kernels)


class Unstacked(Multiplier):
    """Multiplies by the kernels as they are: stacking them takes longer than one step does."""

    def __init__(self, arithmetic: Arithmetic, weights: Weights):
        super().__init__(arithmetic, {})
        self.weights = weights

    def products(self, a: jax.Array, group: Group) -> tuple[jax.Array, ...]:
        """One product per kernel."""
        kernels = (self.weights[name]["kernel"] for name in group)
        return tuple(self.arithmetic.multiply_one(a, kernel) for kernel in kernels)


class ManySteps(Multiplier):
    """Multiplies what all steps of a block read, by kernels as they are among the parameters.

    Kernels that are asked for together and of one shape make one product. Those of another dtype
    than products have are rounded here, so that their gradients are summed over blocks unrounded.
    """

    def __init__(
        self, arithmetic: Arithmetic, weights: Weights, dtype: jnp.dtype, by_hand: bool = False
    ):
        super().__init__(arithmetic, {})
        self.weights, self.dtype, self.by_hand = weights, dtype, by_hand

    def products(self, a: jax.Array, group: Group) -> tuple[jax.Array, ...]:
        """One wide product, or one for each kernel of another shape."""
        kernels = [self.weights[name]["kernel"].astype(self.dtype) for name in group]
        if len({kernel.shape for kernel in kernels}) == 1:
            return self._together(a, kernels)
        return tuple(y for kernel in kernels for y in self._together(a, [kernel]))

    def _together(self, a: jax.Array, kernels: list[jax.Array]) -> tuple[jax.Array, ...]:
        stack = jnp.stack(kernels, axis=-2)
        multiply = _multiplied if self.by_hand else Arithmetic.multiply_stack
        return apart(multiply(self.arithmetic, a, stack))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _multiplied(arithmetic: Arithmetic, a: jax.Array, stack: jax.Array) -> jax.Array:
    """``multiply_stack``, with its derivative as ``Arithmetic`` has it."""
    return arithmetic.multiply_stack(a, stack)


def _multiplied_forward(
    arithmetic: Arithmetic, a: jax.Array, stack: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return arithmetic.multiply_stack(a, stack), (a, stack)


def _multiplied_backward(
    arithmetic: Arithmetic, residuals: tuple[jax.Array, jax.Array], wide: jax.Array
) -> tuple[jax.Array, jax.Array]:
    a, stack = residuals
    back = arithmetic.pull_back(wide, transpose_stack(stack)).astype(a.dtype)
    return back, arithmetic.kernel_gradient(a, wide, stack)


_multiplied.defvjp(_multiplied_forward, _multiplied_backward)


class StoredSums:
    """Gives back known sums instead of multiplying again.

    The cotangent of a sum goes to the argument (times the transposed kernel) and to the addend.
    Those of all sums of a product, side by side as that multiplication needs them, are also the
    cotangent of the product's perturbation, of which a caller makes the kernel's gradient for all
    steps at once.
    """

    def __init__(
        self,
        arithmetic: Arithmetic,
        transposed: Stacks,
        known: list,
        perturbations: list[jax.Array],
    ):
        self.arithmetic, self.transposed = arithmetic, transposed
        self.known, self.open = iter(known), iter(perturbations)
        self.arguments: list[jax.Array] = []

    @staticmethod
    def perturbations(known: list) -> list[jax.Array]:
        """A perturbation for every product."""
        return [side_by_side([jnp.zeros_like(x) for x in sums]) for sums in known]

    def __call__(self, a: jax.Array, **addends: jax.Array | None) -> tuple[jax.Array, ...]:
        """The next known sums, whatever ``a`` is."""
        self.arguments.append(a)
        known = next(self.known)
        present = {i: x for i, x in enumerate(addends.values()) if x is not None}
        biases = {i: x.astype(known[i].dtype) for i, x in present.items() if x.ndim < known[i].ndim}
        others = {i: add(jnp.zeros_like(known[i]), present[i]) for i in present if i not in biases}
        transposed = self.transposed[tuple(addends)]
        return _stored(self.arithmetic, transposed, a, known, biases, others, next(self.open))


# Not a method: the rules outlive a trace, and must not hold what belongs to it.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _stored(arithmetic, transposed, a, known, biases, others, perturbation):
    return known


def _stored_forward(arithmetic, transposed, a, known, biases, others, perturbation):
    like_a = jnp.zeros((), a.dtype)
    return known, (transposed, like_a, dict.fromkeys(biases), dict.fromkeys(others))


def _stored_backward(arithmetic, residuals, sums):
    transposed, like_a, biases, others = residuals
    wide = side_by_side(sums)
    back = arithmetic.pull_back(wide, transposed)
    parts = apart(wide)
    # All at once: a sum of each by itself is a program of its own to compile.
    total = jnp.sum(wide, axis=tuple(range(wide.ndim - 2)))
    d_biases, d_others = {i: total[i] for i in biases}, {i: parts[i] for i in others}
    return None, back.astype(like_a.dtype), parts, d_biases, d_others, wide


_stored.defvjp(_stored_forward, _stored_backward)
