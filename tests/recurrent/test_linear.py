"""Linear recurrences: the engine in every way that it is cut, its traps, and cells of others."""

import dataclasses
import functools
import itertools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import registry
from tests.rows import rows
from zoo.recurrent.cell import Kernel, LinearCell
from zoo.recurrent.engine import linear
from zoo.recurrent.engine import reference as plain
from zoo.recurrent.engine.affine import Recurrence
from zoo.recurrent.engine.products import Arithmetic
from zoo.recurrent.engine.step import Step
from zoo.recurrent.layers.linear import LinearLayer
from zoo.recurrent.layers.lru import LRU
from zoo.recurrent.layers.min_gru import MinGRU
from zoo.recurrent.layers.s5 import hippo_eigenvalues, mean_exponential
from zoo.recurrent.testing import CHECKS, Case

from . import reference
from .layers import LEAVES, assert_close, assert_same, finite, some, variables_of

T, B, D, H = 7, 3, 2, 4
XS = some((T, B, D))
LINEAR = {name: leaf for name, leaf in LEAVES.items() if "parallel" in leaf.implementations}
IMPLEMENTATIONS = ("scan", "fused", "parallel")


@dataclasses.dataclass(frozen=True)
class Leaky(LinearCell):
    """``h' = a h + (1 - a) W x``: a cell of somebody else's."""

    leak: float = 0.9

    def declare(self):
        return {"i": Kernel("input", self.features, bias=self.use_bias)}

    def elements(self, u, weights):
        a = jnp.full((self.features,), self.leak, u["i"].dtype)
        return a, (1 - self.leak) * u["i"]


@dataclasses.dataclass(frozen=True)
class Squared(Leaky):
    """The same, of which the square is read."""

    def read(self, carry, u, weights):
        return carry[0] ** 2


class ScanLeaky(LinearLayer):
    leak: float = 0.9
    cell_class: ClassVar = Leaky


class ScanSquared(ScanLeaky):
    cell_class: ClassVar = Squared


QUICK = (
    *("check_steps", "check_resets", "check_implementations", "check_padding_cannot_leak"),
    *("check_carries", "check_resets_stop_leaks"),
)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("layer", [ScanSquared])
@pytest.mark.parametrize(
    "check",
    [
        pytest.param(c, marks=[] if c.__name__ in QUICK else [pytest.mark.slow], id=c.__name__)
        for c in CHECKS
    ],
)
def test_a_cell_of_somebody_elses_keeps_the_contract(check, layer, implementation):
    if check.__name__ in ("check_implementations", "check_parameters"):
        # They build all of them.
        build = functools.partial(layer, features=4)
    else:
        build = functools.partial(layer, features=4, implementation=implementation)
    try:
        check(Case(build, some((6, 3, 5))))
    except Exception as error:
        if type(error).__name__ != "SkipTest":
            raise


def test_a_layer_of_somebody_elses_has_a_name():
    with registry.temporary():
        registry.register("acme.scan_leaky", ScanLeaky, family="recurrent")
        layer = registry.build("stack", layer="acme.scan_leaky", features=4, num_layers=2)
        _, ys = layer.apply(layer.init(jax.random.key(0), None, XS), None, XS)
        assert ys.shape == (T, B, 4)


MASK = np.random.default_rng(0).random((T, B)) < 0.8
RESETS = np.random.default_rng(1).random((T, B)) < 0.3
SIGNALS = {
    "none": (),
    "all": ("mask", "reset", "cut", "zoneout"),
    "cut": ("cut",),
    "reset and cut": ("reset", "cut"),
}
EVERY_DAY = [("real", "all", "carries", 3), ("complex", "all", "blocks", 3)]
WAYS = [
    pytest.param(
        *way,
        id="-".join(map(str, way)),
        marks=[] if way[:4] in EVERY_DAY else [pytest.mark.slow],
    )
    for way in itertools.product(
        ("real", "complex"), SIGNALS, ("carries", "blocks"), (1, 3, 7), (False, True), (False, True)
    )
]


@functools.cache
def engine_results(kind, given, how):
    """Values and gradients of an engine in float64; ``how`` is (keep, length, tree), or None."""
    cell = MinGRU(H) if kind == "real" else LRU(H, state_features=5)
    width = cell.widths[0]
    step = Step(cell, jnp.dtype("float64"), 0.3 if "zoneout" in SIGNALS[given] else 0.0)
    arithmetic = Arithmetic(None, jnp.float64)
    weights = {}
    for name, kernel in cell.kernels_for(D).items():
        if kernel.source == "none":
            weights[name] = {"vector": some((kernel.width,), len(weights), jnp.float64)}
            continue
        rows = D if kernel.source == "input" else width
        weights[name] = {"kernel": some((rows, kernel.width), len(weights), jnp.float64)}
        if kernel.bias:
            weights[name]["bias"] = some((kernel.width,), len(weights), jnp.float64)
    start = tuple(some((B, width), 20 + k, jnp.float64) for k in range(len(cell.widths)))
    fixed = {"initial": tuple(some((B, width), 30 + k, jnp.float64) for k in range(len(start)))}
    keep = np.random.default_rng(2).random((T, B, width)) < 0.4
    signals = {
        "mask": jnp.asarray(MASK),
        "reset": jnp.asarray(RESETS),
        "cut": jnp.arange(T) % 3 == 2,
        "zoneout": (jnp.asarray(keep),) * len(start),
    }
    signals = {name: signals[name] for name in SIGNALS[given]}
    reverse, *rest = how

    def run(weights, fixed, start, xs):
        if not rest:
            plan = plain.Plan(step, arithmetic, reverse)
            return plain.scan(plan, weights, fixed, start, xs, signals)
        keep, length, tree = rest
        way = "tree" if tree else "loop"
        recurrence = Recurrence(reverse, way, cell.complex_pair, resets="reset" in signals)
        plan = linear.Plan(step, arithmetic, jnp.float64, recurrence, length, keep)
        return linear.linear(plan, weights, fixed, start, xs, signals)

    def loss(*args):
        out = run(*args)
        return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(out)), out

    differentiate = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True))
    return differentiate(weights, fixed, start, some((T, B, D), 2, jnp.float64))


@pytest.mark.parametrize(("kind", "given", "keep", "length", "tree", "reverse"), WAYS)
def test_however_time_is_cut(kind, given, keep, length, tree, reverse):
    with jax.enable_x64(True):
        wanted = engine_results(kind, given, (reverse,))
        got = engine_results(kind, given, (reverse, keep, length, tree))
        assert_close(got, wanted, 1e-10)


def gradients(layer, variables, xs, **conditions):
    def loss(variables, xs):
        carry, ys = layer.apply(variables, None, xs, **conditions)
        return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves((carry, ys))), (carry, ys)

    return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(variables, xs)


@pytest.mark.parametrize("options", [{"truncate_every": 3}, {"checkpoint_every": 2}], ids=str)
@pytest.mark.parametrize(
    "name",
    rows(LINEAR, ["lru"]),
)
def test_options_mean_the_same_in_all_implementations(name, options):
    expected, *others = (
        gradients(
            LINEAR[name].build(implementation=each, learned_carry=True, **options),
            variables_of(LINEAR[name].build(learned_carry=True), XS),
            XS,
            resets=jnp.asarray(RESETS),
        )
        for each in IMPLEMENTATIONS
    )
    for got in others:
        assert_close(got, expected, 1e-5)


@pytest.mark.parametrize("name", ["min gru", "lru"])
def test_random_zoneout_is_the_same_in_all_implementations(name):
    variables = variables_of(LINEAR[name].build(), XS)

    def run(implementation):
        layer = LINEAR[name].build(implementation=implementation, zoneout_rate=0.5)

        def loss(variables):
            out = layer.apply(
                *(variables, None, XS),
                deterministic=False,
                rngs={"dropout": jax.random.key(0)},
                method="history",
            )
            return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(out)), out

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables)

    expected, *others = map(run, IMPLEMENTATIONS)
    for got in others:
        assert_close(got, expected, 1e-5)
    history = jax.tree.leaves(expected[0][1][0])
    held = [np.asarray(x[1:] == x[:-1]) for x in history]
    assert 0.3 < held[0].mean() < 0.7
    # A complex number is kept whole.
    assert all((h == held[0]).all() for h in held)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_an_overflow_ends_at_a_reset(implementation):
    """Inputs are finite, and so nothing is known of it before: the state itself is infinite."""
    layer = ScanLeaky(features=H, leak=1e30, implementation=implementation)
    variables = variables_of(layer, XS)
    resets = jnp.zeros((T, B), bool).at[4].set(True)

    def loss(xs, start):
        _, ys = layer.apply(variables, start, xs, resets=resets)
        return jnp.sum(jnp.sin(ys[4] * 1e-30)), ys[4]

    run = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    start = jnp.full((B, H), 1e30)
    (_, ys), (by_xs, by_start) = run(XS, start)
    assert not finite(layer.apply(variables, start, XS, resets=resets)[1][3])
    assert_same(ys, run(XS, jnp.zeros((B, H)))[0][1])
    assert finite((ys, by_xs, by_start))
    assert not np.any(by_xs[:4]) and not np.any(by_start)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("size", [30.0, 200.0, 1e4])
@pytest.mark.parametrize("name", ["min gru", "min gru positive", "min lstm", "rg lru"])
def test_gates_that_are_shut_are_no_trouble(name, size, implementation):
    layer = LINEAR[name].build(implementation=implementation)
    variables = variables_of(layer, XS)
    out = gradients(layer, variables, size * XS)
    assert finite(out)


def test_the_gates_of_a_min_lstm_where_both_are_shut():
    """f / (f + i) of two numbers that are zero in float32."""
    layer = registry.build("scan_min_lstm", features=1, use_bias=False)
    ones, zero = jnp.ones((1, 1)), jnp.zeros((1, 1))
    params = {"ii": {"kernel": -200 * ones}, "if": {"kernel": -199 * ones}}
    start = jnp.ones((1, 1))
    variables = {"params": params | {"ig": {"kernel": zero}}}
    _, ys = layer.apply(variables, start, jnp.ones((1, 1, 1)))
    np.testing.assert_allclose(ys, 1 / (1 + np.exp(-1.0)), rtol=1e-6)


def test_the_root_of_an_rg_lru_has_a_bounded_derivative():
    layer = registry.build("scan_rg_lru", features=1, use_bias=False)
    one = jnp.ones((1, 1))
    params = {"ia": {"kernel": 0 * one}, "ix": {"kernel": one}, "Lambda": jnp.full((1,), -80.0)}

    def loss(params):
        return jnp.sum(layer.apply({"params": params}, None, jnp.ones((3, 1, 1)))[1])

    for x in jax.tree.leaves(jax.grad(loss)(params)):
        assert np.isfinite(x).all() and np.abs(x).max() < 1e4


def test_eigenvalues_of_an_lru_near_one_keep_their_scale():
    layer = registry.build("scan_lru", features=H, r_min=1 - 2e-6, r_max=1 - 1e-6)
    params = layer.init(jax.random.key(0), None, XS)["params"]
    nu = np.asarray(params["nu_log"], np.float64)
    wanted = 0.5 * np.log(-np.expm1(-2 * np.exp(nu)))
    np.testing.assert_allclose(params["gamma_log"], wanted, rtol=1e-5)
    assert finite(params)


@pytest.mark.parametrize("size", [1e-30, 1e-12, 1e-6, 9e-6, 1.1e-5, 1e-3, 1.0, 30.0])
def test_the_hold_of_an_s5_is_exact_where_it_cancels(size):
    angles = np.linspace(np.pi / 2, 3 * np.pi / 2, 7)
    z = size * np.exp(1j * angles)
    with np.errstate(all="ignore"):
        wanted = (np.expm1(z) if size > 1e-8 else z) / z
    got = mean_exponential((jnp.asarray(z.real, jnp.float32), jnp.asarray(z.imag, jnp.float32)))
    np.testing.assert_allclose(got[0], wanted.real, rtol=1e-6, atol=2e-6 * np.abs(wanted).max())
    np.testing.assert_allclose(got[1], wanted.imag, rtol=1e-6, atol=2e-6 * np.abs(wanted).max())


def test_no_time_and_no_eigenvalue_are_no_trouble():
    layer = registry.build("scan_s5", features=H)
    variables = variables_of(layer, XS)
    still = layer.apply(variables, None, XS, intervals=jnp.zeros((T, B)))
    assert not any(np.any(x) for x in still[0])
    params = variables["params"]
    zero = {name: jnp.zeros_like(params[name]) for name in ("Lambda_re", "Lambda_im")}
    assert finite(gradients(layer, {"params": params | zero}, XS))


def test_the_eigenvalues_of_hippo():
    values = hippo_eigenvalues(8)
    assert values.shape == (8,) and (values.real == -0.5).all()
    assert (values.imag > 0).all() and (np.diff(values.imag) > 0).all()
    n = np.arange(16)
    root = np.sqrt(2 * n + 1)
    legs = -np.tril(np.outer(root, root), -1) - np.diag(n + 1)
    normal = legs + 0.5 * np.outer(root, root)
    found = np.linalg.eigvals(normal)
    wanted = np.sort(found.imag[found.imag > 0])
    np.testing.assert_allclose(values.imag, wanted, rtol=1e-8)
    np.testing.assert_allclose(found.real, -0.5, atol=1e-8)


@pytest.mark.parametrize("name", ["scan_lru", "scan_s5"])
def test_a_skip_is_a_vector_where_widths_agree(name):
    layer = registry.build(name, features=H, state_features=5)
    for inputs, shape in ((H, (H,)), (D, (D, H))):
        xs = some((T, B, inputs))
        variables = variables_of(layer, xs)
        params = variables["params"]
        skip = params["D"] if inputs == H else params["D"]["kernel"]
        assert skip.shape == shape
        start = (np.zeros((B, 5)),) * 2
        carry, ys = layer.apply(variables, None, xs)
        wanted = reference.run(reference.STEPS[name], params, xs, start)
        assert_close((carry, ys), (wanted.carry, wanted.ys), 1e-5)
    assert layer.output_features == H
    both = registry.build("bidirectional", layer=name, features=H, state_features=5)
    assert both.output_features == 2 * H


def test_an_rg_lru_projects_inputs_of_another_width_only():
    layer = registry.build("scan_rg_lru", features=H)
    narrow = layer.init(jax.random.key(0), None, XS)["params"]
    assert narrow["in"]["kernel"].shape == (D, H)
    same = layer.init(jax.random.key(0), None, some((T, B, H)))
    assert "in" not in same["params"]
    with pytest.raises(ValueError, match=f"expected {H} features"):
        layer.apply(same, None, XS)
    with pytest.raises(ValueError, match=f"expected {D} features"):
        layer.apply({"params": narrow}, None, some((T, B, H)))


def test_eigenvalues_of_an_lru_are_drawn_from_the_ring():
    layer = registry.build(
        "scan_lru", features=H, state_features=2000, r_min=0.6, r_max=0.8, max_phase=0.5
    )
    params = layer.init(jax.random.key(0), None, XS)["params"]
    size, angle = np.exp(-np.exp(params["nu_log"])), np.exp(params["theta_log"])
    assert 0.6 <= size.min() < 0.61 and 0.79 < size.max() <= 0.8
    assert angle.min() < 0.01 and 0.49 < angle.max() <= 0.5
    # Uniform on the ring, so that squares are uniform.
    np.testing.assert_allclose((size**2).mean(), (0.36 + 0.64) / 2, atol=0.01)


@pytest.mark.parametrize("name", ["scan_gru", "scan_cfc", "scan_conv_lstm"])
def test_gated_layers_say_who_runs_in_parallel(name):
    with pytest.raises(ValueError, match=r"implementation must be .*scan_lru.*scan_rg_lru"):
        registry.build(name, features=H, implementation="parallel")


@pytest.mark.parametrize("name", ["min gru", "lru", "s5"])
def test_the_recurrence_is_in_float32_whatever_the_dtypes_are(name):
    """Adding up 4000 small numbers in bfloat16 would stop long before the end."""
    steps = 4000
    layer = LINEAR[name].build(dtype=jnp.bfloat16, carry_dtype=jnp.bfloat16)
    wide = LINEAR[name].build()
    xs = 1 + 0.1 * some((steps, 1, D))
    variables = variables_of(wide, xs[:3])
    for implementation in IMPLEMENTATIONS:
        own = layer.clone(implementation=implementation)
        carry, ys = own.apply(variables, None, xs.astype(jnp.bfloat16))
        assert ys.dtype == jnp.bfloat16
        assert {x.dtype for x in jax.tree.leaves(carry)} == {jnp.dtype(jnp.bfloat16)}
        expected = wide.apply(variables, None, xs)[1]
        scale = float(jnp.abs(expected).max())
        np.testing.assert_allclose(np.asarray(ys, np.float32), expected, rtol=0, atol=0.03 * scale)


LONG = 65536


@pytest.mark.slow
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", ["scan_min_gru", "scan_lru"])
def test_long_sequences(name, implementation):
    """Errors do not grow with T: what a step rounds is forgotten as the state is."""
    features = {"features": 2}
    with jax.enable_x64(True):
        exact = registry.build(name, **features, param_dtype=jnp.float64, carry_dtype=jnp.float64)
        xs = some((LONG, 1, 2), 0, jnp.float64)
        variables = variables_of(exact, xs[:2])
        start = (np.zeros((1, 2)),) * len(jax.tree.leaves(exact.carry_spec((1, 2))))
        wanted = reference.run(reference.STEPS[name], variables["params"], xs, start)
        for dtype, tolerance in ((jnp.float64, 1e-10), (jnp.float32, 1e-5)):
            layer = registry.build(
                name,
                **features,
                param_dtype=dtype,
                carry_dtype=dtype,
                implementation=implementation,
            )
            given = jax.tree.map(lambda x, dtype=dtype: x.astype(dtype), (variables, xs))
            ys = layer.apply(given[0], None, given[1])[1]
            scale = np.abs(wanted.ys).max()
            np.testing.assert_allclose(ys, wanted.ys, rtol=0, atol=tolerance * (1 + scale))


def equations(jaxpr):
    """All equations of a program, those inside of others included."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jax.tree.leaves(tuple(eqn.params.values())):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def gradient_program(name, steps):
    layer = LINEAR[name].build(implementation="fused", features=8)
    xs = jax.ShapeDtypeStruct((steps, 64, 8), jnp.float32)
    variables = jax.eval_shape(layer.init, jax.random.key(0), None, xs)

    def loss(variables, xs):
        return jnp.sum(layer.apply(variables, None, xs)[1])

    return list(equations(jax.make_jaxpr(jax.grad(loss, (0, 1)))(variables, xs).jaxpr))


@pytest.mark.parametrize("name", ["min gru", "lru", "s5", "rg lru"])
def test_nothing_but_a_multiplication_and_an_addition_is_in_the_loop(name):
    steps = 96
    loops = [
        {inner.primitive.name for inner in equations(eqn.params["jaxpr"].jaxpr)}
        for eqn in gradient_program(name, steps)
        if eqn.primitive.name == "scan" and eqn.params["length"] == steps
    ]
    assert loops
    for found in loops:
        assert found <= {"mul", "add", "sub", "broadcast_in_dim"}


def test_both_projections_of_a_min_gru_are_one_product():
    """Forwards, again backwards, and for the gradients by kernels and by inputs."""
    program = gradient_program("min gru", 96)
    assert sum(eqn.primitive.name == "dot_general" for eqn in program) == 4


@pytest.mark.parametrize("name", LINEAR)
def test_a_program_does_not_grow_with_time(name):
    few, many = (gradient_program(name, steps) for steps in (8192, 65536))
    assert len(few) == len(many)
    assert any(eqn.params.get("length") not in (None, 8192) for eqn in few)
