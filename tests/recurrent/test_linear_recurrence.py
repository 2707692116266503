"""``linear_recurrence`` of elements that somebody brings: values, derivatives, resets, errors."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.rows import rows
from zoo.recurrent import functional
from zoo.recurrent.functional import linear_recurrence

from .layers import assert_close, assert_same, finite, some

T, B, H = 6, 3, 2
RESETS = np.random.default_rng(1).random((T, B)) < 0.4
WAYS = ("loop", "tree")


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    monkeypatch.setattr(functional, "fastest", lambda _: request.param)
    return request.param


def elements(kind, dtype="float64", steps=T):
    """a of sizes below 1, b and a first h."""
    a, b, h = (some((steps, B, H), seed, dtype) for seed in range(3))
    a = jnp.tanh(a)
    if kind == "complex":
        a, b, h = jax.lax.complex(a, h / 4), jax.lax.complex(b, a), jax.lax.complex(h, b)
    return a, b, h[0]


def by_loop(a, b, initial, resets=None, axis=0, reverse=False):
    """The same with NumPy or with tracers, step by step."""
    a, b = jnp.moveaxis(a, axis, 0), jnp.moveaxis(b, axis, 0)
    first = initial = jnp.zeros_like(b[0]) if initial is None else initial
    h, found = first, [None] * len(b)
    for t in reversed(range(len(b))) if reverse else range(len(b)):
        if resets is not None:
            h = jnp.where(jnp.asarray(resets)[t].reshape((-1, 1)), initial, h)
        h = found[t] = a[t] * h + b[t]
    return jnp.moveaxis(jnp.stack(found), 0, axis)


def size(h):
    return jnp.sum(jnp.sin(h.real) + jnp.cos(2 * h.imag) if jnp.iscomplexobj(h) else jnp.sin(h))


@pytest.mark.parametrize("reset", rows([False, True], [True]))
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_values_and_derivatives(kind, reverse, reset, way):
    with jax.enable_x64(True):
        given = elements(kind)
        resets = jnp.asarray(RESETS) if reset else None

        def ours(a, b, h):
            return size(linear_recurrence(a, b, h, resets=resets, reverse=reverse))

        def wanted(a, b, h):
            return size(by_loop(a, b, h, resets, reverse=reverse))

        got = linear_recurrence(*given, resets=resets, reverse=reverse)
        assert_close(got.real, by_loop(*given, resets, reverse=reverse).real, 1e-12)
        assert_close(got.imag, by_loop(*given, resets, reverse=reverse).imag, 1e-12)
        along = tuple(jnp.cos(x) for x in given)
        modes = {
            "grad": lambda f: jax.grad(f, (0, 1, 2))(*given),
            "jvp": lambda f: jax.jvp(f, given, along)[1],
            "jvp of grad": lambda f: jax.jvp(jax.grad(f, (0, 1, 2)), given, along)[1],
            "grad of jvp": lambda f: jax.grad(lambda *x: jax.jvp(f, x, along)[1], (0, 1, 2))(
                *given
            ),
            "grad of checkpoint": lambda f: jax.grad(jax.checkpoint(f), (0, 1, 2))(*given),
            "vmap": lambda f: jax.vmap(jax.grad(f, (0, 1)), (0, None, None))(
                jnp.stack([given[0], given[0] / 2]), *given[1:]
            ),
        }
        for name, mode in modes.items():
            a, b = (jax.tree.leaves(jax.jit(lambda m=mode, f=f: m(f))()) for f in (ours, wanted))
            for x, y in zip(a, b, strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-10, err_msg=name)


@pytest.mark.parametrize(("axis", "shape"), [(0, (T,)), (1, (B, T, H)), (-1, (B, T)), (-2, (T, 1))])
def test_time_may_be_anywhere(axis, shape, way):
    a, b = jnp.tanh(some(shape)), some(shape, 1)
    one = jnp.moveaxis(b, axis, 0)[0]
    assert_close(linear_recurrence(a, b, axis=axis), by_loop(a, b, None, axis=axis % b.ndim))
    assert_close(linear_recurrence(a, b, one, axis=axis), by_loop(a, b, one, axis=axis % b.ndim))


def test_a_reset_of_every_element_by_itself(way):
    a, b, h = elements("real", "float32")
    resets = np.random.default_rng(3).random((T, B, H)) < 0.4
    got = linear_recurrence(a, b, h, resets=resets)
    for row, feature in itertools.product(range(B), range(H)):
        at = np.s_[:, row, feature]
        alone = linear_recurrence(a[at], b[at], h[row, feature], resets=resets[at])
        assert_close(got[at], alone)


@pytest.mark.parametrize("spoilt", ["a", "b"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_nothing_leaks_across_a_reset(kind, bad, spoilt, way):
    """After it, values and gradients are the same bit for bit; until then its element is NaN."""
    a, b, h = elements(kind, "float32")
    resets = jnp.zeros((T, B), bool).at[3].set(True)
    broken = {
        "a": (a.at[1, 0, 0].set(bad), b, h),
        "b": (a, b.at[1, 0, 0].set(bad), h),
    }[spoilt]

    def loss(a, b, h):
        found = linear_recurrence(a, b, h, resets=resets)
        return size(found[3:]), found

    run = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))
    (_, clean), wanted = run(a, b, h)
    (_, found), got = run(*broken)
    assert_same((found[3:], got), (clean[3:], wanted))
    assert finite((found[3:].real, got[0].real, got[1].imag))
    assert np.isnan(found[1:3, 0, 0]).all()
    assert_same(found[:, :, 1], clean[:, :, 1])


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        (("float32", "float32"), "float32"),
        (("bfloat16", "bfloat16"), "bfloat16"),
        (("bfloat16", "float32"), "float32"),
        (("float32", "complex64"), "complex64"),
        (("float64", "float32"), "float64"),
        (("float64", "complex64"), "complex128"),
    ],
    ids=str,
)
def test_dtypes(dtypes, expected):
    with jax.enable_x64(True):
        a, b = (jnp.full((4,), 0.5, dtype) for dtype in dtypes)
        got = linear_recurrence(a, b)
        assert got.dtype == expected
        np.testing.assert_allclose(
            np.asarray(got, np.complex128), [0.5, 0.75, 0.875, 0.9375], rtol=1e-2
        )


def test_sums_of_half_precision_are_made_in_float32():
    ones = jnp.ones((4000,), jnp.bfloat16)
    assert float(linear_recurrence(ones, ones)[-1]) == 4000.0


@pytest.mark.parametrize("steps", rows([4096, 65536], [4096]))
@pytest.mark.parametrize("memory", [10, 1000, 100_000])
def test_errors_grow_with_the_memory_and_not_with_time(memory, steps, way):
    """A factor is rounded once, and counts for as long as it remembers: 1 / (1 - a) steps."""
    a, b = 1 - 1 / memory, np.random.default_rng(0).standard_normal(steps)
    h, wanted = 0.0, []
    for added in b:
        h = a * h + added
        wanted.append(h)
    found = linear_recurrence(jnp.full((steps,), a, jnp.float32), jnp.asarray(b, jnp.float32))
    rounded = jnp.finfo(jnp.float32).eps * min(memory, steps)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2 * rounded * np.abs(wanted).max())


@pytest.mark.parametrize("shape", [(0,), (0, 3), (4, 0)])
def test_nothing_in_and_nothing_out(shape, way):
    zeros = jnp.zeros(shape)
    assert linear_recurrence(zeros, zeros).shape == shape
    resets = jnp.zeros(shape, bool)
    by_b = jax.grad(lambda b: jnp.sum(linear_recurrence(b, b, resets=resets)))(zeros)
    assert by_b.shape == shape


A = np.ones((T, B, H), np.float32)
WRONG = [
    ((A.tolist(), A), {}, TypeError, "a: expected an array of real or complex"),
    ((A, A.astype(int)), {}, TypeError, "b: expected real or complex numbers"),
    ((A[0], A), {}, ValueError, r"a: expected the shape of b, \(6, 3, 2\)"),
    ((A, A, A), {}, ValueError, r"initial: expected .* \(3, 2\), got \(6, 3, 2\)"),
    ((A, A), {"axis": 3}, ValueError, "axis=3 does not fit b"),
    ((A, A), {"axis": 1.0}, TypeError, "axis: expected an int"),
    ((A[0, 0, 0], A[0, 0, 0]), {}, ValueError, "axis=0 does not fit b"),
    ((A, A), {"resets": A[..., 0]}, TypeError, "resets: expected bool"),
    ((A, A), {"resets": A[0] > 0}, ValueError, r"resets: expected shape \(6, 3, 2\) or \(6, 3\)"),
    (
        (A, A),
        {"resets": A[..., 0] > 0, "axis": 2},
        ValueError,
        r"resets: expected shape \(6, 3, 2\), got",
    ),
]


@pytest.mark.parametrize(("given", "options", "kind", "words"), WRONG)
def test_errors_say_what_was_expected(given, options, kind, words):
    with pytest.raises(kind, match=words):
        linear_recurrence(*given, **options)
