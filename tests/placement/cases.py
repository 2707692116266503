"""Layers on meshes of eight devices, and what became of them; a program of its own.

JAX learns how many devices there are when it starts, so tests run this beside themselves.
"""

import dataclasses
import functools
import json
import sys
import traceback
from collections.abc import Callable
from typing import Any

DEVICES = 8
T, B, D, H, DEPTH = 12, 16, 8, 8, 3

LAYERS = {
    "gru": {"name": "scan_gru", "features": H},
    "lstm": {"name": "scan_lstm", "features": H},
    "simplified": {"name": "scan_simplified_gru", "features": H},
    "layer_norm": {"name": "scan_layer_norm_lstm", "features": H},
    "heads": {"name": "scan_slstm", "features": H, "heads": 2},
    "diagonal": {"name": "scan_indrnn", "features": H},
    "intervals": {"name": "scan_cfc", "features": H, "backbone_features": H},
    "linear": {"name": "scan_min_gru", "features": H},
    "complex": {"name": "scan_lru", "features": H},
    "bidirectional": {"name": "bidirectional", "layer": {"name": "scan_gru", "features": H}},
    "stack": {"name": "stack", "num_layers": DEPTH, "layer": {"name": "scan_gru", "features": H}},
}
MESHES = {
    "auto": {"data": 8},
    "explicit": {"data": 8},
    "shard_map": {"data": 8},
    "auto, tensor": {"data": 1, "model": 8},
    "explicit, tensor": {"data": 1, "model": 8},
    "auto, both": {"data": 4, "model": 2},
    "explicit, both": {"data": 4, "model": 2},
    "auto, rows": {"data": 8},
    "explicit, rows": {"data": 8},
}
KERNELS = {"tensor": (None, "model"), "both": (None, "model"), "rows": ("data", None)}


@dataclasses.dataclass(frozen=True)
class Case:
    """A layer on a mesh.

    Attributes:
      layer: one of ``LAYERS``.
      implementation: "scan" or "fused".
      mesh: one of ``MESHES``; after the comma, how kernels are sharded.
      given: "nothing", "conditions", or "dropouts".
      steps: T.
      every: ``checkpoint_every``; blocks of the fused engine are as long.
      form: "linen" or "nnx".
    """

    layer: str
    implementation: str
    mesh: str
    given: str = "nothing"
    steps: int = T
    every: int | None = 4
    form: str = "linen"

    def __str__(self) -> str:
        words = self.layer, self.implementation, self.mesh, self.given, self.steps, self.form
        return "-".join(map(str, words))


def build(case: Case, **options: Any) -> Any:
    """The layer of a case, with options for its innermost layers."""
    import registry

    options |= {"implementation": case.implementation, "checkpoint_every": case.every}
    if case.given == "dropouts":
        names = ("dropout_rate", "recurrent_dropout_rate", "zoneout_rate")
        options |= dict.fromkeys(names, 0.3)
    config = LAYERS[case.layer]
    if "layer" in config:
        return registry.build({**config, "layer": {**config["layer"], **options}})
    return registry.build({**config, **options})


def step_of(case: Case, layer: Any, total: Callable[[Any], Any] = lambda x: x) -> Any:
    """A gradient step's heart: outputs, and gradients of parameters and inputs."""
    import jax
    import jax.numpy as jnp

    def loss(variables: Any, xs: Any, given: dict[str, Any]) -> Any:
        options: dict[str, Any] = {}
        if case.given == "dropouts":
            options = {"rngs": {"dropout": jax.random.key(7)}, "deterministic": False}
        carry, ys = layer.apply(variables, None, xs, **given, **options)
        value = jnp.sum(ys**2) + sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(carry))
        return total(value), (carry, ys)

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)


class Module:
    """The NNX form of a layer; its state is what ``apply`` takes in place of variables."""

    def __init__(self, layer: Any, variables: Any):
        from flax import nnx

        from zoo.recurrent.nnx import Recurrent

        self.graphdef, self.state = nnx.split(Recurrent(layer, variables=variables))

    def apply(self, state: Any, carry: Any, xs: Any, **given: Any) -> Any:
        from flax import nnx

        return nnx.merge(self.graphdef, state)(carry, xs, **given)


def arguments(case: Case) -> tuple[Any, dict[str, Any]]:
    """The inputs of a case, and its conditions."""
    import jax
    import jax.numpy as jnp

    keys = jax.random.split(jax.random.key(1), 3)
    xs = jax.random.normal(keys[0], (case.steps, B, D))
    if case.given != "conditions":
        return xs, {}
    resets = jax.random.bernoulli(keys[1], 0.2, (case.steps, B))
    lengths = jax.random.randint(keys[2], (B,), 0, case.steps + 1, jnp.int32)
    return xs, {"resets": resets, "seq_lengths": lengths}


@functools.cache
def on_one_device(case: Case) -> tuple[Any, ...]:
    """Variables, inputs and conditions of a case, and what comes out of them on one device."""
    import jax

    layer = build(case)
    xs, given = arguments(case)
    variables = layer.init(jax.random.key(0), None, xs)
    return variables, xs, given, jax.jit(step_of(case, layer))(variables, xs, given)


def run(case: Case) -> dict[str, Any]:
    """Compares a case with the same on one device; reports on the compiled step, too."""
    import flax.linen as nn
    import jax
    import numpy as np
    from flax import nnx
    from flax.linen import initializers
    from flax.linen.linear import default_kernel_init
    from jax.sharding import AxisType, NamedSharding
    from jax.sharding import PartitionSpec as P

    from tests.placement.loops import meetings

    way, _, kernels = case.mesh.partition(", ")
    sizes = MESHES[case.mesh]
    kind = AxisType.Explicit if way == "explicit" else AxisType.Auto
    mesh = jax.make_mesh(tuple(sizes.values()), tuple(sizes), (kind,) * len(sizes))

    variables, xs, given, expected = on_one_device(
        dataclasses.replace(case, implementation="scan", mesh="", every=None, form="linen")
    )

    options = {}
    if kernels:
        names = KERNELS[kernels]
        options["kernel_init"] = nn.with_partitioning(default_kernel_init, names)
        if case.layer not in ("linear", "complex"):
            options["recurrent_kernel_init"] = nn.with_partitioning(
                initializers.orthogonal(), names
            )
    layer = build(case, **options)
    boxed = jax.eval_shape(lambda: layer.init(jax.random.key(0), None, xs))
    placed = jax.tree.map(jax.device_put, variables, nn.unbox(nn.get_sharding(boxed, mesh)))
    # A box says how a parameter is sharded; the layer finds its parameters inside of them.
    placed = jax.tree.map(
        lambda box, x: box.replace_boxed(x) if isinstance(box, nn.meta.AxisMetadata) else x,
        boxed,
        placed,
        is_leaf=lambda x: isinstance(x, nn.meta.AxisMetadata),
    )

    def put(x: Any) -> Any:
        return jax.device_put(x, NamedSharding(mesh, P(None, "data") if x.ndim > 1 else P("data")))

    if case.form == "nnx":
        with jax.set_mesh(mesh):
            layer = Module(layer, placed)
        placed = layer.state
    step = step_of(case, layer)
    if way == "shard_map":
        local = step_of(case, layer, lambda x: jax.lax.psum(x, "data"))
        batch = P(None, "data")
        specs = {name: batch if x.ndim > 1 else P("data") for name, x in given.items()}
        step = jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(P(), batch, specs),
            out_specs=((P(), (P("data"), batch)), (P(), batch)),
        )
    where = placed, put(xs), jax.tree.map(put, given)
    if kind == AxisType.Explicit:
        with jax.set_mesh(mesh):
            compiled = jax.jit(step).lower(*where).compile()
    else:
        compiled = jax.jit(step).lower(*where).compile()
    actual = nn.unbox(compiled(*where))
    if case.form == "nnx":
        outputs, (gradients, of_inputs) = actual
        actual = outputs, ({"params": nnx.to_pure_dict(gradients)}, of_inputs)

    def distance(a: Any, b: Any) -> float:
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return float(np.max(np.abs(a - b)) / max(1.0, np.max(np.abs(b))))

    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    return {
        "distance": max(jax.tree.leaves(jax.tree.map(distance, actual, expected))),
        "meetings": meetings(compiled.as_text(), besides=DEPTH - 1),
    }


def main() -> None:
    """Reads cases from standard input, one JSON mapping per line, and answers in kind."""
    import jax

    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    for line in sys.stdin:
        case = Case(**json.loads(line))
        try:
            answer = run(case)
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps({"case": str(case), **answer}), flush=True)


if __name__ == "__main__":
    main()
