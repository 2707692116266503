"""All implementations against a NumPy loop and against each other, values and gradients."""

import importlib.util
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.recurrent.engine import fused
from zoo.recurrent.engine import reference as plain
from zoo.recurrent.engine.products import Arithmetic, small_weights, stack_kernels
from zoo.recurrent.engine.step import Step
from zoo.recurrent.layers.lstm import LSTM

from . import reference
from .layers import HEADS, LEAVES, assert_close, some, variables_of

T, B, D = 7, 3, 2
LENGTHS = np.array([7, 0, 4], np.int32)
MASK = np.random.default_rng(0).random((T, B)) < 0.8
RESETS = np.random.default_rng(1).random((T, B)) < 0.3


def leaves_of(carry):
    return carry if isinstance(carry, tuple) else (carry,)


def value_and_gradients(layer, **conditions):
    def loss(variables, start, xs):
        carry, ys = layer.apply(variables, start, xs, **conditions)
        return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves((carry, ys))), (carry, ys)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))


def inputs_of(leaf, dtype):
    layer = leaf.build(param_dtype=dtype, carry_dtype=dtype)
    xs = some((T, B, D), 2, dtype)
    variables = jax.tree.map(lambda x: x.astype(dtype), variables_of(layer, xs))
    start = jax.tree.map(
        lambda x: some(x.shape, 3, x.dtype), layer.initialize_carry(None, xs.shape[1:])
    )
    if leaf.name == "scan_slstm":
        # What is divided by.
        start = (start[0], 1 + jnp.abs(start[1]), *start[2:])
    return variables, start, xs


def leaves_with_slow(quick):
    """All leaf layers, those whose equations others cover marked as slow."""
    return [
        pytest.param(leaf, id=name, marks=[] if name in quick else [pytest.mark.slow])
        for name, leaf in (LEAVES | HEADS).items()
    ]


@pytest.mark.parametrize(
    "leaf",
    leaves_with_slow(("simplified gru", "lstm projected", "slstm", "gru with heads")),
)
def test_float64_with_all_conditions(leaf):
    """Reversed for half of the layers: the other half is forwards."""
    reverse = list((LEAVES | HEADS).values()).index(leaf) % 2 == 1
    conditions = {"seq_lengths": LENGTHS, "mask": MASK, "resets": RESETS}
    with jax.enable_x64(True):
        variables, start, xs = inputs_of(leaf, jnp.float64)
        results = []
        for implementation in leaf.implementations:
            layer = leaf.build(
                implementation=implementation,
                reverse=reverse,
                param_dtype=jnp.float64,
                carry_dtype=jnp.float64,
            )
            results.append(value_and_gradients(layer, **conditions)(variables, start, xs))
        wanted = reference.run(
            leaf.step, variables["params"], xs, leaves_of(start), reverse=reverse, **conditions
        )
        for (_, (carry, ys)), _ in results:
            assert ys.dtype == jnp.float64
            assert_close((leaves_of(carry), ys), (wanted.carry, wanted.ys), 1e-10)
        for _, gradients in results[1:]:
            assert_close(gradients, results[0][1], 1e-10)


def _with_jax():
    """The equations of ``reference`` with JAX in the place of NumPy, to be differentiated."""
    spec = importlib.util.find_spec(reference.__name__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.np = jnp
    return module


@pytest.mark.parametrize("leaf", leaves_with_slow(("slstm",)))
def test_gradients_of_a_plain_loop(leaf):
    """Every gradient in float64 and in float32, against a loop that shares no code with layers."""
    if (leaf.step.__module__, leaf.step.__name__) == (reference.__name__, "step"):
        pytest.skip("the layer has no equation of its own among the references")
    module = _with_jax()
    equation = getattr(module, leaf.step.__name__)

    def loss(variables, start, xs):
        carry, total = leaves_of(start), 0.0
        for x in xs:
            carry = equation(variables["params"], carry, x)
            y = module.put_out(equation, variables["params"], carry, x)
            total += jnp.sum(jnp.sin(y))
        return total + sum(jnp.sum(jnp.sin(x)) for x in carry)

    with jax.enable_x64(True):
        exact = inputs_of(leaf, jnp.float64)
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            wanted = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*exact)
        for dtype, tolerance in ((jnp.float64, 1e-10), (jnp.float32, 1e-5)):
            given = jax.tree.map(lambda x, dtype=dtype: x.astype(dtype), exact)
            for implementation in leaf.implementations:
                layer = leaf.build(
                    implementation=implementation, param_dtype=dtype, carry_dtype=dtype
                )
                _, gradients = value_and_gradients(layer)(*given)
                for a, b in zip(*map(jax.tree.leaves, (gradients, wanted)), strict=True):
                    allowed = tolerance * (1 + np.abs(b).max())
                    # Dividing by a small deviation enlarges what was rounded.
                    allowed *= 10 if "layer_norm" in leaf.name else 1
                    np.testing.assert_allclose(a, b, rtol=0, atol=allowed)


@pytest.mark.parametrize("leaf", leaves_with_slow(("gru",)))
def test_float32(leaf):
    variables, start, xs = inputs_of(leaf, jnp.float32)
    results = [
        value_and_gradients(leaf.build(implementation=name))(variables, start, xs)
        for name in leaf.implementations
    ]
    wanted = reference.run(leaf.step, variables["params"], xs, leaves_of(start))
    for (_, (carry, ys)), _ in results:
        assert_close((leaves_of(carry), ys), (wanted.carry, wanted.ys), 1e-6)
    # Dividing by a small deviation enlarges what was rounded.
    tolerance = 1e-4 if "layer_norm" in leaf.name else 1e-5
    for _, gradients in results[1:]:
        for a, b in zip(*map(jax.tree.leaves, (gradients, results[0][1])), strict=True):
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())


PLANS = [
    pytest.param(keep, length, reverse, id=f"{keep}-{length}-{'back' if reverse else 'ahead'}")
    for keep, length, reverse in itertools.product(
        ("products", "carries", "blocks"), (1, 3, 7), (False, True)
    )
]
# One length, in every way of keeping, is enough for every day; 3 does not divide 7.
PLANS = [
    p if p.values[1] == 3 else pytest.param(*p.values, id=p.id, marks=pytest.mark.slow)
    for p in PLANS
]


@pytest.fixture(scope="module")
def plain_results():
    """The plain engine on an LSTM with a projection (two products per step), per direction."""
    return {reverse: engine_results(reverse, None) for reverse in (False, True)}


def engine_results(reverse, how):
    with jax.enable_x64(True):
        cell = LSTM(4, projection=3)
        step, arithmetic = Step(cell, jnp.dtype("float64")), Arithmetic(None, jnp.float64)
        weights = {}
        for name, kernel in cell.kernels.items():
            rows = D if kernel.source == "input" else kernel.rows or 3
            weights[name] = {"kernel": some((rows, kernel.width), len(weights), jnp.float64)}
            if kernel.bias:
                weights[name]["bias"] = some((kernel.width,), len(weights), jnp.float64)
        start = some((B, 4), 1, jnp.float64), some((B, 3), 2, jnp.float64)
        fixed = {"initial": (some((B, 4), 4, jnp.float64), some((B, 3), 5, jnp.float64))}
        signals = {"mask": jnp.asarray(MASK), "reset": jnp.asarray(RESETS)}

        def run(weights, fixed, start, xs):
            if how is None:
                plan = plain.Plan(step, arithmetic, reverse)
                return plain.scan(plan, weights, fixed, start, xs, signals)[:2]
            keep, length = how
            plan = fused.Plan(step, arithmetic, reverse, length, keep, length)
            stacks, small = stack_kernels(cell, weights), small_weights(weights)
            return fused.fused(plan, stacks, small, fixed, start, xs, signals)

        def loss(*args):
            out = run(*args)
            return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(out)), out

        differentiate = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True))
        return differentiate(weights, fixed, start, some((T, B, D), 2, jnp.float64))


@pytest.mark.parametrize(("keep", "length", "reverse"), PLANS)
def test_whatever_is_kept_for_the_backward_pass(keep, length, reverse, plain_results):
    got = engine_results(reverse, (keep, length))
    assert_close(got, plain_results[reverse], 1e-10)


@pytest.fixture(scope="module")
def gru_results():
    """A GRU as it is by default."""
    leaf = LEAVES["gru"]
    return value_and_gradients(leaf.build())(*inputs_of(leaf, jnp.float32))


@pytest.mark.parametrize(
    "every", [3, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 7, 100))]
)
@pytest.mark.parametrize("implementation", ["fused", "scan"])
def test_checkpoint_every_changes_no_value(implementation, every, gru_results):
    leaf = LEAVES["gru"]
    layer = leaf.build(implementation=implementation, checkpoint_every=every)
    (_, outputs), gradients = value_and_gradients(layer)(*inputs_of(leaf, jnp.float32))
    (_, wanted), expected = gru_results
    assert_close(outputs, wanted, 1e-6)
    assert_close(gradients, expected, 1e-5)


@pytest.mark.parametrize(
    ("implementation", "reverse"),
    [
        pytest.param("fused", True, id="fused-back"),
        pytest.param("scan", False, id="scan-ahead"),
        pytest.param("fused", False, id="fused-ahead", marks=pytest.mark.slow),
        pytest.param("scan", True, id="scan-back", marks=pytest.mark.slow),
    ],
)
def test_truncate_every_is_chunking_with_stop_gradient(implementation, reverse, gru_results):
    leaf, every = LEAVES["gru"], 3
    variables, start, xs = inputs_of(leaf, jnp.float32)
    whole = leaf.build(implementation=implementation, reverse=reverse)
    cut = leaf.build(implementation=implementation, reverse=reverse, truncate_every=every)

    def by_hand(variables, start, xs):
        # Chunks are counted from where the run begins: the end, when it is reversed.
        order = xs[::-1] if reverse else xs
        carry, ys = start, []
        for begin in range(0, T, every):
            part = order[begin : begin + every]
            if begin:
                carry = jax.lax.stop_gradient(carry)
            carry, y = whole.apply(variables, carry, part[::-1] if reverse else part)
            ys.append(y[::-1] if reverse else y)
        ys = jnp.concatenate(ys)
        outputs = carry, ys[::-1] if reverse else ys
        return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(outputs)), outputs

    differentiate = jax.jit(jax.value_and_grad(by_hand, argnums=(0, 1, 2), has_aux=True))
    (_, wanted), expected = differentiate(variables, start, xs)
    (_, outputs), gradients = value_and_gradients(cut)(variables, start, xs)
    assert_close(outputs, wanted, 1e-6)
    assert_close(gradients, expected, 1e-5)
    if not reverse:
        (_, uncut), untruncated = gru_results
        assert_close(outputs, uncut, 1e-6)
        assert np.abs(gradients[1] - untruncated[1]).max() > 1e-4


@pytest.mark.parametrize("unroll", [2, 100])
@pytest.mark.parametrize("implementation", ["fused", "scan"])
def test_unroll_changes_no_value(implementation, unroll, gru_results):
    leaf = LEAVES["gru"]
    layer = leaf.build(implementation=implementation, unroll=unroll)
    assert_close(layer.apply(*inputs_of(leaf, jnp.float32)), gru_results[0][1])


@pytest.mark.parametrize("options", [{"gate_fn": "hard_sigmoid"}, {"activation_fn": "relu"}])
def test_activations_by_name_and_by_function(options, gru_results):
    leaf = LEAVES["gru"]
    variables, start, xs = inputs_of(leaf, jnp.float32)
    functions = {name: getattr(jax.nn, value) for name, value in options.items()}
    got = leaf.build(**options).apply(variables, start, xs)
    assert_close(got, leaf.build(**functions).apply(variables, start, xs))
    assert np.abs(got[1] - gru_results[0][1][1]).max() > 1e-3
