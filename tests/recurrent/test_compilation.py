"""What is compiled, how often, how fast, and how much memory it wants."""

import contextlib
import math
import re
import time

import jax
import jax.numpy as jnp
import pytest

import registry

from .layers import COMPOSITES, some, variables_of

XS = some((5, 2, 3))


@contextlib.contextmanager
def compilations():
    """Collects the functions that are compiled inside."""
    found = []

    def listen(event, duration, **about):
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(about.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def calls(layer, variables, start):
    mask = jnp.ones((5, 2), bool)

    def loss(variables):
        return jnp.sum(layer.apply(variables, None, XS)[1])

    return {
        "call": lambda: layer.apply(variables, None, XS),
        "call with a carry": lambda: layer.apply(variables, start, XS),
        "call with conditions": lambda: layer.apply(variables, None, XS, mask=mask, resets=mask),
        "step": lambda: layer.apply(variables, start, XS[0], method="step"),
        "carries": lambda: layer.apply(variables, None, XS, method="carries"),
        "grad": lambda: jax.grad(loss)(variables),
    }


EAGER = {
    "scan_gru": {"name": "scan_gru", "features": 4},
    "bidirectional": {"name": "bidirectional", "layer": "scan_gru", "features": 4},
    "stack": {"name": "stack", "layer": "scan_gru", "features": 4, "num_layers": 3},
}


@pytest.mark.parametrize("what", calls(None, None, None))
@pytest.mark.parametrize("name", EAGER)
def test_the_second_eager_call_compiles_nothing(name, what):
    if (name, what) == ("bidirectional", "step"):
        pytest.skip("it has none")
    layer, again = registry.build(EAGER[name]), registry.build(EAGER[name])
    variables = variables_of(layer, XS)
    start = layer.initialize_carry(None, XS.shape[1:])
    calls(layer, variables, start)[what]()
    with compilations() as found:
        calls(layer, variables, start)[what]()
        # An equal layer is the same program.
        calls(again, variables, start)[what]()
    assert found == []


def test_the_second_eager_call_is_not_traced_again():
    traced = []

    def gate(x):
        traced.append(x.shape)
        return jax.nn.sigmoid(x)

    layer = registry.build("scan_gru", features=4, gate_fn=gate)
    variables = layer.init(jax.random.key(0), None, XS)
    layer.apply(variables, None, XS)
    assert traced
    traced.clear()
    layer.apply(variables, None, XS)
    layer.clone().apply(variables, None, XS)
    assert not traced


def test_a_compiled_call_is_traced_once_for_its_shapes():
    layer = registry.build("scan_gru", features=4)
    variables = variables_of(layer, XS)
    apply = jax.jit(layer.apply)
    for xs in (XS, XS + 1, 2 * XS):
        apply(variables, None, xs)
    assert apply._cache_size() == 1


def sizes_of_products(compiled):
    """The number of elements that every matrix product of a compiled function makes."""
    shapes = re.findall(r"= \w+\[([\d,]*)\]\S* dot\(", compiled.as_text())
    return [math.prod(map(int, shape.split(","))) for shape in shapes]


@pytest.mark.parametrize("implementation", ["fused", "scan"])
def test_what_is_not_differentiated_is_not_worked_for(implementation):
    """Of all products, only those that make gradients by xs have a multiple of D but not of H."""
    batch, inputs, features = 7, 11, 13
    layer = registry.build("scan_gru", features=features, implementation=implementation)
    xs = some((5, batch, inputs))
    variables = variables_of(layer, xs)

    def loss(variables, xs):
        return jnp.sum(layer.apply(variables, None, xs)[1])

    def by_xs(argnums):
        compiled = jax.jit(jax.grad(loss, argnums=argnums)).lower(variables, xs).compile()
        sizes = sizes_of_products(compiled)
        assert any(size % features == 0 for size in sizes)
        return [size for size in sizes if size % inputs == 0 and size % features]

    assert by_xs((0, 1)) and not by_xs(0)


@pytest.mark.usefixtures("full_compilation")
def test_chunks_of_64_steps_keep_memory_low():
    """T=4096, B=32, H=128: every carry alone would be 67 MB, all gates 268 MB."""
    layer = registry.build("scan_gru", features=128, checkpoint_every=64)
    xs = jax.ShapeDtypeStruct((4096, 32, 128), jnp.float32)
    variables = jax.eval_shape(layer.init, jax.random.key(0), None, xs)

    def loss(variables, xs):
        return jnp.sum(layer.apply(variables, None, xs)[0])

    compiled = jax.jit(jax.grad(loss)).lower(variables, xs).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= 80e6


@pytest.mark.parametrize("name", ["scan_gru", "scan_lstm"])
def test_init_runs_nothing_over_time(name):
    layer = registry.build(name, features=4)
    key = jax.random.key(0)
    layer.init(key, None, jnp.zeros((1, 2, 3)))
    xs = jnp.zeros((10_000, 2, 3))
    with compilations() as found:
        layer.init(key, None, xs)
    assert found == []


def least_processor_time(*runs, repeats):
    """Seconds of processor time of each, taken in turns, so that what else runs does not count."""
    found = [[] for _ in runs]
    for _ in range(repeats):
        for run, times in zip(runs, found, strict=True):
            start = time.process_time()
            jax.block_until_ready(run())
            times.append(time.process_time() - start)
    return [min(times) for times in found]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scan_gru", "scan_lstm", "stack"])
def test_init_takes_as_long_for_any_number_of_steps(name):
    build = COMPOSITES.get(name, lambda: registry.build(name, features=64))
    layer, key = build(), jax.random.key(0)

    def initialising(steps):
        xs = jnp.zeros((steps, 4, 64))
        return lambda: layer.init(key, None, xs)

    few, many = least_processor_time(initialising(1), initialising(10_000), repeats=5)
    assert many < 1.5 * few + 0.05


@pytest.mark.slow
@pytest.mark.usefixtures("full_compilation")
@pytest.mark.parametrize("what", ["forward", "gradient"])
@pytest.mark.parametrize("implementation", ["fused", "scan"])
def test_many_steps_compile_as_fast_as_few(implementation, what):
    layer = registry.build("scan_gru", features=32, implementation=implementation)
    xs = jax.ShapeDtypeStruct((64, 8, 16), jnp.float32)
    variables = jax.eval_shape(layer.init, jax.random.key(0), None, xs)

    def loss(variables, xs):
        return jnp.sum(layer.apply(variables, None, xs)[1])

    def compiling(steps):
        def run():
            xs = jax.ShapeDtypeStruct((steps, 8, 16), jnp.float32)
            function = loss if what == "forward" else jax.grad(loss)
            jax.clear_caches()
            return jax.jit(function).lower(variables, xs).compile() and 0

        return run

    few, many = least_processor_time(compiling(16), compiling(2048), repeats=4)
    assert many < 1.5 * few
