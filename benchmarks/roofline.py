"""Measures what bounds a recurrent layer's gradient: its matrix products, and nothing else.

    python -m benchmarks.roofline                        a few minutes

No way to run a GRU or LSTM over time can do without two products per step that wait for one
another (the state times the recurrent kernel, and the way back) and four that do not (input
projection, its way back, and both kernel gradients). Each is timed alone, in the form that the
engines use, beside ``nn.RNN`` and our layer, in turns. Their sum is a bound that XLA's products
set; what nn.RNN takes, divided by it, is the most that anybody could gain with them.
"""

import statistics
from collections.abc import Callable

from absl import app, flags

from benchmarks.cases import GATES, Case, Data, Size, draw
from benchmarks.peers import linen, ours
from benchmarks.recurrent import SIZES
from benchmarks.timing import Timed, interleave, median_ratio, repeat


def products(case: Case, data: Data) -> tuple[dict[str, Timed], dict[str, float]]:
    """The products of a gradient, alone: those in the loops, and those of all steps at once.

    Args:
      case: cell and size.
      data: the numbers, see ``draw``.

    Returns:
      What to time, and the billions of operations of each, by name.
    """
    import jax
    import jax.numpy as jnp

    gates = GATES[case.cell]
    size, width = case.size, len(gates) * case.size.features
    kernel = jnp.asarray(data.joined("h", gates))
    read = jnp.asarray(data.joined("i", gates))
    xs, hs = jnp.asarray(data.xs), jnp.asarray(data.cotangent)
    wide = jnp.tile(hs, len(gates))

    def loops(kernel: jax.Array, transposed: jax.Array, state: jax.Array) -> jax.Array:
        def there_and_back(state: jax.Array, _) -> tuple[jax.Array, None]:
            return (state @ kernel) @ transposed, None

        return jax.lax.scan(there_and_back, state, None, length=size.steps)[0]

    def at_once(read: jax.Array, xs: jax.Array, hs: jax.Array, wide: jax.Array) -> list[jax.Array]:
        def flat(x: jax.Array) -> jax.Array:
            return x.reshape(-1, x.shape[-1])

        return [
            flat(xs) @ read,
            flat(wide) @ read.T,
            flat(xs).T @ flat(wide),
            flat(hs).T @ flat(wide),
        ]

    def timed(function: Callable, *args: jax.Array) -> Timed:
        run = jax.jit(function).lower(*args).compile()
        return repeat(lambda: jax.block_until_ready(run(*args)))

    rows = 2e-9 * size.batch * size.steps * width
    return (
        {
            "loops": timed(loops, kernel / size.features, kernel.T.copy(), hs[0]),
            "at once": timed(at_once, read, xs, hs, wide),
        },
        {"loops": 2 * rows * size.features, "at once": rows * (3 * size.inputs + size.features)},
    )


def compare(case: Case, rounds: int) -> str:
    """Measures one case and returns its row of the table."""
    data = draw(case)
    alone, operations = products(case, data)
    everybody = (*linen.competitors(case, data), ours.competitors(case, data)[0])
    layers = {one.name: one.gradient for one in everybody}
    times, failures = interleave({**alone, **layers}, rounds)
    if failures:
        raise RuntimeError(f"{case}: {failures}")
    bound = [sum(pair) for pair in zip(times["loops"], times["at once"], strict=True)]
    others = [times[name] for name in layers if name.startswith("nn.RNN")]
    best = min(others, key=statistics.median)
    rates = [operations[name] / statistics.median(times[name]) for name in alone]
    mine = times["ours auto"]
    return (
        f"| {case.cell.upper()} | {case.size} | {rates[0]:.0f} | {rates[1]:.0f} "
        f"| {median_ratio(times['loops'], mine):.2f} | {median_ratio(times['at once'], mine):.2f} "
        f"| {median_ratio(best, mine):.2f} | {median_ratio(best, bound):.2f} |"
    )


def main(_) -> None:
    """Prints the table."""
    options = flags.FLAGS
    sizes = SIZES if options.sizes is None else tuple(map(Size.parse, options.sizes))
    print(
        "| Cell | Size | GFLOP/s in loops | at once | loops / ours | at once / ours "
        "| nn.RNN / ours | nn.RNN / products |\n|---|---|---|---|---|---|---|---|"
    )
    for size in sizes:
        for cell in GATES:
            print(compare(Case(cell, size), options.rounds), flush=True)


if __name__ == "__main__":
    flags.DEFINE_list("sizes", None, "Sizes BxTxDxH; those of the comparison by default.")
    flags.DEFINE_integer("rounds", 9, "Rounds.", lower_bound=1)
    app.run(main)
