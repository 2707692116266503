"""This project's layers."""

import contextlib
import unittest.mock

import numpy as np

from benchmarks.cases import Case, Data
from benchmarks.peers import Competitor, compiled


def competitors(case: Case, data: Data) -> list[Competitor]:
    """Our layer under each implementation, or with and without ``checkpoint_every``."""
    if case.checkpoint_every is not None:
        return [
            _competitor(case, data),
            _competitor(case, data, checkpoint_every=case.checkpoint_every),
        ]
    names = ["auto", "scan", "fused", *(["parallel"] if _is_linear(case.cell) else [])]
    ways = [_competitor(case, data, implementation=name) for name in names]
    if case.platform == "gpu" and not _is_linear(case.cell):
        ways.append(_competitor(case, data, implementation="scan", unroll=8))
        for block in (64, case.size.steps):
            for unroll in (1, 8):
                ways.append(_competitor(case, data, block, implementation="fused", unroll=unroll))
    return ways


def _is_linear(cell: str) -> bool:
    import registry

    try:
        registry.build(f"scan_{cell}", features=1, implementation="parallel")
    except ValueError:
        return False
    return True


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

    layer = registry.build(
        f"scan_{case.cell}",
        features=case.size.features,
        implementation=implementation,
        dtype=case.array_dtype,
        param_dtype=case.array_dtype,
        **options,
    )
    params = data.params
    if not params:
        import jax

        drawn = jax.jit(layer.init)(jax.random.key(0), None, data.xs)
        params = jax.tree.map(np.asarray, drawn["params"])
    variables = {"params": compiled.to_device(params, case)}
    suffix = "".join(f" {name}={value}" for name, value in options.items())
    if block is not None:
        suffix += f" block={block}"

    def apply(variables, xs):
        with _blocks_of(block):
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


def _blocks_of(steps: int | None) -> contextlib.AbstractContextManager:
    """Makes the fused engine take so many steps at once, which users have no option for."""
    if steps is None:
        return contextlib.nullcontext()
    from zoo.recurrent.engine import Engine

    return unittest.mock.patch.object(Engine, "_memory", lambda *_: ("products", steps))
