"""``implementation="kernel"``: interpreted, as a scan, lowered for a GPU; against the fused one."""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import registry
from tests.recurrent.hopper import KNOWN, some, values_and_gradients
from tests.rows import rows
from zoo.recurrent.engine.kernels import mapped, obstacles, target
from zoo.recurrent.engine.kernels.gates import CELLS
from zoo.recurrent.engine.kernels.layout import Shape

STEPS, BATCH, INPUTS = 5, 3, 2


def layers(name, **options):
    """The same layer by the kernel and by the fused engine, and its parameters."""
    drawn = {"carry_init": jax.nn.initializers.normal(1.0), "learned_carry": True}
    options = {**drawn, "bias_init": jax.nn.initializers.normal(1.0), **options}
    kernel, fused = (
        registry.build(name, implementation=how, **options) for how in ("kernel", "fused")
    )
    variables = fused.init(jax.random.key(0), None, jnp.ones((STEPS, BATCH, INPUTS)))
    return kernel, fused, variables


def conditions():
    """Lengths, a mask and resets; NaN in padding, in a masked step and before a reset."""
    xs = some((STEPS, BATCH, INPUTS))
    mask, resets = np.ones((2, STEPS, BATCH), bool)
    resets[:] = False
    lengths = np.array([STEPS, 3, STEPS])
    xs[3:, 1], mask[1, 0], xs[1, 0] = np.nan, False, np.nan
    resets[2, 0] = resets[0, 1] = resets[1, 1] = resets[4, 1] = True
    # In the order of time and against it.
    xs[1, 2], resets[3, 2], resets[0, 2] = np.nan, True, True
    return xs, {"seq_lengths": lengths, "mask": mask, "resets": resets}


def assert_close(found, expected, tolerance):
    def check(a, b):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
        a, b = np.nan_to_num(a), np.nan_to_num(b)
        assert np.linalg.norm(a - b) <= tolerance * (np.linalg.norm(b) + 1e-3)

    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(check, found, expected)


SIZES = {
    "lstm, a head of 64": ("scan_lstm", {"features": 64, "forget_bias": 1.0}),
    "gru, two heads of 64": ("scan_gru", {"features": 128, "heads": 2, "reverse": True}),
    "lstm, a head of 128": (
        "scan_lstm",
        {"features": 128, "dtype": "bfloat16", "reverse": True, "use_bias": False},
    ),
    "gru, a head of 128": ("scan_gru", {"features": 128, "dtype": "bfloat16"}),
    "gru, two heads of 192": (
        "scan_gru",
        {"features": 384, "heads": 2, "dtype": "bfloat16", "reverse": True},
    ),
    "lstm, a head of 256": ("scan_lstm", {"features": 256, "dtype": "bfloat16"}),
    "lstm, a wide head": ("scan_lstm", {"features": 128}),
}

NARROW = [case for case in SIZES if "64" in case]
WIDE = [case for case in SIZES if "128" in case]
# Those of which a head is shared by several thread blocks.
SHARED = [case for case in SIZES if case not in (*NARROW, *WIDE)]


def tolerance(options):
    return 2e-2 if "dtype" in options else 1e-5


def interpreted_with_all_conditions(case):
    name, options = SIZES[case]
    kernel, fused, variables = layers(name, **options)
    xs, given = conditions()
    assert kernel.kernel_obstacle(xs) is None
    found = values_and_gradients(kernel, variables, xs, **given)
    expected = values_and_gradients(fused, variables, xs, **given)
    assert np.isnan(np.asarray(expected[0][1], np.float32)).any()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found[1]))
    assert_close(found, expected, tolerance(options))


@KNOWN
@pytest.mark.parametrize("case", rows([*NARROW, *WIDE], NARROW))
def test_interpreted_with_all_conditions(machine, case):
    machine(interpreted=True)
    interpreted_with_all_conditions(case)


@KNOWN
@pytest.mark.parametrize("case", rows(SHARED, ["gru, two heads of 192"]))
def test_interpreted_with_all_conditions_by_several_thread_blocks(case):
    """In a process of its own: each of a cluster's thread blocks holds one of XLA's threads, of
    which there are no more than cores unless it is told."""
    program = (
        "from tests.recurrent import hopper, test_kernel\n"
        "with hopper.put(interpreted=True):\n"
        f"    test_kernel.interpreted_with_all_conditions({case!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PJRT_NPROC": "8"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@KNOWN
def test_interpreted_without_conditions(machine):
    machine(interpreted=True)
    kernel, fused, variables = layers("scan_gru", features=64)
    xs = some((3, BATCH, INPUTS))
    assert_close(*(values_and_gradients(x, variables, xs) for x in (kernel, fused)), 1e-5)


@KNOWN
@pytest.mark.parametrize(
    "case", rows([*NARROW, "gru, a head of 128", *SHARED], ["lstm, a head of 64"])
)
def test_as_a_scan_with_all_conditions(machine, case):
    """A program that was traced for a GPU and is compiled for a CPU."""
    machine()
    name, options = SIZES[case]
    kernel, fused, variables = layers(name, **options)
    xs, given = conditions()
    carry = fused.apply(variables, jax.random.key(1), xs.shape[1:], method="initialize_carry")
    found = values_and_gradients(kernel, variables, xs, carry, **given)
    expected = values_and_gradients(fused, variables, xs, carry, **given)
    assert_close(found, expected, tolerance(options))


@KNOWN
@pytest.mark.parametrize("time_axis, shape", [(0, (4, 2)), (1, (2, 4, 2)), (-2, (9, 2, 4, 2))])
def test_other_batches(machine, time_axis, shape):
    machine()
    kernel, fused, variables = layers("scan_gru", features=64)
    kernel, fused = (layer.clone(time_axis=time_axis) for layer in (kernel, fused))
    xs = some(shape)
    assert kernel.kernel_obstacle(xs) is None
    assert_close(*(x.apply(variables, None, xs) for x in (kernel, fused)), 1e-5)


@KNOWN
@pytest.mark.parametrize("case", rows(NARROW, ["gru, two heads of 64"]))
def test_derivatives_of_other_kinds(machine, case):
    """Forward mode, and derivatives of it and of gradients in reverse mode."""
    machine()
    name, options = SIZES[case]
    *both, variables = layers(name, **options)
    xs, resets = some((2, 1, INPUTS)), np.array([[False], [True]])
    along = some(xs.shape, 2)

    def derivatives(layer):
        def loss(variables, xs):
            carry, ys = layer.apply(variables, None, xs, resets=resets)
            return jnp.sum(jnp.sin(ys)) + sum(jnp.sum(x * x) for x in jax.tree.leaves(carry))

        def moved(variables, xs):
            return jax.jvp(lambda xs: loss(variables, xs), (xs,), (along,))[1]

        def turned(variables, xs):
            return jnp.sum(jax.grad(loss, 1)(variables, xs) * along)

        # The same second derivatives by two ways, and again backwards.
        return tuple(jax.value_and_grad(f, (0, 1))(variables, xs) for f in (moved, turned))

    found, expected = (jax.jit(lambda x=x: derivatives(x))() for x in both)
    assert_close(found, expected, 1e-5)
    assert_close(found[1], found[0], 1e-5)


@KNOWN
@pytest.mark.parametrize("times", rows([1, 2], [1]))
@pytest.mark.parametrize("own_kernels", [False, True])
@pytest.mark.parametrize("own_resets", rows([None, False, True], [None, True]))
def test_vmap(machine, own_kernels, own_resets, times):
    """What is mapped over becomes rows, or heads where each has a kernel of its own."""
    machine()
    assert_close(*mapped_gradients(own_kernels, own_resets, times), 1e-5)


@KNOWN
@pytest.mark.parametrize("own_kernels", [False, True])
def test_vmap_of_what_would_be_too_large(machine, monkeypatch, own_kernels):
    machine()
    # One run has 3 * 2 * 5 * 128 numbers in its largest array.
    monkeypatch.setattr(obstacles, "MOST", 3841)
    monkeypatch.setattr(mapped, "as_features", None)
    monkeypatch.setattr(mapped, "_as_rows", None)
    assert_close(*mapped_gradients(own_kernels, True, 1), 1e-5)


@KNOWN
@pytest.mark.slow
def test_interpreted_vmap(machine):
    machine(interpreted=True)
    assert_close(*mapped_gradients(True, True, 1), 1e-5)


def mapped_gradients(own_kernels, own_resets, times):
    """By the kernel and by the fused engine, mapped so many times over two runs."""
    kernel, fused, variables = layers("scan_gru", features=128, heads=2)
    xs = some((2, 3, 2, INPUTS))
    resets = np.array([[[False] * 2, [True] * 2, [False, True]], [[False] * 2] * 3])
    if own_kernels:
        variables = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x]), variables)
    resets = {None: None, False: resets[0], True: resets}[own_resets]
    axes = 0 if own_kernels else None, 0, 0 if own_resets else None

    def loss(layer, variables, xs, resets):
        carry, ys = layer.apply(variables, None, xs, resets=resets)
        return jnp.sum(jnp.sin(ys)) + jnp.sum(carry * carry)

    def twice(x, axis):
        return x if axis is None else jax.tree.map(lambda x: jnp.stack([x, x[::-1]]), x)

    given = variables, xs, resets
    if times == 2:
        given = tuple(map(twice, given, axes))
    found = []
    for layer in (kernel, fused):
        run = jax.value_and_grad(functools.partial(loss, layer), (0, 1))
        for _ in range(times):
            run = jax.vmap(run, axes)
        found.append(jax.jit(run)(*given))
    return found


@KNOWN
def test_an_ensemble_is_one_kernel(machine):
    """A kernel for every member in turn would leave most of the card idle."""
    machine()
    layer, _, variables = layers("scan_gru", features=64)
    many = jax.tree.map(lambda x: jnp.stack([x] * 5), variables)
    xs, resets = some((3, 2, INPUTS)), np.zeros((5, 3, 2), bool)
    run = jax.vmap(lambda v, resets: layer.apply(v, None, xs, resets=resets)[1])
    lowered = jax.jit(run).trace(many, resets).lower(lowering_platforms=("cuda",))
    text = lowered.as_text()
    assert "gates_forward" in text and "stablehlo.while" not in text


@KNOWN
def test_no_cotangent_of_a_history_is_lost(machine):
    """Of c the kernel returns the last value only, so another engine returns all of them."""
    machine()
    kernel, fused, variables = layers("scan_lstm", features=64)
    xs = some((3, 2, INPUTS))
    assert kernel.kernel_obstacle(xs) is None
    assert "carry after every step" in kernel.kernel_obstacle(xs, history=True)

    def gradient(layer):
        def loss(variables):
            c, _ = layer.apply(variables, None, xs, method="carries")
            return jnp.sum(c * c)

        return jax.jit(jax.grad(loss))(variables)

    found = gradient(kernel)
    assert np.abs(found["params"]["hf"]["kernel"]).max() > 0
    assert_close(found, gradient(fused), 1e-6)


@KNOWN
@pytest.mark.parametrize("case", SIZES)
def test_lowers_for_cuda(machine, case):
    machine()
    name, options = SIZES[case]
    kernel, _, variables = layers(name, **options)
    xs, given = conditions()

    def forward(variables, xs):
        return jnp.sum(kernel.apply(variables, None, xs)[1].astype(jnp.float32))

    def gradient(variables, xs):
        return values_and_gradients(kernel, variables, xs, **given)

    for run, kernels in ((forward, ["gates_forward"]), (gradient, ["gates_backward"])):
        lowered = jax.jit(run).trace(variables, xs).lower(lowering_platforms=("cuda",))
        text = lowered.as_text()
        assert all(name in text for name in kernels) and "stablehlo.while" not in text


FALLBACKS: dict[str, tuple[dict, dict, dict, list[str]]] = {
    # What is different: of the machine, the layer and the call; what the obstacle says.
    "no GPU": ({"capability": ""}, {}, {}, ["9.0", "none"]),
    "another GPU": ({"capability": "10.0"}, {}, {}, ["9.0", "10.0"]),
    "an older JAX": ({"version": (0, 10)}, {}, {}, ["with JAX 0.11", "0.10"]),
    "a newer JAX": ({"version": (0, 13)}, {}, {}, ["with JAX 0.11", "0.13"]),
    "a projection": ({}, {"projection": 64}, {}, ["projection=64"]),
    "peepholes": ({}, {"peepholes": True}, {}, ["peepholes=True"]),
    "coupled gates": ({}, {"coupled_gates": True}, {}, ["coupled_gates=True"]),
    "an activation": ({}, {"activation_fn": "relu"}, {}, ["activation_fn"]),
    "a gate": ({}, {"gate_fn": "hard_sigmoid"}, {}, ["gate_fn"]),
    "a width": ({}, {"features": 96}, {}, ["64 or 128", "float32", "has 96"]),
    "heads": ({}, {"features": 128, "heads": 4}, {}, ["64 or 128", "has 32"]),
    "a wide head": ({}, {"features": 320, "dtype": "bfloat16"}, {}, ["64, 128, 192 or 256", "320"]),
    "float16": ({}, {"dtype": "float16"}, {}, ["float16"]),
    "float32 of 192": ({}, {"features": 192}, {}, ["64 or 128", "float32", "has 192"]),
    "a precision": ({}, {"precision": "highest"}, {}, ["TF32", "highest"]),
    "a narrow carry": (
        {},
        {"dtype": "bfloat16", "carry_dtype": "bfloat16"},
        {},
        ["carry_dtype", "bfloat16"],
    ),
    "zoneout": ({}, {"zoneout_rate": 0.1}, {}, ["zoneout"]),
    "recurrent dropout": (
        {},
        {"recurrent_dropout_rate": 0.1},
        {"deterministic": False},
        ["recurrent dropout"],
    ),
    "truncation": ({}, {"truncate_every": 2}, {}, ["truncate_every"]),
    "checkpoints": ({}, {"checkpoint_every": 2}, {}, ["checkpoint_every"]),
    "a history": ({}, {}, {"history": True}, ["carry after every step"]),
    "one step": ({}, {}, {"shape": (1, 2, 3)}, ["one step"]),
    "no rows": ({}, {}, {"shape": (2, 0, 3)}, ["empty"]),
    "too much": ({}, {}, {"shape": (2**16, 2**8, 3)}, ["2**31"]),
}


@pytest.mark.parametrize("case", FALLBACKS)
def test_obstacles(machine, case):
    differences, options, call, words = FALLBACKS[case]
    machine(**{"version": target.VERSIONS[0], **differences})
    layer = registry.build("scan_lstm", implementation="kernel", **{"features": 64, **options})
    call = dict(call)
    xs = jax.ShapeDtypeStruct(call.pop("shape", (2, 3, 4)), jnp.float32)
    said = layer.kernel_obstacle(xs, **call)
    assert said is not None and all(word in said for word in words), said


def test_nothing_in_the_way(machine):
    machine(version=target.VERSIONS[0])
    xs = jax.ShapeDtypeStruct((2, 3, 4), jnp.float32)
    options = {"features": 64, "dropout_rate": 0.5, "recurrent_dropout_rate": 0.5, "unroll": 2}
    layer = registry.build("scan_gru", implementation="kernel", **options)
    assert layer.kernel_obstacle(xs) is None
    with jax.default_matmul_precision("float32"):
        assert "float32" in layer.kernel_obstacle(xs)
    other = registry.build("scan_layer_norm_gru", features=64)
    assert "LayerNormGRU" in other.kernel_obstacle(xs)


def test_arrays_on_a_mesh(machine):
    machine(version=target.VERSIONS[0])
    layer = registry.build("scan_gru", features=64, implementation="kernel")
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "data"))
    assert "mesh" in layer.kernel_obstacle(jax.device_put(some((2, 3, 4)), where))


@pytest.mark.parametrize("name", ["scan_gru", "scan_lstm"])
def test_where_there_is_no_such_gpu_the_fused_engine_runs(name):
    kernel, fused, variables = layers(name, features=64)
    xs = some((3, 2, INPUTS))
    assert kernel.kernel_obstacle(xs) is not None
    kernel_text, fused_text = (
        jax.jit(lambda v, xs, layer=layer: layer.apply(v, None, xs)).lower(variables, xs).as_text()
        for layer in (kernel, fused)
    )
    assert kernel_text == fused_text
    own = kernel.init(jax.random.key(0), None, xs)
    jax.tree.map(np.testing.assert_array_equal, own, variables)


@KNOWN
@pytest.mark.parametrize(
    "name, implementation, devices, expected",
    [
        ("scan_gru", "auto", 1, True),
        ("scan_lstm", "auto", 1, True),
        ("scan_lstm", "auto", 2, False),
        ("scan_gru", "fused", 1, False),
        ("scan_mgu", "auto", 1, False),
    ],
)
def test_auto_is_the_kernel_where_there_is_one_gpu(
    machine, monkeypatch, name, implementation, devices, expected
):
    machine(devices=devices)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    layer = registry.build(name, features=64, implementation=implementation)
    xs = some((3, 2, INPUTS))
    run = jax.jit(lambda xs: layer.init_with_output(jax.random.key(0), None, xs)[0])
    text = run.trace(xs).lower(lowering_platforms=("cuda",)).as_text()
    assert ("gates_forward" in text) == expected


@pytest.mark.parametrize("name", ["scan_gru", "scan_min_gru"])
def test_on_a_cpu_beside_the_gpu_auto_is_what_it_is_on_a_cpu(monkeypatch, name):
    layer = registry.build(name, features=64)
    xs = some((9, 2, INPUTS))

    def text():
        run = jax.jit(lambda xs: layer.init_with_output(jax.random.key(0), None, xs)[0])
        return run.lower(xs).as_text()

    expected = text()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    jax.clear_caches()
    for device in ("cpu", jax.devices("cpu")[0]):
        with jax.default_device(device):
            assert text() == expected
    jax.clear_caches()
    assert text() != expected
    jax.clear_caches()


def test_composites_pass_it_on():
    inner = {"name": "scan_gru", "features": 4, "implementation": "kernel"}
    layer = registry.build("stack", layer={"name": "bidirectional", "layer": inner}, num_layers=2)
    _, ys = layer.init_with_output(jax.random.key(0), None, jnp.ones((3, 2, 4)))[0]
    assert ys.shape == (3, 2, 8)


@pytest.mark.parametrize("name", ["scan_layer_norm_lstm", "scan_mgu", "scan_conv_gru"])
def test_other_layers_say_who_has_a_kernel(name):
    with pytest.raises(ValueError, match=r"implementation must be .*scan_gru, .*scan_lstm"):
        registry.build(name, features=4, implementation="kernel")


def test_rows_fill_the_card():
    def rows(batch, heads, size=64):
        return Shape(CELLS["lstm"], heads, size, True, jnp.bfloat16).rows(batch)

    assert [rows(batch, 8) for batch in (1, 64, 128, 256, 512, 4096)] == [8, 8, 8, 16, 32, 32]
    assert rows(4096, 8, 128) == 16
    assert [rows(batch, 1, 256) for batch in (64, 240, 256, 4096)] == [8, 8, 16, 16]
