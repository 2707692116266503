"""``implementation="kernel"`` of linear layers: interpreted, as a loop, and lowered for a GPU."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import registry
from tests.recurrent.hopper import KNOWN, some, values_and_gradients
from tests.rows import rows
from zoo.recurrent.engine.affine import Recurrence, loop_back
from zoo.recurrent.engine.kernels import channels, chunks, obstacles, target
from zoo.recurrent.engine.recurrence import recurrence
from zoo.recurrent.functional import linear_recurrence

LAYERS = registry.names(tag="parallel")


@pytest.fixture
def short_chunks(monkeypatch):
    """Cuts few steps into chunks, of one tile each or more."""
    monkeypatch.setattr(chunks, "_STEPS", 2)
    monkeypatch.setattr(chunks, "_TILES", 1)


class Elements(NamedTuple):
    """A recurrence: its shape (T, *batch, width), and what is special about it."""

    shape: tuple[int, ...]
    pair: bool = False
    constant: bool = False
    reverse: bool = False
    resets: bool = False

    def how(self, way="kernel", **other):
        return Recurrence(self.reverse, way, self.pair, self.resets, **other)

    def draw(self):
        """Factors, summands and a first carry; with resets, infinity and NaN before them."""
        count = 2 if self.pair else 1
        a = [0.5 * some(self.shape[-1:] if self.constant else self.shape, k) for k in range(count)]
        b = [some(self.shape, 5 + k) for k in range(count)]
        start = tuple(some(self.shape[1:], 9 + k) for k in range(count))
        if self.resets:
            end = self.shape[0] - 1
            for at in (end // 3, end // 2, end):
                for x in a:
                    x[at] = 0.0
            for at in (end // 3 + 1, end // 2 - 1):
                for x, bad in zip(b, (np.inf, np.nan), strict=False):
                    x[at, ..., 0] = bad
        return tuple(a), tuple(b), start


CASES = {
    "fewer steps than a tile": Elements((2, 3, 5)),
    "many channels": Elements((19, 3, 50)),
    "reverse": Elements((35, 2, 3), reverse=True),
    "complex": Elements((21, 5), pair=True),
    "constant": Elements((20, 2, 3), constant=True),
    "complex constant, reverse": Elements((20, 2, 3), pair=True, constant=True, reverse=True),
    "resets": Elements((30, 2, 3), resets=True),
    "complex resets, reverse": Elements((30, 2, 3), pair=True, reverse=True, resets=True),
}
EVERY_DAY = ["many channels", "complex constant, reverse", "complex resets, reverse"]


def expected(case, a, b, start, back):
    """In float64: the carry after every step; or its cotangent, and that of the first carry."""

    def join(x):
        wide = [part.astype(np.float64) for part in x]
        return wide[0] + 1j * wide[1] if case.pair else wide[0]

    def apart(x):
        return (x.real, x.imag) if case.pair else (x,)

    a, b, h = join(a), join(b), join(start)
    a, out = np.broadcast_to(a, b.shape), np.empty_like(b)
    with np.errstate(all="ignore"):
        for t in range(len(b))[:: -1 if case.reverse else 1]:
            if back:
                h = out[t] = h + b[t]
            h = np.where(a[t] == 0, 0, a[t] * h) if case.resets else a[t] * h
            if not back:
                h = out[t] = h + b[t]
    return (apart(out), apart(h)) if back else apart(out)


def assert_close(found, wanted, tolerance=1e-5):
    def check(a, b):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        finite = np.isfinite(b)
        np.testing.assert_array_equal(np.isfinite(a), finite)
        a, b = np.where(finite, a, 0), np.where(finite, b, 0)
        assert np.max(np.abs(a - b), initial=0) <= tolerance * (np.max(np.abs(b), initial=0) + 1e-3)

    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    jax.tree.map(check, found, wanted)


@KNOWN
@pytest.mark.parametrize("cut", ["whole", "chunks"])
@pytest.mark.parametrize("name", rows(CASES, EVERY_DAY))
def test_interpreted(machine, request, name, cut):
    """Both forms of the kernel, with all steps in one program and shared out over several."""
    if cut == "chunks":
        request.getfixturevalue("short_chunks")
    machine(interpreted=True)
    case = CASES[name]
    a, b, start = case.draw()
    h = jax.jit(functools.partial(channels.forward, case.how()))(a, b, start)
    wanted = expected(case, a, b, start, back=False)
    assert_close(h, wanted)
    assert case.resets != all(np.isfinite(x).all() for x in wanted)
    d = jax.jit(functools.partial(channels.backward, case.how()))(a, b, start)
    assert_close(d, expected(case, a, b, start, back=True))


@KNOWN
def test_arrays_of_a_carry_that_are_not_one_complex_number(machine):
    """They are run one by one, and may differ in width."""
    machine(interpreted=True)
    one, other = Elements((9, 2, 3)), Elements((9, 2, 4))
    both = tuple(x + y for x, y in zip(one.draw(), other.draw(), strict=True))
    h = channels.forward(one.how(), *both)
    d, first = channels.backward(one.how(), *both)
    for k, case in enumerate((one, other)):
        assert_close(h[k : k + 1], expected(case, *case.draw(), back=False))
        wanted = expected(case, *case.draw(), back=True)
        assert_close((d[k : k + 1], first[k : k + 1]), wanted)


def layers(name, **options):
    """The same layer by the kernel and by the fused engine, and its parameters."""
    drawn = {"carry_init": jax.nn.initializers.normal(1.0), "learned_carry": True}
    options = {"features": 5, **drawn, **options}
    kernel, fused = (
        registry.build(name, implementation=how, **options) for how in ("kernel", "fused")
    )
    return kernel, fused, fused.init(jax.random.key(0), None, jnp.ones((2, 1, 2)))


def conditions():
    """Lengths, a mask and resets; NaN in padding, in a masked step and around a reset."""
    xs = some((19, 3, 2))
    mask, resets = np.ones((2, 19, 3), bool)
    resets[:] = False
    xs[7:, 1], mask[1, 0], xs[1, 0] = np.nan, False, np.nan
    xs[9, 2], resets[12, 2], resets[4, 2], resets[0, 1] = np.nan, True, True, True
    return xs, {"seq_lengths": np.array([19, 7, 19]), "mask": mask, "resets": resets}


OPTIONS = {
    "all conditions": {},
    "reverse": {"reverse": True},
    "truncation": {"truncate_every": 4},
    "checkpoints": {"checkpoint_every": 5},
}


@KNOWN
@pytest.mark.parametrize("options", rows(OPTIONS, ["truncation"]))
@pytest.mark.parametrize("name", rows(LAYERS, ["scan_lru"]))
def test_layers_interpreted(machine, short_chunks, name, options):
    machine(interpreted=True)
    kernel, fused, variables = layers(name, **OPTIONS[options])
    xs, given = conditions()
    assert kernel.kernel_obstacle(xs) is None
    found, wanted = (values_and_gradients(x, variables, xs, **given) for x in (kernel, fused))
    assert np.isnan(wanted[0][1]).any()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found[1]))
    assert_close(found, wanted)


@KNOWN
@pytest.mark.parametrize("name", rows(LAYERS, ["scan_lru"]))
def test_without_conditions(machine, name):
    """A program that was traced for a GPU and is compiled for a CPU, where it is a loop."""
    machine()
    kernel, fused, variables = layers(name, time_axis=1, dtype="bfloat16")
    xs = some((3, 7, 2))
    carry = fused.apply(variables, jax.random.key(1), xs[:, 0].shape, method="initialize_carry")
    both = (values_and_gradients(x, variables, xs, carry) for x in (kernel, fused))
    assert_close(*both, 2e-2)


@KNOWN
@pytest.mark.parametrize("name", ["scan_min_gru", "scan_lru"])
def test_histories(machine, name):
    machine()
    kernel, fused, variables = layers(name)
    xs = some((6, 2, 2))

    def gradient(layer):
        def loss(variables):
            past = layer.apply(variables, None, xs, method="carries")
            return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(past))

        return jax.jit(jax.value_and_grad(loss))(variables)

    assert_close(*map(gradient, (kernel, fused)))


@KNOWN
@pytest.mark.parametrize("name", rows(CASES, ["complex", "complex resets, reverse"]))
def test_derivatives_of_other_kinds(machine, name):
    """Forward mode, and derivatives of it and of gradients in reverse mode."""
    machine()
    case = CASES[name]._replace(shape=(5, *CASES[name].shape[1:]))
    a, b, start = case.draw()
    b = tuple(np.where(np.isfinite(x), x, 1) for x in b)
    along = tuple(some(x.shape, 20 + k) for k, x in enumerate(b))

    def derivatives(way):
        def loss(a, b, start):
            return sum(jnp.sum(jnp.sin(x)) for x in recurrence(case.how(way), a, b, start))

        def moved(*elements):
            return jax.jvp(lambda b: loss(elements[0], b, elements[2]), (elements[1],), (along,))[1]

        def turned(*elements):
            return sum(map(jnp.vdot, jax.grad(loss, 1)(*elements), along))

        # The same second derivatives by two ways, and again backwards.
        each = [jax.value_and_grad(f, (0, 1, 2)) for f in (moved, turned)]
        return jax.jit(lambda: [f(a, b, start) for f in each])()

    found = derivatives("kernel")
    assert_close(found, derivatives("loop"), 1e-4)
    if not case.resets:  # Of a factor that resets there is no derivative, but what JAX makes of it.
        assert_close(found[1], found[0], 1e-4)


@KNOWN
@pytest.mark.parametrize("mapped", rows(["summands", "factors", "everything"], ["everything"]))
@pytest.mark.parametrize("name", ["many channels", "complex constant, reverse"])
def test_vmap(machine, short_chunks, name, mapped):
    """What is mapped over becomes channels."""
    machine(interpreted=True)
    case = CASES[name]
    elements = case.draw()
    where = {"summands": (None, 1, 0), "factors": (0, None, None), "everything": (-1, 1, 0)}[mapped]
    many = [
        x if axis is None else tuple(np.stack([y, 0.5 * y, -y], axis) for y in x)
        for x, axis in zip(elements, where, strict=True)
    ]
    for run, back in ((channels.forward, False), (channels.backward, True)):
        found = jax.jit(jax.vmap(functools.partial(run, case.how()), where))(*many)
        for k, scale in enumerate((1.0, 0.5, -1.0)):
            own = [
                x if axis is None else tuple(np.float32(scale) * y for y in x)
                for x, axis in zip(elements, where, strict=True)
            ]
            one = jax.tree.map(lambda x, k=k: x[k], found)
            assert_close(one, expected(case, *own, back=back))


@KNOWN
@pytest.mark.parametrize("most", [2**31, 6 * 3 * 5 + 1])
def test_vmap_of_gradients(machine, monkeypatch, most):
    """Also where two runs at once would be too large, which one alone is not."""
    machine()
    monkeypatch.setattr(obstacles, "MOST", most)
    kernel, fused, variables = layers("scan_min_gru")
    many = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x]), variables)
    xs = some((2, 6, 3, 2))

    def gradients(layer):
        def loss(variables, xs):
            carry, ys = layer.apply(variables, None, xs)
            return jnp.sum(jnp.sin(ys)) + jnp.sum(carry * carry)

        return jax.jit(jax.vmap(jax.value_and_grad(loss, (0, 1))))(many, xs)

    assert_close(*map(gradients, (kernel, fused)))


LOWERED = {
    "one program for all steps": ("scan_min_gru", (1024, 16, 2), 512, {}, 0),
    "chunks": ("scan_min_gru", (4096, 2, 2), 64, {"reverse": True}, 2),
    "complex": ("scan_lru", (4096, 3, 2), 50, {}, 2),
}


@KNOWN
@pytest.mark.parametrize("case, conditions", [*zip(LOWERED, [False, True, True], strict=True)])
def test_lowers_for_cuda(machine, case, conditions):
    machine()
    name, shape, features, options, totals = LOWERED[case]
    layer, _, variables = layers(name, features=features, **options)
    resets = np.zeros(shape[:-1], bool) if conditions else None

    def gradient(variables, xs):
        def loss(*arguments):
            return jnp.sum(layer.apply(arguments[0], None, arguments[1], resets=resets)[1])

        return jax.grad(loss, (0, 1))(variables, xs)

    xs = jax.ShapeDtypeStruct(shape, jnp.float32)
    text = jax.jit(gradient).trace(variables, xs).lower(lowering_platforms=("cuda",)).as_text()
    assert "linear_every" in text and "linear_back" in text
    assert "stablehlo.while" not in text
    assert ("linear_totals" in text) == bool(totals)


FALLBACKS: dict[str, tuple[dict, dict, tuple[int, ...], list[str]]] = {
    # What is different: of the machine and the layer; the shape; what the obstacle says.
    "no GPU": ({"capability": ""}, {}, (7, 2, 3), ["9.0", "none"]),
    "another GPU": ({"capability": "10.0"}, {}, (7, 2, 3), ["9.0", "10.0"]),
    "an older JAX": ({"version": (0, 10)}, {}, (7, 2, 3), ["with JAX 0.11", "0.10"]),
    "one step": ({}, {}, (1, 2, 3), ["one step"]),
    "no rows": ({}, {}, (7, 0, 3), ["empty"]),
    "too much": ({}, {}, (2**20, 2**10, 3), ["2**31"]),
}


@pytest.mark.parametrize("case", FALLBACKS)
def test_obstacles(machine, case):
    differences, options, shape, words = FALLBACKS[case]
    machine(**{"version": target.VERSIONS[0], **differences})
    layer = registry.build("scan_lru", features=4, implementation="kernel", **options)
    said = layer.kernel_obstacle(jax.ShapeDtypeStruct(shape, jnp.float32))
    assert said is not None and all(word in said for word in words), said


def test_float64_is_an_obstacle(machine):
    machine()
    with jax.enable_x64(True):
        layer = registry.build("scan_lru", features=4, implementation="kernel", dtype="float64")
        assert "float64" in layer.kernel_obstacle(jax.ShapeDtypeStruct((7, 2, 3), jnp.float64))


def test_arrays_on_a_mesh(machine):
    machine()
    layer = registry.build("scan_min_gru", features=4, implementation="kernel")
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "data"))
    assert "mesh" in layer.kernel_obstacle(jax.device_put(some((2, 3, 4)), where))


def test_symbolic_shapes(machine):
    machine()
    layer = registry.build("scan_min_gru", features=4, implementation="kernel")
    (batch,) = jax.export.symbolic_shape("b")
    assert "symbolic" in layer.kernel_obstacle(jax.ShapeDtypeStruct((7, batch, 3), jnp.float32))


@pytest.mark.parametrize("name", LAYERS)
def test_nothing_in_the_way(machine, name):
    machine()
    layer = registry.build(
        name,
        features=4,
        implementation="kernel",
        **{"dtype": "bfloat16", "zoneout_rate": 0.1, "time_axis": 1},
    )
    assert layer.kernel_obstacle(jax.ShapeDtypeStruct((2, 7, 3), jnp.bfloat16)) is None


@pytest.mark.parametrize("name", LAYERS)
def test_where_there_is_no_such_gpu_another_engine_runs(name):
    kernel, _, variables = layers(name)
    auto = kernel.clone(implementation="auto")
    xs = some((3, 2, 2))
    texts = [
        jax.jit(lambda v, xs, layer=layer: layer.apply(v, None, xs)).lower(variables, xs).as_text()
        for layer in (kernel, auto)
    ]
    assert kernel.kernel_obstacle(xs) is not None
    assert texts[0] == texts[1]


@KNOWN
@pytest.mark.parametrize(
    "implementation, devices, expected",
    [("auto", 1, True), ("auto", 2, False), ("kernel", 2, True), ("parallel", 1, False)],
)
def test_auto_is_the_kernel_where_there_is_one_gpu(
    machine, monkeypatch, implementation, devices, expected
):
    machine(devices=devices)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    layer, _, variables = layers("scan_min_gru")
    layer = layer.clone(implementation=implementation)
    assert ("linear_every" in lowered(lambda xs: layer.apply(variables, None, xs))) == expected


@KNOWN
@pytest.mark.parametrize(
    "shape, differences, expected",
    [
        ((3, 64), {}, True),
        ((3, 2), {}, False),
        ((3,), {}, False),
        ((3, 64), {"devices": 2}, False),
        ((3, 64), {"capability": "8.0"}, False),
    ],
)
def test_elements_of_ones_own_take_it_too(machine, monkeypatch, shape, differences, expected):
    machine(**differences)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    text = lowered(lambda a: linear_recurrence(a, a), jnp.ones(shape))
    assert ("linear_every" in text) == expected


def lowered(run, xs=None):
    xs = some((3, 2, 2)) if xs is None else xs
    return jax.jit(run).trace(xs).lower(lowering_platforms=("cuda",)).as_text()


def test_time_is_cut_where_channels_are_few():
    def cut(steps, width, read=2, written=1):
        own = chunks.cut(steps, width, read, written)
        assert own.steps >= steps > own.steps - own.rows
        assert (own.chunks - 1) * own.each < own.tiles <= own.chunks * own.each
        return own.chunks

    assert [cut(4096, width) for width in (128, 2048, 4096, 16384)] == [64, 16, 1, 1]
    assert [cut(steps, 128) for steps in (2, 1000, 1024, 65536)] == [1, 1, 16, 256]
    assert cut(4096, 128, 4, 2) == 128


def test_the_other_way_of_writing_cotangents():
    """What the interpreter and NumPy are compared with is what the loop does."""
    case = CASES["complex resets, reverse"]
    found = loop_back(case.how("loop"), *case.draw())
    assert_close(found, expected(case, *case.draw(), back=True))
