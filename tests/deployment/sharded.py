"""Moves variables from mesh to mesh by files: `python -m tests.deployment.sharded FOLDER`."""

import sys
from pathlib import Path
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests.convert import reference
from tests.recurrent.layers import assert_close, assert_same

from .layers import XS, build, declared, drawn, gru
from .test_checkpoints import DEEP, restore, save


def split(config: Any, batch: int, model: int) -> Any:
    """Shapes of the variables, and where they are to go: the last axis over ``model`` devices."""
    mesh = jax.make_mesh((batch, model), ("batch", "model"), axis_types=(AxisType.Auto,) * 2)

    def placed(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        spec = PartitionSpec(*[None] * (x.ndim - 1), "model")
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(placed, declared(config))


def shards(variables: Any) -> tuple[int, tuple[int, ...]]:
    """How many different pieces one kernel lies in, and how large they are."""
    pieces = variables["params"]["first"]["forward"]["ii"]["kernel"].addressable_shards
    return len({str(piece.index) for piece in pieces}), pieces[0].data.shape


def main(folder: Path) -> None:
    """Reads onto a mesh of 4 x 2, writes, reads onto one of 2 x 4, and runs the layer there."""
    before = restore(folder / "deep", split(DEEP, 4, 2))
    save(folder / "sharded", before)
    like = split(DEEP, 2, 4)
    after = restore(folder / "sharded", like)
    assert_same(after, drawn(DEEP))
    for x, wanted in zip(jax.tree.leaves(after), jax.tree.leaves(like), strict=True):
        assert x.sharding == wanted.sharding

    variables = restore(folder / "gru", split(gru(), 2, 4))
    mesh = jax.tree.leaves(variables)[0].sharding.mesh
    xs = jax.device_put(XS, NamedSharding(mesh, PartitionSpec(None, "batch")))
    found = jax.jit(build(gru()).apply)(variables, None, xs)
    assert_close(found, reference.run(gru(), drawn(gru()), XS), 1e-5)

    (count, shape), (later, other) = shards(before), shards(after)
    print(f"{count} shards of {shape}, then {later} of {other}")


if __name__ == "__main__":
    jax.config.update("jax_disable_most_optimizations", True)
    main(Path(sys.argv[1]))
