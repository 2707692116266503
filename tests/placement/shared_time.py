"""Linear layers whose time axis is shared out over devices; a program of its own, as ``cases``.

Argument: the dtype of everything. Cases come from standard input.
"""

import dataclasses
import json
import re
import sys
import traceback
from typing import Any

DEVICES = 8
T, B, D, H = 32, 4, 5, 6
PART = 8
"""Steps per device of ``MESHES["both"]``."""

MESHES = {"time": {"time": 8}, "both": {"time": 4, "data": 2}, "two": {"a": 2, "b": 2, "data": 2}}
MESHES["columns"] = {"time": 4, "model": 2}
INNER = {"layer": "scan_min_gru", "features": H}
LAYERS = {
    "min_gru": {"name": "scan_min_gru", "features": H},
    "min_lstm": {"name": "scan_min_lstm", "features": H},
    "lru": {"name": "scan_lru", "features": H, "r_min": 0.5},
    "s5": {"name": "scan_s5", "features": H},
    "rg_lru": {"name": "scan_rg_lru", "features": H},
    "bidirectional": {"name": "bidirectional", **INNER},
    "merged": {"name": "bidirectional", "merge": "one more", **INNER},
    "stack": {"name": "stack", "num_layers": 3, **INNER},
    "elements": {"complex_": False},
    "complex": {"complex_": True},
    "list": {"name": "stack", "layers": ["scan_s5", "cosine", "scan_lru"], "features": H},
}


def cosine(x: Any) -> Any:
    """A function that makes something of the zeros of padding."""
    import jax.numpy as jnp

    return jnp.cos(x)


FUNCTIONS = {
    "one more": lambda forward, backward: forward + backward + 1,
    "cosine": cosine,
}


@dataclasses.dataclass(frozen=True)
class Elements:
    """``linear_recurrence`` in the guise of a layer: of elements that xs are made into."""

    complex_: bool
    reverse: bool
    param_dtype: str
    carry_dtype: str
    sequence_axis: str | None = None

    def init(self, key: Any, carry: None, xs: Any) -> Any:
        """The first state."""
        import jax

        return {"params": {"start": jax.random.normal(key, xs.shape[-1:], xs.dtype)}}

    def apply(self, variables: Any, carry: None, xs: Any, resets: Any = None) -> Any:
        """No carry, and what the recurrence returns."""
        import jax
        import jax.numpy as jnp

        from zoo.recurrent.functional import linear_recurrence

        a, b = jnp.tanh(xs) / 2, jnp.cos(xs)
        start = jnp.broadcast_to(variables["params"]["start"], xs.shape[1:])
        if self.complex_:
            a, b, start = (jax.lax.complex(x, jnp.sin(x)) for x in (a, b, start))
        h = linear_recurrence(
            a, b, start, resets=resets, reverse=self.reverse, sequence_axis=self.sequence_axis
        )
        return (), (h.real + 2 * h.imag if self.complex_ else h)


@dataclasses.dataclass(frozen=True)
class Case:
    """A layer whose time is shared out.

    Attributes:
      layer: one of ``LAYERS``.
      way: "explicit", or "shard_map" with ``sequence_axis``.
      mesh: one of ``MESHES``; time is sharded over all axes but "data", and
        kernels over "model".
      reverse: the layer's.
      given: which conditions; see ``arguments``.
      mode: which derivative; see ``derivative``.
      options: of the layer, pairs.
      steps: T.
    """

    layer: str
    way: str = "explicit"
    mesh: str = "both"
    reverse: bool = False
    given: str = "nothing"
    mode: str = "gradient"
    options: tuple[tuple[str, Any], ...] = ()
    steps: int = T

    def __str__(self) -> str:
        fields = (x for x in dataclasses.astuple(self) if x != ())
        return "-".join(str(x).replace(" ", "_") for x in fields)


def build(case: Case, **more: Any) -> Any:
    """The layer of a case."""
    from flax.linen import initializers

    import registry

    options = dict(case.options) | more
    if options.get("learned_carry"):
        options["carry_init"] = initializers.normal(1.0)

    def known(value: Any) -> Any:
        if isinstance(value, list):
            return [known(x) for x in value]
        return FUNCTIONS.get(value, value) if isinstance(value, str) else value

    config = {name: known(value) for name, value in LAYERS[case.layer].items()}
    if "name" not in config:
        return Elements(**config, reverse=case.reverse, **options)
    return registry.build(config, reverse=case.reverse, **options)


def arguments(case: Case, dtype: Any) -> tuple[Any, dict[str, Any]]:
    """The inputs of a case, and its conditions, some of which fall on borders and across them."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    keys = jax.random.split(jax.random.key(1), 5)
    xs = jax.random.normal(keys[0], (case.steps, B, D), dtype)
    lengths = jnp.array([case.steps, 0, 2 * PART + 1, PART], jnp.int32)
    resets = np.array(jax.random.bernoulli(keys[1], 0.1, (case.steps, B)))
    resets[[PART, 3 * PART - 1], 0] = True
    mask = jax.random.bernoulli(keys[2], 0.8, (case.steps, B))
    given: dict[str, Any] = {}
    if case.given in ("lengths", "everything"):
        given["seq_lengths"] = lengths
    if case.given in ("resets", "everything"):
        given["resets"] = jnp.asarray(resets)
    if case.given in ("mask", "everything"):
        given["mask"] = mask
    if case.given in ("intervals", "everything") and case.layer == "s5":
        given["intervals"] = jax.random.uniform(keys[3], (case.steps, B), dtype)
    if case.given.startswith("nan"):
        # Over whole parts, up to a border, in padding, and for ever.
        where = np.array(xs, copy=True)
        where[3, 0], where[PART - 1, 1], where[PART + 1, 3] = np.nan, np.inf, np.nan
        if case.reverse:
            where = where[::-1].copy()
        xs = jnp.asarray(where)
    if case.given == "nan, resets":
        few = np.zeros((case.steps, B), bool)
        few[2 * PART + 3, 0] = few[PART, 1] = True
        given["resets"] = jnp.asarray(few[::-1].copy() if case.reverse else few)
    if case.given == "nan, lengths":
        given["seq_lengths"] = jnp.array([2, PART - 1, case.steps, PART + 1], jnp.int32)
    return xs, given


def derivative(case: Case, layer: Any, weigh: Any = lambda all_, carry: all_ + carry) -> Any:
    """A function of variables, inputs and conditions: results, and their derivatives."""
    import jax
    import jax.numpy as jnp

    def loss(variables: Any, xs: Any, given: dict[str, Any]) -> Any:
        options: dict[str, Any] = {}
        if case.given == "dropouts":
            options = {"rngs": {"dropout": jax.random.key(7)}, "deterministic": False}
        if case.given == "lengths that are known":
            options = {"seq_lengths": jnp.array([case.steps, 0, 2 * PART + 1, PART])}
        axis = dict(case.options).get("time_axis", 0)
        moved = jax.tree.map(lambda x: jnp.moveaxis(x, 0, axis) if x.ndim > 1 else x, (xs, given))
        carry, ys = layer.apply(variables, None, moved[0], **moved[1], **options)
        ys = jnp.moveaxis(ys, axis, 0).astype(xs.dtype)

        def finite(x: Any) -> Any:
            return jnp.where(jnp.isfinite(x), x, jnp.zeros_like(x))

        last = sum(jnp.sum(jnp.sin(finite(x))) for x in jax.tree.leaves(carry))
        return weigh(jnp.sum(finite(ys) ** 2), last), (carry, ys)

    gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)

    def along(function: Any) -> Any:
        def run(variables: Any, xs: Any, given: dict[str, Any]) -> Any:
            at = variables, xs
            return jax.jvp(lambda *at: function(*at, given), at, jax.tree.map(jnp.cos, at))

        return run

    modes = {"gradient": gradient, "values": loss}
    modes |= {"forward": along(loss), "second": along(gradient)}
    return modes[case.mode]


def run(case: Case, dtype: str) -> dict[str, Any]:
    """Compares a case with the same on one device; reports what crosses devices, too."""
    import jax
    import numpy as np
    from jax.sharding import AxisType
    from jax.sharding import PartitionSpec as P

    from tests.placement.loops import meetings

    sizes = MESHES[case.mesh]
    explicit = case.way == "explicit"
    kind = AxisType.Explicit if explicit else AxisType.Auto
    mesh = jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=(kind,) * len(sizes))
    time = tuple(name for name in sizes if name not in ("data", "model"))
    kernel = P(None, "model") if "model" in sizes else P()
    data = "data" if "data" in sizes else None

    # Parameters of float32 are exact in float64.
    wide = {"param_dtype": dtype, "carry_dtype": dtype}
    whole = build(case, **wide)
    xs, given = arguments(case, dtype)
    variables = whole.init(jax.random.key(0), None, xs)
    expected = jax.jit(derivative(case, whole))(variables, xs, given)

    def spec(x: Any) -> P:
        return P(time, data) if x.ndim > 1 else P(data)

    if explicit:
        step, layer = derivative(case, whole), whole
    else:
        layer = build(case, **wide, sequence_axis=time[0])
        over = (*time, *((data,) if data else ()))

        def weigh(all_: Any, carry: Any) -> Any:
            return jax.lax.psum(all_, over) + (jax.lax.psum(carry, data) if data else carry)

        row, every = P(data), P(time, data)
        out = {
            "gradient": ((P(), (row, every)), (P(), every)),
            "values": (P(), (row, every)),
            "forward": ((P(), (row, every)),) * 2,
            "second": (((P(), (row, every)), (P(), every)),) * 2,
        }
        step = jax.shard_map(
            derivative(case, layer, weigh),
            mesh=mesh,
            in_specs=(P(), every, {name: spec(x) for name, x in given.items()}),
            out_specs=out[case.mode],
        )
    with jax.set_mesh(mesh):
        where = (
            jax.tree.map(lambda x: jax.device_put(x, kernel if x.ndim > 1 else P()), variables),
            jax.device_put(xs, spec(xs)),
            {name: jax.device_put(x, spec(x)) for name, x in given.items()},
        )
        compiled = jax.jit(step).lower(*where).compile()
    actual = compiled(*where)

    def distance(a: Any, b: Any) -> float:
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert (np.isnan(a) == np.isnan(b)).all(), "NaN is elsewhere"
        a, b = np.nan_to_num(a), np.nan_to_num(b)
        return float(np.max(np.abs(a - b), initial=0) / max(1.0, np.max(np.abs(b), initial=0)))

    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    collective = r"= (.*?) (all-\w+|collective-\w+|reduce-scatter)(?:-start)?\("
    crossing = re.findall(collective, compiled.as_text())
    return {
        "distance": max(jax.tree.leaves(jax.tree.map(distance, actual, expected))),
        "finite": bool(all(np.isfinite(x).all() for x in jax.tree.leaves(actual[1]))),
        "meetings": meetings(compiled.as_text(), besides=2),
        "crossing": sorted(f"{what} {re.sub(r'{.*?}', '', shape)}" for shape, what in crossing),
    }


def main() -> None:
    """Reads cases from standard input, one JSON mapping per line, and answers in kind."""
    import jax

    (dtype,) = sys.argv[1:]
    jax.config.update("jax_enable_x64", dtype == "float64")
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    for line in sys.stdin:
        told = json.loads(line)
        case = Case(**{**told, "options": tuple(map(tuple, told["options"]))})
        try:
            answer = run(case, dtype)
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps({"case": str(case), **answer}), flush=True)


if __name__ == "__main__":
    main()
