"""This project's layers."""

import numpy as np

from benchmarks.cases import Case, Data
from benchmarks.peers import Competitor, compiled


def competitors(case: Case, data: Data) -> list[Competitor]:
    """Our layer under each implementation, or with and without ``checkpoint_every``."""
    if case.checkpoint_every is None:
        return [_competitor(case, data, implementation=name) for name in ("auto", "scan", "fused")]
    return [
        _competitor(case, data),
        _competitor(case, data, checkpoint_every=case.checkpoint_every),
    ]


def _competitor(case: Case, data: Data, implementation: str = "auto", **options) -> Competitor:
    import registry

    layer = registry.build(
        f"scan_{case.cell}",
        features=case.size.features,
        implementation=implementation,
        dtype=case.dtype,
        param_dtype=case.dtype,
        **options,
    )
    params = data.params
    if not params:
        import jax

        drawn = jax.jit(layer.init)(jax.random.key(0), None, data.xs)
        params = jax.tree.map(np.asarray, drawn["params"])
    variables = {"params": compiled.to_device(params, case)}
    suffix = "".join(f" {name}={value}" for name, value in options.items())
    return compiled.competitor(
        f"ours {implementation}{suffix}",
        "ours",
        case,
        data,
        params=variables,
        apply=lambda variables, xs: layer.apply(variables, None, xs)[1],
        eager=lambda xs: layer.apply(variables, None, xs)[1],
        step=lambda variables, carry, x: layer.apply(variables, carry, x, method="step"),
        carry=layer.initialize_carry(None, data.xs.shape[1:]),
    )
