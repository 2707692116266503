"""The engine of the kernels: a layer's parameters and conditions in, its carry and outputs out."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from zoo.recurrent.cell import Carry
from zoo.recurrent.engine import forward_mode
from zoo.recurrent.engine import fused as _fused
from zoo.recurrent.engine.derivatives import dense, nothing, pushed, without_zeros
from zoo.recurrent.engine.kernels import choice, rows, target
from zoo.recurrent.engine.kernels.gates import CELLS, GATES
from zoo.recurrent.engine.kernels.layout import HELD, RESET, Shape, interleave, last_gates, separate
from zoo.recurrent.engine.products import small_weights, stack_kernels

Tree = Any

# Of every sum, in the order of ``gates``: the kernel of the input, that of h, whose bias it has.
_SUMS = {
    "lstm": (("ii", "hi", "hi"), ("if", "hf", "hf"), ("ig", "hg", "hg"), ("io", "ho", "ho")),
    "gru": ((None, "hn", "hn"), ("ir", "hr", "ir"), ("iz", "hz", "iz"), ("in", None, "in")),
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the engine has to know before it sees an array.

    Attributes:
      fused: how the fused engine would run the layer, of which tangents and second derivatives
        are made; its step and arithmetic hold here too.
      dtype: of products' operands, of gates as they are kept, and of ys.
    """

    fused: _fused.Plan
    dtype: Any

    def shape(self, conditions: bool) -> Shape:
        """What the kernels have to know."""
        cell = self.fused.step.cell
        size, interpret = cell.features // cell.heads, target.target().interpret
        return Shape(CELLS[self.name], cell.heads, size, conditions, self.dtype, interpret)

    @property
    def name(self) -> str:
        """Of the equation."""
        name = choice.equation(self.fused.step.cell)
        assert name is not None
        return name


def kernel(
    plan: Plan, weights: Tree, fixed: Tree, start: Carry, xs: jax.Array, signals: Tree
) -> tuple[Carry, jax.Array]:
    """Runs a layer over time, where ``choice.obstacle`` finds none.

    Args:
      plan: see ``Plan``.
      weights: the parameters by name, kernels of ``plan.dtype``.
      fixed: what is the same for every step, see ``Step``.
      start: the first carry, float32 arrays (*batch, H).
      xs: inputs (T, *batch, D), T >= 1.
      signals: conditions of every step, arrays (T, ...), see ``Step``.

    Returns:
      The last carry, and h after every step (T, *batch, H), of ``plan.dtype``.
    """
    return _run(plan, weights, fixed, start, xs, signals)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _run(plan, weights, fixed, start, xs, signals):
    return _forward(plan, False, weights, fixed, start, xs, signals)[0]


@functools.partial(_run.defjvp, symbolic_zeros=True)
def _run_jvp(plan, primals, tangents):
    out, kept = _saving(plan, *primals)
    return out, _tangents(plan, primals, kept, tangents, out)


# What the rule above runs is differentiated where second derivatives are asked for. The gates that
# it keeps have no tangents: what is made of them has, in ``_pulled``.
@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _saving(plan, weights, fixed, start, xs, signals):
    return _forward(plan, True, weights, fixed, start, xs, signals)


@functools.partial(_saving.defjvp, symbolic_zeros=True)
def _saving_jvp(plan, primals, tangents):
    out, kept = _saving(plan, *primals)
    moved = _tangents(plan, primals, kept, tangents, out)
    return (out, kept), (moved, jax.tree.map(jnp.zeros_like, kept))


def _tangents(plan, arguments, kept, tangents, out):
    return forward_mode.linear(_Derivative(plan), (arguments, kept), without_zeros(tangents), out)


@dataclasses.dataclass(frozen=True)
class _Derivative:
    """The derivative of a run, as a map of tangents; see ``forward_mode.Map``."""

    plan: Plan

    def push(self, residuals, tangents):
        arguments, _ = residuals
        return pushed(functools.partial(_by_fused, self.plan), arguments, tangents)

    def pull(self, residuals, cotangents):
        found = _pulled(self.plan, residuals, cotangents)
        return (*found, nothing(residuals[0][-1]))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _pulled(plan, residuals, cotangents):
    """The cotangents of weights, fixed, start and xs; those of results are None where zero."""
    arguments, kept = residuals
    return _backward(plan, arguments, kept, cotangents)


@functools.partial(_pulled.defjvp, symbolic_zeros=True)
def _pulled_jvp(plan, primals, tangents):
    (arguments, kept), cotangents = primals
    (moving, _), turning = without_zeros(tangents)
    out = _pulled(plan, (arguments, kept), cotangents)

    def pull(arguments, cotangents):
        *differentiable, signals = arguments

        def run(weights, fixed, start, xs):
            return _by_fused(plan, weights, fixed, start, xs, signals)

        values, back = jax.vjp(run, *differentiable)
        return back(dense(cotangents, values))

    return out, pushed(pull, (arguments, cotangents), (moving, turning))


def _by_fused(plan, weights, fixed, start, xs, signals):
    """The same run by the fused engine."""
    stacks = stack_kernels(plan.fused.step.cell, weights)
    small = small_weights(weights)
    final, history = _fused.fused(plan.fused, stacks, small, fixed, start, xs, signals)
    return final, history[-1].astype(plan.dtype)


def _forward(plan, save, weights, fixed, start, xs, signals):
    """The results, and what the backward pass needs beside the arguments."""
    shape = plan.shape(bool(signals))
    flat, first, fresh = _arrays(plan, fixed, start, xs)
    code = _code(plan, xs, signals)
    read, bias, recurrent = _parameters(plan, weights)
    u = _product(plan, flat, last_gates(read, GATES, shape.cell.read), plan.dtype)
    ys, last, saved = rows.forward(shape, save, u, recurrent, bias, code, first, fresh)
    final = tuple(x.reshape(like.shape) for x, like in zip(last[::-1], start, strict=True))
    out = final, _unflat(plan, ys, xs)
    return out, (ys, saved) if save else None


def _backward(plan, arguments, kept, cotangents):
    weights, fixed, start, xs, signals = arguments
    shape, arithmetic = plan.shape(bool(signals)), plan.fused.arithmetic
    (flat, first, fresh), pull = jax.vjp(functools.partial(_arrays, plan), fixed, start, xs)
    code = _code(plan, xs, signals)
    read, _, recurrent = _parameters(plan, weights)
    ys, saved = kept
    d_final, d_ys = dense(cotangents, (start, _unflat(plan, ys, xs)))
    d_last = tuple(d.reshape(x.shape) for d, x in zip(d_final[::-1], first, strict=True))

    d_u, d_first, d_fresh = rows.backward(
        shape, saved, recurrent, code, _in_order(plan, d_ys).reshape(ys.shape), d_last
    )
    # Operands of one kind: the compiler would multiply bfloat16 by float32 without tensor cores.
    d_flat = _product(plan, d_u, read.T, flat.dtype)
    over = ((0, 1), (0, 1)), ((), ())
    d_read = jax.lax.dot_general(
        flat, d_u, over, precision=arithmetic.precision, preferred_element_type=jnp.float32
    )
    d_bias = separate(jnp.sum(d_u, axis=(0, 1), dtype=jnp.float32), GATES)
    d_recurrent = rows.kernel_gradient(shape, ys, first, fresh, code, d_u)
    made = d_read.astype(read.dtype), d_bias, d_recurrent.astype(recurrent.dtype)
    (d_weights,) = jax.vjp(functools.partial(_parameters, plan), weights)[1](made)
    d_fixed, d_start, d_xs = pull((d_flat, d_first, d_fresh))
    return d_weights, d_fixed, d_start, d_xs


def _product(plan, x, kernel, dtype):
    """A product, written in the dtype in which it is read: a wider one takes longer to move."""
    return dataclasses.replace(plan.fused.arithmetic, work_dtype=dtype).multiply(x, kernel)


def _parameters(plan, weights):
    """What inputs are multiplied by (D, GATES * H), biases (GATES, H), and the recurrent kernel."""
    cell, sums = plan.fused.step.cell, _SUMS[plan.name]
    kernels = [weights[name]["kernel"] for name, _, _ in sums if name]
    nothing = jnp.zeros_like(kernels[0])
    read = [weights[name]["kernel"] if name else nothing for name, _, _ in sums]
    plain = jnp.zeros((cell.features,), jnp.float32)
    bias = [weights[name].get("bias", plain) for _, _, name in sums]
    size = cell.features // cell.heads
    recurrent = [weights[name]["kernel"] for _, name, _ in sums if name]
    recurrent = jnp.stack([x.reshape(cell.heads, size, size) for x in recurrent])
    return interleave(jnp.stack(read, axis=-2)), jnp.stack(bias), recurrent


def _arrays(plan, fixed, start, xs):
    """Inputs, and the first carry and that of a reset, h first, with one axis of rows."""
    steps, *batch, inputs = xs.shape
    count = math.prod(batch)
    flat = _in_order(plan, xs).reshape(steps, count, inputs)
    first = tuple(x.reshape(count, x.shape[-1]) for x in start[::-1])
    initial = fixed.get("initial")
    if initial is None:
        return flat, first, tuple(map(jnp.zeros_like, first))
    return flat, first, tuple(x.reshape(count, x.shape[-1]) for x in initial[::-1])


def _code(plan, xs, signals):
    """What happens to every row at every step; a step that is not taken resets nothing."""
    code = jnp.zeros(xs.shape[:-1], jnp.int32)
    if "reset" in signals:
        code = jnp.where(signals["reset"], RESET, code)
    if "mask" in signals:
        code = jnp.where(signals["mask"], code, HELD)
    return _in_order(plan, code).reshape(xs.shape[0], math.prod(xs.shape[1:-1]))


def _in_order(plan, x):
    return jnp.flip(x, axis=0) if plan.fused.reverse else x


def _unflat(plan, ys, xs):
    return _in_order(plan, ys.reshape(*xs.shape[:-1], ys.shape[-1]))
