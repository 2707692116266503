"""Products that XLA:CPU is brought to spread over its cores."""

import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import registry
from zoo.recurrent.engine.spread import spread_dot, spreads

from .layers import some, variables_of

A, KERNEL = some((2, 3, 4), seed=1), some((4, 5), seed=2)
WIDE, STACK = some((3, 2, 4), seed=3), some((2, 4, 5), seed=4)

ON_CPU = pytest.mark.skipif(jax.default_backend() != "cpu", reason="how XLA compiles for CPU")


def plain(a, kernel):
    return jnp.tensordot(a, kernel, 1)


def spread(a, kernel):
    return spread_dot(a, kernel)


def test_it_is_a_product():
    expected = np.tensordot(np.float64(A), np.float64(KERNEL), 1)
    np.testing.assert_allclose(spread_dot(A, KERNEL), expected, rtol=1e-5, atol=1e-6)
    expected = np.tensordot(np.float64(WIDE), np.float64(STACK), 2)
    np.testing.assert_allclose(spread_dot(WIDE, STACK, 2), expected, rtol=1e-5, atol=1e-6)


MODES = {
    "call": lambda f: f(A, KERNEL),
    "jit": lambda f: jax.jit(f)(A, KERNEL),
    "grad": lambda f: jax.grad(lambda *args: jnp.sum(jnp.sin(f(*args))), (0, 1))(A, KERNEL),
    "jvp": lambda f: jax.jvp(f, (A, KERNEL), (A + 1, KERNEL + 1)),
    "grad of grad": lambda f: jax.grad(
        lambda a: jnp.sum(jnp.sin(jax.grad(lambda a: jnp.sum(jnp.sin(f(a, KERNEL))))(a)))
    )(A),
    "vmap of vectors": lambda f: jax.vmap(f, (1, None))(A, KERNEL),
    "vmap of kernels": lambda f: jax.vmap(f, (None, 0))(A, jnp.stack([KERNEL, -KERNEL])),
    "vmap of both": lambda f: jax.vmap(f)(A, jnp.stack([KERNEL, -KERNEL])),
    "vmap of grad": lambda f: jax.vmap(jax.grad(lambda *args: jnp.sum(jnp.sin(f(*args)))))(
        A, jnp.stack([KERNEL, -KERNEL])
    ),
}


@pytest.mark.parametrize("mode", MODES)
def test_it_transforms_as_a_product_does(mode):
    pairs = zip(*(jax.tree.leaves(MODES[mode](f)) for f in (spread, plain)), strict=True)
    for got, expected in pairs:
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@ON_CPU
def test_xla_makes_a_dot_of_it_again():
    a, kernel = jnp.ones((128, 64)), jnp.ones((64, 192))
    compiled = jax.jit(spread_dot).lower(a, kernel).compile().as_text()
    assert " dot(" in compiled and "convolution(" not in compiled
    # A fusion is run by the library that leaves it to one core.
    assert "fusion(" not in compiled


def test_elsewhere_it_is_a_plain_dot():
    exported = jax.export.export(jax.jit(spread_dot), platforms=["cuda"])(A, KERNEL)
    assert "dot_general" in exported.mlir_module()
    assert "convolution" not in exported.mlir_module()


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        pytest.param(((128, 64), (64, 3, 64)), True, id="a batch of 128"),
        pytest.param(((127, 64), (64, 3, 64)), False, id="a smaller batch"),
        pytest.param(((16, 128, 64), (64, 3, 64)), True, id="all steps of a block"),
        pytest.param(((128, 129), (129, 3, 128)), False, id="more features"),
        pytest.param(((128, 32), (32, 2, 32)), False, id="small kernels"),
        pytest.param(((32, 384), (384, 128)), True, id="the way back"),
        pytest.param(((16, 384), (384, 128)), False, id="the way back of a small batch"),
        pytest.param(((64, 768), (768, 256)), False, id="the way back of many features"),
        pytest.param(((64, 16, 384), (384, 128)), False, id="the way back of all steps"),
    ],
)
def test_where_it_pays(shapes, expected):
    a, kernel = map(jnp.zeros, shapes)
    assert spreads(a, kernel, 1, None) is expected


def test_where_it_never_does():
    a, kernel = jnp.zeros((128, 64)), jnp.zeros((64, 192))
    assert spreads(a, kernel, 1, jax.lax.Precision.HIGHEST)
    assert not spreads(a, kernel, 1, "BF16_BF16_F32")
    with jax.default_matmul_precision("BF16_BF16_F32"):
        assert not spreads(a, kernel, 1, None)
    for dtype in (jnp.bfloat16, jnp.float16):
        assert not spreads(a.astype(dtype), kernel.astype(dtype), 1, None)
    with jax.enable_x64(True):
        assert not spreads(a.astype(jnp.float64), kernel.astype(jnp.float64), 1, None)


@pytest.mark.parametrize("name", ["scan_gru", "scan_lstm"])
@pytest.mark.parametrize("implementation", ["scan", "fused"])
@pytest.mark.parametrize("population", [False, True])
def test_layers_that_use_it(name, implementation, population):
    """A batch of 128 forward; 32 gates of 128 on the way back."""
    xs = some((3, 128, 64), seed=1)
    layer = registry.build(name, features=128, implementation=implementation)
    variables = variables_of(layer, xs)

    def loss(variables, xs, layer=layer):
        return jnp.mean(jnp.sin(layer.apply(variables, None, xs)[1]))

    differentiate = jax.value_and_grad(loss, (0, 1))
    if population:
        variables = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x]), variables)
        differentiate = jax.vmap(differentiate, (0, None))
    lowered = jax.jit(differentiate).lower(variables, xs)
    spread = "stablehlo.convolution" in lowered.as_text()
    assert spread == (jax.default_backend() == "cpu" and not population)
    results = lowered.compile()(variables, xs)

    with jax.enable_x64(True):
        exact = layer.clone(param_dtype=jnp.float64, carry_dtype=jnp.float64)
        arguments = jax.tree.map(lambda x: x.astype(jnp.float64), (variables, xs))
        single = jax.jit(jax.value_and_grad(lambda *args: loss(*args, exact), (0, 1)))
        if population:
            variables, xs = arguments
            of_one = [jax.tree.map(operator.itemgetter(i), variables) for i in range(2)]
            singles = [single(one, xs) for one in of_one]
            expected = jax.tree.map(lambda *parts: jnp.stack(parts), *singles)
        else:
            expected = single(*arguments)
    for a, b in zip(*map(jax.tree.leaves, (results, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())
