"""memorax' ``Memoroid`` over its minGRU, LRU and S5, which run an associative scan."""

from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.cases import Case, Data
from benchmarks.peers import Competitor, compiled, ours


def competitors(case: Case, data: Data) -> list[Competitor]:
    """One competitor; none for a cell that memorax does not have.

    Its minGRU has the positive candidate and no biases, which is another function of the same cost.

    Raises:
      ImportError: memorax, or something that it needs, is not installed.
      ValueError: inputs are not as wide as outputs, which its state spaces take for granted.
    """
    from memorax.networks import sequence_models as theirs

    size = case.size
    makers = {
        "min_gru": lambda: (theirs.MinGRUCell(size.features), _min_gru),
        "lru": lambda: (theirs.LRUCell(size.features, size.features), lru_parameters),
        "s5": lambda: (theirs.S5Cell(size.features, size.features), s5_parameters),
    }
    if case.cell not in makers:
        return []
    if case.cell != "min_gru" and size.inputs != size.features:
        raise ValueError(f"expected D to be H, as memorax' state spaces have it, got {size}")
    cell, given = makers[case.cell]()
    memoroid = theirs.Memoroid(cell)
    params = compiled.to_device(given(ours.drawn(case, data)), case)

    def run(params: dict, xs: jax.Array, carry: tuple | None) -> tuple[tuple, jax.Array]:
        no_resets = jnp.zeros(xs.shape[:2], xs.dtype)
        return memoroid.apply({"params": {"cell": params}}, xs, no_resets, carry)

    def step(params: dict, carry: tuple, x: jax.Array) -> tuple[tuple, jax.Array]:
        carry, ys = run(params, x[:, None], carry)
        return carry, ys[:, 0]

    same = case.cell != "min_gru"
    start = cell.initialize_carry(jax.random.key(0), (size.batch, size.inputs))
    return [
        compiled.competitor(
            "memorax" if same else "memorax (another candidate)",
            "memorax",
            case,
            data,
            params=params,
            apply=lambda params, xs: run(params, xs, None)[1],
            eager=lambda xs: run(params, xs, None)[1],
            step=step,
            carry=start,
            batch_major=True,
            same=same,
        )
    ]


def _min_gru(p: dict) -> dict:
    return {theirs: {"kernel": p[own]["kernel"]} for theirs, own in (("z", "iz"), ("h", "in"))}


_PARTS = (("real", "re"), ("imag", "im"))


def lru_parameters(p: Any) -> dict[str, Any]:
    """The parameters of memorax' LRU that does what ours does with the given ones."""
    kernels = {
        f"{side}_{theirs}": p[f"{side}_{own}"]["kernel"].T
        for side in "BC"
        for theirs, own in _PARTS
    }
    return kernels | {name: p[name] for name in ("nu_log", "theta_log", "gamma_log", "D")}


def s5_parameters(p: Any) -> dict[str, Any]:
    """The parameters of memorax' S5 that does what ours does with the given ones."""
    b, c = (
        jnp.stack([p[f"{side}_{own}"]["kernel"].T for _, own in _PARTS], axis=-1) for side in "BC"
    )
    # It reads Re(C s), where ours reads a number and its conjugate.
    return {
        "lambda_real": p["Lambda_re"],
        "lambda_imag": p["Lambda_im"],
        "b": b,
        "c": 2 * c,
        "d": p["D"],
        "log_step": p["log_step"][:, None],
    }
