"""Measures what bounds a recurrent layer on this machine: work that no way to run it is without.

    python -m benchmarks.roofline                        a few minutes
    python -m benchmarks.roofline --quantity=forward     a minute
    python -m benchmarks.roofline --quantity=compile     a few minutes

Part of it waits, step after step: the state times the recurrent kernel and the gates, from inputs
at hand to outputs that are written; and for a gradient the way back, of which only this is counted:
a number by which each gate's cotangent is multiplied is read, the product is made, and the gates'
cotangents are written for the kernel gradients. The rest is products of all steps at once: input
projections, and for a gradient their way back and both kernel gradients. Each part is timed alone,
in the form that the engine uses, block by block, beside ``nn.RNN`` and our layer, in turns. What
nn.RNN takes, divided by their sum, is the most that anybody could gain with XLA's products and
gates. For compilation, the parts of a gradient are one program, which passes nothing from one to
the next.
"""

import dataclasses
import statistics
from collections.abc import Callable, Mapping

from absl import app, flags

from benchmarks.cases import GATES, Case, Data, Size, draw
from benchmarks.peers import compiled, linen, ours
from benchmarks.recurrent import SIZES
from benchmarks.timing import Timed, interleave, median_ratio, repeat


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the work.

    Attributes:
      function: what is compiled.
      args: what it is called with.
      operations: the floating-point operations of its products, in billions.
    """

    function: Callable
    args: tuple
    operations: float

    def timed(self) -> Timed:
        """Runs it, compiled."""
        import jax

        run = jax.jit(self.function).lower(*self.args).compile()
        return repeat(lambda: jax.block_until_ready(run(*self.args)))


def parts(case: Case, data: Data, quantity: str) -> dict[str, Part]:
    """What is in loops, and what can be done for all steps at once.

    Args:
      case: cell and size.
      data: the numbers, see ``draw``.
      quantity: "forward", or another of a gradient.
    """
    import jax
    import jax.numpy as jnp

    from zoo.recurrent.engine.blocks import Blocks, block_length
    from zoo.recurrent.engine.products import Arithmetic, transpose_stack

    gates, size = GATES[case.cell], case.size
    arithmetic = Arithmetic(None, jnp.dtype(jnp.float32))
    recur, read = (
        jnp.asarray(data.joined(side, gates)).reshape((-1, len(gates), size.features))
        for side in "hi"
    )
    xs, hs = jnp.asarray(data.xs), jnp.asarray(data.cotangent)
    wide = jnp.tile(hs[:, :, None], (1, 1, len(gates), 1))

    rows = 2e-9 * size.batch * size.steps * len(gates) * size.features
    inputs = tuple(jnp.array(hs) for _ in gates)
    loop = Part(_steps(case), (recur, hs[0], inputs), rows * size.features)

    blocks = Blocks(size.steps, block_length(size.steps, max(16, 2**21 // wide[0].nbytes)))

    def by_block(make: Callable) -> Callable:
        """Sums what is made of every block, and keeps nothing else of it."""

        def visit(sums: list, block: tuple) -> tuple[list, None]:
            return jax.tree.map(jnp.add, sums, make(*block)), None

        def run(*arrays: jax.Array) -> list:
            cut = blocks.cut(arrays)
            first = next(part for part in cut if part is not None)
            zeros = jax.eval_shape(make, *(x[0] if cut[0] is not None else x for x in first))
            sums = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), zeros)
            return blocks.scan(visit, sums, cut)[0]

        return run

    def project(xs: jax.Array) -> list[jax.Array]:
        return [arithmetic.multiply(xs, read)[-1, -1]]

    if quantity == "forward":
        return {"loop": loop, "at once": Part(by_block(project), (xs,), rows * size.inputs)}

    def way_back(transposed: jax.Array, factors: jax.Array, d_hist: jax.Array) -> list:
        def step(d: jax.Array, at: tuple) -> tuple[jax.Array, jax.Array]:
            factor, d_out = at
            sums = factor * d[:, None]
            return arithmetic.multiply(sums, transposed, axes=2) + d_out, sums

        return jax.lax.scan(step, d_hist[0], (factors, d_hist), reverse=True)

    def products(xs: jax.Array, hs: jax.Array, wide: jax.Array) -> list[jax.Array]:
        return [
            *project(xs),
            arithmetic.multiply(wide, transpose_stack(read), axes=2)[-1, -1],
            arithmetic.kernel_gradient(xs, wide, read),
            arithmetic.kernel_gradient(hs, wide, recur),
        ]

    transposed = transpose_stack(recur) / size.features
    return {
        "loop": loop,
        "way back": Part(way_back, (transposed, wide, hs), rows * size.features),
        "at once": Part(
            by_block(products), (xs, hs, wide), rows * (3 * size.inputs + size.features)
        ),
    }


def _compiling(found: Mapping[str, Part]) -> Timed:
    """Compiles all parts as one program."""

    def together(args: dict[str, tuple]) -> dict:
        return {name: part.function(*args[name]) for name, part in found.items()}

    return compiled.compiling(together, {name: part.args for name, part in found.items()})


def _steps(case: Case) -> Callable:
    """All steps of a cell from the recurrent kernels, a first state, and inputs."""
    import jax
    import jax.numpy as jnp

    from zoo.recurrent.engine.products import Arithmetic, Multiplier
    from zoo.recurrent.layers.gru import GRU
    from zoo.recurrent.layers.lstm import LSTM

    cell = {"gru": GRU, "lstm": LSTM}[case.cell](case.size.features, use_bias=False)
    arithmetic = Arithmetic(None, jnp.dtype(jnp.float32))

    def run(stack: jax.Array, start: jax.Array, inputs: tuple) -> tuple:
        (group,) = cell.products
        weights = {name: {} for name in cell.kernels}

        def step(carry: tuple, u: dict) -> tuple[tuple, jax.Array]:
            carry = cell.step(Multiplier(arithmetic, {group: stack}), carry, u, weights)
            return carry, carry[-1]

        carry = (start,) * len(cell.carry_names)
        return jax.lax.scan(step, carry, dict(zip(cell.inputs, inputs, strict=True)))

    return run


def compare(case: Case, quantity: str, rounds: int) -> str:
    """Measures one case and returns its row of the table."""
    data = draw(case)
    found = parts(case, data, quantity)
    everybody = (*linen.competitors(case, data), ours.competitors(case, data)[0])
    layers = {one.name: getattr(one, quantity) for one in everybody}
    if quantity == "compile":
        alone, seconds = {"together": _compiling(found)}, 0.0
    else:
        alone, seconds = {name: part.timed() for name, part in found.items()}, 0.02
    times, failures = interleave(alone | layers, rounds, seconds=seconds)
    if failures:
        raise RuntimeError(f"{case}: {failures}")
    bound = [sum(turn) for turn in zip(*(times[name] for name in alone), strict=True)]
    others = [times[name] for name in layers if name.startswith("nn.RNN")]
    best, mine = min(others, key=statistics.median), times["ours auto"]
    columns = [case.cell.upper(), str(case.size)]
    if quantity != "compile":
        rates = (p.operations / statistics.median(times[name]) for name, p in found.items())
        columns.append(", ".join(f"{rate:.0f}" for rate in rates))
    columns.append(", ".join(f"{median_ratio(times[name], mine):.2f}" for name in alone))
    columns += [f"{median_ratio(best, other):.2f}" for other in (mine, bound)]
    return f"| {' | '.join(columns)} |"


def main(_) -> None:
    """Prints the table."""
    options = flags.FLAGS
    sizes = SIZES if options.sizes is None else tuple(map(Size.parse, options.sizes))
    rates = [] if options.quantity == "compile" else ["GFLOP/s"]
    head = ["Cell", "Size", *rates, "parts / ours", "nn.RNN / ours", "nn.RNN / bound"]
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for size in sizes:
        for cell in GATES:
            print(compare(Case(cell, size), options.quantity, options.rounds), flush=True)


if __name__ == "__main__":
    flags.DEFINE_enum("quantity", "gradient", ["gradient", "forward", "compile"], "What to bound.")
    flags.DEFINE_list("sizes", None, "Sizes BxTxDxH; those of the comparison by default.")
    flags.DEFINE_integer("rounds", 9, "Rounds.", lower_bound=1)
    app.run(main)
