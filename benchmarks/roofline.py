"""Measures what bounds a recurrent layer on this machine: work that no way to run it is without.

    python -m benchmarks.roofline                        a few minutes
    python -m benchmarks.roofline --quantity=forward     a minute

Part of it waits, step after step: for a gradient, the state times the recurrent kernel and the way
back; for a forward pass, that product and the gates, with inputs at hand and nothing written. The
rest is products of all steps at once: input projections, and for a gradient their way back and
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
    if quantity == "forward":
        return {
            "loop": Part(timed(_steps(case), kernel, start), rows * size.features),
            "at once": Part(timed(lambda xs, read: xs @ read, xs, read), rows * size.inputs),
        }

    def there_and_back(kernel: jax.Array, transposed: jax.Array, state: jax.Array) -> jax.Array:
        def step(state: jax.Array, _) -> tuple[jax.Array, None]:
            return (state @ kernel) @ transposed, None

        return jax.lax.scan(step, state, None, length=size.steps)[0]

    def at_once(read: jax.Array, xs: jax.Array, hs: jax.Array, wide: jax.Array) -> list[jax.Array]:
        return [xs @ read, wide @ read.T, xs.T @ wide, hs.T @ wide]

    loop = timed(there_and_back, kernel / size.features, kernel.T.copy(), start)
    return {
        "loop": Part(loop, 2 * rows * size.features),
        "at once": Part(
            timed(at_once, read, xs, hs, wide), rows * (3 * size.inputs + size.features)
        ),
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
    bound = [sum(pair) for pair in zip(times["loop"], times["at once"], strict=True)]
    others = [times[name] for name in layers if name.startswith("nn.RNN")]
    best = min(others, key=statistics.median)
    rates = [part.operations / statistics.median(times[name]) for name, part in alone.items()]
    mine = times["ours auto"]
    return (
        f"| {case.cell.upper()} | {case.size} | {rates[0]:.0f} | {rates[1]:.0f} "
        f"| {median_ratio(times['loop'], mine):.2f} | {median_ratio(times['at once'], mine):.2f} "
        f"| {median_ratio(best, mine):.2f} | {median_ratio(best, bound):.2f} |"
    )


def main(_) -> None:
    """Prints the table."""
    options = flags.FLAGS
    sizes = SIZES if options.sizes is None else tuple(map(Size.parse, options.sizes))
    print(
        "| Cell | Size | GFLOP/s in the loop | at once | loop / ours | at once / ours "
        "| nn.RNN / ours | nn.RNN / bound |\n|---|---|---|---|---|---|---|---|"
    )
    for size in sizes:
        for cell in GATES:
            print(compare(Case(cell, size), options.quantity, options.rounds), flush=True)


if __name__ == "__main__":
    flags.DEFINE_enum("quantity", "gradient", ["gradient", "forward"], "What to bound.")
    flags.DEFINE_list("sizes", None, "Sizes BxTxDxH; those of the comparison by default.")
    flags.DEFINE_integer("rounds", 9, "Rounds.", lower_bound=1)
    app.run(main)
