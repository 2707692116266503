"""Trains a linear layer whose time axis is shared out over all devices of several processes.

Arguments: an address, how many processes, and which of them this is.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import registry

T, B, D, H = 32, 4, 5, 6


def main(address: str, processes: int, process: int) -> None:
    """Prints the losses of three steps."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, processes, process)
    mesh = jax.make_mesh((jax.device_count(),), ("time",))
    draw = np.random.default_rng(0)
    data = draw.normal(size=(T, B, D)).astype(np.float32)
    starts = draw.random((T, B)) < 0.1

    def mine(x: np.ndarray) -> jax.Array:
        part = np.split(x, processes)[process]
        return jax.make_array_from_process_local_data(NamedSharding(mesh, P("time")), part)

    layer = registry.build("scan_lru", features=H)

    def loss(variables, xs, resets):
        (re, im), ys = layer.apply(variables, None, xs, resets=resets)
        return jnp.mean((ys - 1) ** 2) + jnp.mean(re * im)

    @jax.jit
    def train(variables, xs, resets):
        value, grads = jax.value_and_grad(loss)(variables, xs, resets)
        return value, jax.tree.map(lambda w, g: w - 0.1 * g, variables, grads)

    with jax.set_mesh(mesh):
        xs, resets = mine(data), mine(starts)
        variables = jax.jit(layer.init, static_argnums=1)(jax.random.key(0), None, xs)
        for _ in range(3):
            value, variables = train(variables, xs, resets)
            print(f"{float(value):.6f}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
