"""The plain engine: ``nn.scan`` of a one-step cell, the reference for every other."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax

from zoo.recurrent.cell import Carry, LinearCell
from zoo.recurrent.convention import TIME
from zoo.recurrent.engine.blocks import Blocks, at_most
from zoo.recurrent.engine.products import Arithmetic, Multiplier, Unstacked, stack_kernels
from zoo.recurrent.engine.step import Step

Tree = Any


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the plain engine has to know before it sees an array.

    Attributes:
      step: the layer's step.
      arithmetic: how products are made.
      reverse: whether time runs backwards.
      checkpoint_every: steps between the carries that are kept for the backward pass, or None.
      unroll: steps per iteration of the loop.
    """

    step: Step
    arithmetic: Arithmetic
    reverse: bool
    checkpoint_every: int | None = None
    unroll: int = 1


class _OneStep(nn.Module):
    """A cell that takes one step: projects its input, then advances the carry."""

    plan: Plan

    @nn.compact
    def __call__(self, carry: Carry, at: tuple[jax.Array, Tree]) -> tuple[Carry, Tree]:
        x, signals = at
        weights = self.variables["params"]["weights"]
        fixed = self.variables["params"]["fixed"]
        step, arithmetic = self.plan.step, self.plan.arithmetic
        if isinstance(step.cell, LinearCell):
            product = Unstacked(arithmetic, weights)
        else:
            product = Multiplier(arithmetic, stack_kernels(step.cell, weights))
        u = step.cell.project(product, x, weights)
        carry = step(product, carry, u, signals, fixed, weights)
        return carry, (carry, step.cell.output(product, carry, u, weights))


def scan(
    plan: Plan, weights: Tree, fixed: Tree, start: Carry, xs: jax.Array, signals: Tree
) -> tuple[Carry, Carry, jax.Array | None]:
    """Runs a layer over time by ``nn.scan``; arguments as those of the fused engine.

    Args:
      plan: see ``Plan``.
      weights: the parameters by name, kernels included.
      fixed: what is the same for every step, see ``Step``.
      start: the first carry, arrays (*batch, width).
      xs: inputs (T, *batch, D), T >= 1.
      signals: conditions of every step, arrays (T, ...), see ``Step``.

    Returns:
      The last carry; the carry after every step, arrays (T, *batch, width); and what every step
      puts out, or None where that is the last array of the carry.
    """
    variables = {"params": {"weights": weights, "fixed": fixed}}

    def run(carry: Carry, part: Tree) -> tuple[Carry, Tree]:
        lifted = TIME.lift(_OneStep, reverse=plan.reverse, unroll=plan.unroll)
        return lifted(plan, parent=None).apply(variables, carry, part)

    if plan.checkpoint_every is None:
        final, out = run(start, (xs, signals))
        return final, *out
    length = at_most(xs.shape[0], plan.checkpoint_every)
    blocks = Blocks(xs.shape[0], length, plan.reverse)
    final, out = blocks.scan(jax.checkpoint(run), start, blocks.cut((xs, signals)))
    return final, *blocks.join(out)
