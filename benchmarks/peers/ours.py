"""This project's layers."""

import contextlib
import unittest.mock
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.cases import Case, Data
from benchmarks.parity import implementations
from benchmarks.peers import Competitor, compiled


def competitors(case: Case, data: Data, names: Sequence[str] | None = None) -> list[Competitor]:
    """Our layer under each implementation, or with and without ``checkpoint_every``.

    Args:
      case: the problem.
      data: its numbers.
      names: the implementations; all that there are by default.
    """
    if names is not None:
        return [_competitor(case, data, implementation=name) for name in names]
    if case.checkpoint_every is not None:
        return [
            _competitor(case, data),
            _competitor(case, data, checkpoint_every=case.checkpoint_every),
        ]
    names = ["auto", *implementations(f"scan_{case.cell}")]
    if case.platform == "cpu" and "kernel" in names:
        names.remove("kernel")
    ways = [_competitor(case, data, implementation=name) for name in names]
    if case.sweep and "parallel" not in names:
        ways.append(_competitor(case, data, implementation="scan", unroll=8))
        for block in (64, case.size.steps):
            for unroll in (1, 8):
                ways.append(_competitor(case, data, block, implementation="fused", unroll=unroll))
    return ways


def _competitor(
    case: Case,
    data: Data,
    block: int | None = None,
    *,
    implementation: str = "auto",
    **options,
) -> Competitor:
    """Our layer under options; ``block`` is how many steps the fused engine takes at once."""
    import registry

    layer = registry.build(config(case), implementation=implementation, **options)
    variables = {"params": compiled.to_device(data.params or _drawn_by(layer, data), case)}
    suffix = "".join(f" {name}={value}" for name, value in options.items())
    if block is not None:
        suffix += f" block={block}"

    def apply(variables, xs):
        with blocks_of(block):
            return layer.apply(variables, None, xs)[1]

    return compiled.competitor(
        f"ours {implementation}{suffix}",
        "ours",
        case,
        data,
        params=variables,
        apply=apply,
        eager=lambda xs: layer.apply(variables, None, xs)[1],
        step=lambda variables, carry, x: layer.apply(variables, carry, x, method="step"),
        carry=layer.initialize_carry(None, data.xs.shape[1:]),
    )


def config(case: Case) -> dict[str, Any]:
    """Our layer for a case, as ``registry.build`` takes it."""
    heads = {"heads": case.heads} if case.heads > 1 else {}
    size = {"features": case.size.features, "dtype": case.array_dtype}
    return {"name": f"scan_{case.cell}", **size, **heads}


def drawn(case: Case, data: Data) -> dict[str, Any]:
    """The parameters that every one of our competitors has for a cell that is ours alone."""
    import registry

    return _drawn_by(registry.build(f"scan_{case.cell}", features=case.size.features), data)


def _drawn_by(layer: Any, data: Data) -> dict[str, Any]:
    """Drawn in float32, because bfloat16 has no orthogonal matrices; cast to what is measured."""
    import jax

    variables = jax.jit(layer.init)(jax.random.key(0), None, data.xs)
    return jax.tree.map(np.asarray, variables["params"])


def blocks_of(steps: int | None) -> contextlib.AbstractContextManager:
    """Makes the fused engine take so many steps at once, which users have no option for."""
    if steps is None:
        return contextlib.nullcontext()
    from zoo.recurrent.engine import memory

    def gated(step, xs, checkpoint_every, unroll):
        return memory.Cut(steps, "products", True, unroll)

    return unittest.mock.patch.object(memory, "gated", gated)
