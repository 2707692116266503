"""Measures what bounds a recurrent layer on this machine: work that no way to run it is without.

    python -m benchmarks.roofline                        a few minutes
    python -m benchmarks.roofline --quantity=forward     a minute

Part of it waits, step after step: the state times the recurrent kernel and the gates, with inputs
at hand and nothing written; and for a gradient the way back, of which only the product is counted.
The rest is products of all steps at once: input projections, and for a gradient their way back and
both kernel gradients. Each part is timed alone, in the form that the engines use, beside ``nn.RNN``
and our layer, in turns. What nn.RNN takes, divided by their sum, is the most that anybody could
gain with XLA's products and gates.
"""

import dataclasses
import statistics
from collections.abc import Callable

from absl import app, flags

from benchmarks.cases import GATES, Case, Data, Size, draw
from benchmarks.peers import linen, ours
from benchmarks.recurrent import SIZES
from benchmarks.timing import Timed, interleave, median_ratio, repeat


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the work.

    Attributes:
      timed: how it is run and timed.
      operations: the floating-point operations of its products, in billions.
    """

    timed: Timed
    operations: float


def parts(case: Case, data: Data, quantity: str) -> dict[str, Part]:
    """What is in loops, and what can be done for all steps at once.

    Args:
      case: cell and size.
      data: the numbers, see ``draw``.
      quantity: "forward" or "gradient".
    """
    import jax
    import jax.numpy as jnp

    gates, size = GATES[case.cell], case.size
    kernel, read = (jnp.asarray(data.joined(side, gates)) for side in "hi")
    xs, hs = (jnp.asarray(x).reshape(-1, x.shape[-1]) for x in (data.xs, data.cotangent))
    wide = jnp.tile(hs, len(gates))

    def timed(function: Callable, *args: jax.Array) -> Timed:
        run = jax.jit(function).lower(*args).compile()
        return repeat(lambda: jax.block_until_ready(run(*args)))

    rows = 2e-9 * size.batch * size.steps * len(gates) * size.features
    start = jnp.asarray(data.cotangent[0])
    loop = Part(timed(_steps(case), kernel, start), rows * size.features)
    if quantity == "forward":
        at_once = timed(lambda xs, read: xs @ read, xs, read)
        return {"loop": loop, "at once": Part(at_once, rows * size.inputs)}

    def way_back(transposed: jax.Array, wide: jax.Array) -> jax.Array:
        def step(d: jax.Array, _) -> tuple[jax.Array, None]:
            return jnp.tile(d @ transposed, len(gates)), None

        return jax.lax.scan(step, wide, None, length=size.steps)[0]

    def products(read: jax.Array, xs: jax.Array, hs: jax.Array, wide: jax.Array) -> list[jax.Array]:
        return [xs @ read, wide @ read.T, xs.T @ wide, hs.T @ wide]

    back = timed(way_back, kernel.T / size.features, wide[: size.batch])
    at_once = timed(products, read, xs, hs, wide)
    return {
        "loop": loop,
        "way back": Part(back, rows * size.features),
        "at once": Part(at_once, rows * (3 * size.inputs + size.features)),
    }


def _steps(case: Case) -> Callable:
    """All steps of a cell from the joined recurrent kernel and a first state; inputs are zero."""
    import jax
    import jax.numpy as jnp

    from zoo.recurrent.cells import GRU, LSTM
    from zoo.recurrent.engine.products import Arithmetic, Multiplier

    cell = {"gru": GRU, "lstm": LSTM}[case.cell](case.size.features, use_bias=False)
    arithmetic = Arithmetic(None, jnp.dtype(jnp.float32))

    def run(kernel: jax.Array, start: jax.Array) -> jax.Array:
        (group,) = cell.asks
        stack = kernel.reshape((kernel.shape[0], len(group), -1))
        inputs = dict.fromkeys(cell.inputs, jnp.zeros_like(start))
        weights = {name: {} for name in cell.kernels}

        def step(carry: tuple, _) -> tuple[tuple, None]:
            return cell.step(Multiplier(arithmetic, {group: stack}), carry, inputs, weights), None

        carry = (start,) * len(cell.carry_names)
        return jax.lax.scan(step, carry, None, length=case.size.steps)[0]

    return run


def compare(case: Case, quantity: str, rounds: int) -> str:
    """Measures one case and returns its row of the table."""
    data = draw(case)
    alone = parts(case, data, quantity)
    everybody = (*linen.competitors(case, data), ours.competitors(case, data)[0])
    layers = {one.name: getattr(one, quantity) for one in everybody}
    times, failures = interleave({**{n: p.timed for n, p in alone.items()}, **layers}, rounds)
    if failures:
        raise RuntimeError(f"{case}: {failures}")
    bound = [sum(turn) for turn in zip(*(times[name] for name in alone), strict=True)]
    others = [times[name] for name in layers if name.startswith("nn.RNN")]
    best = min(others, key=statistics.median)
    rates = (f"{p.operations / statistics.median(times[n]):.0f}" for n, p in alone.items())
    mine = times["ours auto"]
    shares = (f"{median_ratio(times[name], mine):.2f}" for name in alone)
    return (
        f"| {case.cell.upper()} | {case.size} | {', '.join(rates)} | {', '.join(shares)} "
        f"| {median_ratio(best, mine):.2f} | {median_ratio(best, bound):.2f} |"
    )


def main(_) -> None:
    """Prints the table."""
    options = flags.FLAGS
    sizes = SIZES if options.sizes is None else tuple(map(Size.parse, options.sizes))
    print(
        "| Cell | Size | GFLOP/s | parts / ours | nn.RNN / ours | nn.RNN / bound |\n"
        "|---|---|---|---|---|---|"
    )
    for size in sizes:
        for cell in GATES:
            print(compare(Case(cell, size), options.quantity, options.rounds), flush=True)


if __name__ == "__main__":
    flags.DEFINE_enum("quantity", "gradient", ["gradient", "forward"], "What to bound.")
    flags.DEFINE_list("sizes", None, "Sizes BxTxDxH; those of the comparison by default.")
    flags.DEFINE_integer("rounds", 9, "Rounds.", lower_bound=1)
    app.run(main)
