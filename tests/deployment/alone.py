"""Runs exported layers where neither this project nor Flax is: `python -I alone.py FOLDER`.

The folder holds `cases.json`, and for each case the exported function and npz files with the leaves
of its arguments, one file per call; the leaves of the results are written beside them.
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

ABSENT = ("zoo", "registry", "flax", "tests")


class Absent:
    """An import hook for which some packages are not installed."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"{name} is not installed here")


def call(exported, variables, *args):
    """Calls the function once."""
    return exported.call(variables, *args)


def gradient(exported, variables, xs, *args):
    """Differentiates a loss by the variables and the inputs."""

    def loss(variables, xs):
        results = jax.tree.leaves(exported.call(variables, xs, *args))
        return sum(jnp.sum(jnp.sin(x)) for x in results)

    return jax.grad(loss, (0, 1))(variables, xs)


def stream(exported, variables, carry, xs):
    """Takes one step after the other."""
    ys = []
    for x in xs:
        carry, y = exported.call(variables, carry, x)
        ys.append(y)
    return carry, jnp.stack(ys)


def main(folder: Path) -> None:
    """Runs every case."""
    for case in json.loads((folder / "cases.json").read_text()):
        exported = export.deserialize((folder / f"{case['name']}.jax").read_bytes())
        run = {"call": call, "gradient": gradient, "stream": stream}[case["use"]]
        for path in (folder / f"{case['name']}-{number}" for number in range(case["calls"])):
            with np.load(f"{path}.npz", allow_pickle=False) as file:
                leaves = [file[f"arr_{index}"] for index in range(len(file.files))]
            args, _ = jax.tree.unflatten(exported.in_tree, leaves)
            results = jax.tree.leaves(run(exported, *args))
            np.savez(f"{path}-result.npz", *map(np.asarray, results))


if __name__ == "__main__":
    sys.meta_path.insert(0, Absent())
    jax.config.update("jax_disable_most_optimizations", True)
    main(Path(sys.argv[1]))
    print(sorted({name.split(".")[0] for name in sys.modules} & set(ABSENT)))
