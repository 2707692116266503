"""The dtype policy: what comes out for every dtype of inputs, products, parameters and carries."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import registry

from . import reference
from .layers import some, variables_of

HALVES = (jnp.bfloat16, jnp.float16)
ALL = (jnp.float32, *HALVES, jnp.float64)
NAMES = {
    "scan_gru": {"implementation": "fused"},
    "scan_lstm": {"implementation": "scan", "projection": 3},
    "scan_layer_norm_gru": {},
}
XS = some((4, 2, 3))


def word(dtype):
    return "None" if dtype is None else jnp.dtype(dtype).name


WORDS = ("xs", "dtype", "param_dtype", "carry_dtype", "carry given")
PRODUCT = list(itertools.product(ALL, (None, *ALL), ALL, ALL, (None, *ALL)))
# One in 29 of them still has every pair of settings.
SOME = PRODUCT[::29]


def test_the_product_is_whole_and_its_part_has_every_pair():
    assert len(PRODUCT) == len(set(PRODUCT)) == 4 * 5 * 4 * 4 * 5

    def pairs(cases):
        places = list(itertools.combinations(range(len(WORDS)), 2))
        return {(i, j, case[i], case[j]) for case in cases for i, j in places}

    assert pairs(SOME) == pairs(PRODUCT)


def promised(given, dtype, param_dtype):
    """The dtype of ys."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.dtype(dtype or jnp.result_type(given, param_dtype))


def differentiated(layer):
    """Gradients by variables, carry and xs, and (carry, ys), of a float32 loss."""

    def loss(variables, start, xs):
        outputs = layer.apply(variables, start, xs)
        parts = jax.tree.map(lambda x: jnp.sum(x.astype(jnp.float32)), outputs)
        return sum(jax.tree.leaves(parts)), outputs

    return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)


def keeps_dtypes(name, case, gradients):
    given, dtype, param_dtype, carry_dtype, start_dtype = case
    options = {"dtype": dtype, "param_dtype": param_dtype, "carry_dtype": carry_dtype}
    layer = registry.build(name, features=4, **options, **NAMES[name])
    xs = jax.ShapeDtypeStruct(XS.shape, given)
    variables = jax.eval_shape(layer.init, jax.random.key(0), None, xs)
    start = None
    if start_dtype is not None:
        spec = layer.carry_spec(XS.shape[1:])
        start = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, start_dtype), spec)
    for leaf in jax.tree.leaves(variables):
        assert leaf.dtype == param_dtype
    ours = (variables, start, xs)
    if gradients:
        found, (carry, ys) = jax.eval_shape(differentiated(layer), *ours)
        for gradient, own in zip(jax.tree.leaves(found), jax.tree.leaves(ours), strict=True):
            assert gradient.dtype == own.dtype
    else:
        carry, ys = jax.eval_shape(layer.apply, *ours)
    assert ys.dtype == promised(given, dtype, param_dtype)
    for leaf in jax.tree.leaves(carry):
        assert leaf.dtype == jnp.dtype(carry_dtype)


def all_keep_dtypes(name, cases, gradients=False):
    with jax.enable_x64(True):
        for case in cases:
            try:
                keeps_dtypes(name, case, gradients)
            except Exception as error:
                settings = dict(zip(WORDS, map(word, case), strict=True))
                raise AssertionError(f"{name} with {settings}: {error}") from error


@pytest.mark.parametrize("name", ["scan_gru", "scan_lstm"])
def test_some_combinations_have_the_promised_dtypes(name):
    all_keep_dtypes(name, SOME)
    all_keep_dtypes(name, SOME[::8], gradients=True)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "every"), [("scan_gru", 1), ("scan_layer_norm_gru", 11)])
def test_every_combination_has_the_promised_dtypes(name, every):
    all_keep_dtypes(name, PRODUCT[::every])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "every"), [("scan_gru", 3), ("scan_lstm", 7)])
def test_gradients_have_the_dtypes_of_what_they_are_by(name, every):
    """Without a given carry, which is cast before anything else."""
    all_keep_dtypes(name, [case for case in PRODUCT if case[-1] is None][::every], gradients=True)
    all_keep_dtypes(name, SOME, gradients=True)


# Of the narrowest dtype in a combination.
TOLERANCES = {"bfloat16": 0.08, "float16": 0.01, "float32": 1e-5, "float64": 1e-12}


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["fused", "scan"])
def test_combinations_compute_the_same(implementation):
    full, _ = wanted()
    with jax.enable_x64(True):
        for given, dtype, param_dtype, carry_dtype, _ in SOME:
            options = {"dtype": dtype, "param_dtype": param_dtype, "carry_dtype": carry_dtype}
            layer = registry.build("scan_gru", features=4, implementation=implementation, **options)
            variables = jax.tree.map(lambda x, to=param_dtype: x.astype(to), full)
            xs = XS.astype(given)
            carry, ys = layer.apply(variables, None, xs)
            expected = reference.run(reference.gru, variables["params"], xs, (np.zeros((2, 4)),))
            used = (given, param_dtype, carry_dtype, promised(given, dtype, param_dtype))
            narrowest = max(used, key=lambda one: float(jnp.finfo(one).eps))
            tolerance = TOLERANCES[word(narrowest)]
            what = f"{options}, implementation={implementation}, xs in {word(given)}"
            for got, by_loop in ((ys, expected.ys), (carry, expected.carry[0])):
                np.testing.assert_allclose(
                    np.float64(got), by_loop, rtol=0, atol=tolerance, err_msg=what
                )


# (xs, dtype, param_dtype, carry_dtype), tolerance
RUNS = [
    ((jnp.bfloat16, None, jnp.bfloat16, jnp.float32), 0.05),
    ((jnp.float32, jnp.bfloat16, jnp.float32, jnp.bfloat16), 0.08),
    ((jnp.float16, jnp.float16, jnp.float16, jnp.float32), 0.01),
    ((jnp.float16, None, jnp.float32, jnp.float32), 0.01),
]


@functools.cache
def wanted():
    layer = registry.build("scan_gru", features=4)
    variables = variables_of(layer, XS)
    start = (np.zeros((2, 4)),)
    return variables, reference.run(reference.gru, variables["params"], XS, start)


@pytest.mark.parametrize(("case", "tolerance"), RUNS, ids=["half", "mixed", "float16", "inputs"])
@pytest.mark.parametrize("implementation", ["fused", "scan"])
def test_values_and_gradients_in_half_precision(implementation, case, tolerance):
    given, dtype, param_dtype, carry_dtype = case
    layer = registry.build(
        "scan_gru",
        features=4,
        dtype=dtype,
        param_dtype=param_dtype,
        carry_dtype=carry_dtype,
        implementation=implementation,
    )
    full, expected = wanted()
    variables = jax.tree.map(lambda x: x.astype(param_dtype), full)

    def loss(variables, xs):
        carry, ys = layer.apply(variables, None, xs)
        return jnp.sum(ys.astype(jnp.float32)), (carry, ys)

    differentiate = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (_, (carry, ys)), gradients = differentiate(variables, XS.astype(given))
    assert carry.dtype == carry_dtype
    np.testing.assert_allclose(np.float64(ys), expected.ys, atol=tolerance)
    np.testing.assert_allclose(np.float64(carry), expected.carry[0], atol=tolerance)
    for leaf, like in zip(
        jax.tree.leaves(gradients), jax.tree.leaves((variables, XS.astype(given))), strict=True
    ):
        assert leaf.dtype == like.dtype
        assert np.isfinite(np.float64(leaf)).all()


@pytest.mark.parametrize("param_dtype", HALVES, ids=word)
def test_half_precision_parameters_are_those_of_float32_rounded(param_dtype):
    full = registry.build("scan_gru", features=4).init(jax.random.key(0), None, XS)
    half = registry.build("scan_gru", features=4, param_dtype=param_dtype)
    variables = half.init(jax.random.key(0), None, XS)
    for a, b in zip(jax.tree.leaves(variables), jax.tree.leaves(full), strict=True):
        assert a.dtype == param_dtype
        np.testing.assert_array_equal(a, b.astype(param_dtype))


@pytest.mark.parametrize("name", ["stack", "bidirectional"])
def test_composites_in_half_precision(name):
    options = {"stack": {"num_layers": 2}, "bidirectional": {}}[name]
    layer = registry.build(name, layer="scan_lstm", features=4, dtype=jnp.bfloat16, **options)
    variables = jax.eval_shape(layer.init, jax.random.key(0), None, XS)
    carry, ys = jax.eval_shape(layer.apply, variables, None, XS.astype(jnp.float16))
    assert ys.dtype == jnp.bfloat16
    assert {x.dtype.name for x in jax.tree.leaves(carry)} == {"float32"}


def test_float64_names_mean_float32_without_x64():
    layer = registry.build(
        "scan_gru", features=4, dtype="float64", carry_dtype=np.float64, param_dtype=jnp.float32
    )
    variables = layer.init(jax.random.key(0), None, XS)
    carry, ys = layer.apply(variables, None, XS)
    assert ys.dtype == carry.dtype == jnp.float32


def test_what_overflows_in_half_precision_stays_before_its_reset():
    """1e6 is finite in float32 and infinite in float16."""
    layer = registry.build("scan_gru", features=4, dtype=jnp.float16)
    variables = layer.init(jax.random.key(0), None, XS)
    resets = jnp.zeros((4, 2), bool).at[2].set(True)

    def loss(variables, xs):
        ys = layer.apply(variables, None, xs, resets=resets)[1]
        return jnp.sum(ys[2:].astype(jnp.float32))

    clean = jax.grad(loss)(variables, XS)
    spoilt = jax.grad(loss)(variables, XS.at[1].set(1e6))
    for a, b in zip(jax.tree.leaves(spoilt), jax.tree.leaves(clean), strict=True):
        np.testing.assert_array_equal(a, b)
