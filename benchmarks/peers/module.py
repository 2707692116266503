"""This project's layers in their NNX form: what it costs beside the Linen form."""

from benchmarks.cases import Case, Data
from benchmarks.peers import Competitor, compiled, ours


def competitors(case: Case, data: Data) -> list[Competitor]:
    """The module, called as it is, and compiled as ``jax.jit`` of what ``nnx.split`` returns."""
    from flax import nnx

    from zoo.recurrent.nnx import from_linen

    module = from_linen(ours.config(case), {"params": compiled.to_device(data.params, case)})
    graphdef, state = nnx.split(module)
    return [
        compiled.competitor(
            "ours in NNX",
            "module",
            case,
            data,
            params=state,
            apply=lambda state, xs: nnx.merge(graphdef, state)(None, xs)[1],
            eager=lambda xs: module(None, xs)[1],
            step=lambda state, carry, x: nnx.merge(graphdef, state).step(carry, x),
            carry=module.initialize_carry(None, data.xs.shape[1:]),
        )
    ]
