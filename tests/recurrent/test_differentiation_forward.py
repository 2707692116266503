"""Forward mode, alone and mixed with reverse mode: the fused engine as the plain one."""

import jax
import jax.numpy as jnp
import pytest

from zoo.recurrent import unstable

from .layers import STRUCTURES, assert_close, some, variables_of

CONDITIONS = {
    "plain": {},
    "lengths and resets": {
        "seq_lengths": jnp.array([5, 0, 3]),
        "resets": jnp.zeros((5, 3), bool).at[2].set(True),
    },
}
OPTIONS = {
    "as built": {},
    "checkpointed": {"checkpoint_every": 3},
    "reversed": {"reverse": True, "checkpoint_every": 3},
}


def rises(loss, along):
    return lambda *at: jax.jvp(loss, at, along)[1]


def along_two(loss, v, x, dv, dx):
    return jax.vmap(lambda x: jax.jvp(loss, (v, x), (dv, dx)))(jnp.stack([x, 2 * x]))


def of_two_inputs(loss, v, x):
    return jnp.sum(jax.vmap(loss, (None, 1))(v, jnp.stack([x, 2 * x], 1)))


def in_a_loop(loss, v, x):
    xs = jnp.stack([x, 2 * x])
    return jax.lax.scan(lambda total, x: (total + loss(v, x), None), 0.0 * x[0, 0, 0], xs)[0]


MODES = {
    "jvp": lambda f, v, x, *d: jax.jvp(f, (v, x), d),
    "jvp by inputs alone": lambda f, v, x, _, dx: jax.jvp(lambda x: f(v, x), (x,), (dx,)),
    "jacfwd": lambda f, v, x, *d: jax.jacfwd(f, 1)(v, x),
    "linearize": lambda f, v, x, *d: jax.linearize(f, v, x)[1](*d),
    "jvp of grad": lambda f, v, x, *d: jax.jvp(jax.grad(f, (0, 1)), (v, x), d),
    "grad of jvp": lambda f, v, x, *d: jax.grad(rises(f, d), (0, 1))(v, x),
}
MORE_MODES = {
    "jvp of jvp": lambda f, v, x, *d: jax.jvp(rises(f, d), (v, x), d),
    "grad by the tangent": lambda f, v, x, *d: jax.grad(
        lambda *d: jax.jvp(f, (v, x), d)[1], (0, 1)
    )(*d),
    "jacfwd of jacfwd": lambda f, v, x, *d: jax.jacfwd(jax.jacfwd(f, 1), 1)(v, x),
    "vmap of jvp": along_two,
    "jvp of vmap": lambda f, v, x, *d: jax.jvp(lambda *at: of_two_inputs(f, *at), (v, x), d),
    "grad of vmap": lambda f, v, x, *d: jax.grad(lambda *at: of_two_inputs(f, *at), (0, 1))(v, x),
    "jvp of a loop": lambda f, v, x, *d: jax.jvp(lambda *at: in_a_loop(f, *at), (v, x), d),
    "jvp of checkpoint": lambda f, v, x, *d: jax.jvp(jax.checkpoint(f), (v, x), d),
}


def assert_as_plain(leaf, mode, compiled, conditions, **options):
    with jax.enable_x64(True):
        xs = some((5, 3, 2), 0, jnp.float64)
        found = []
        for implementation in STRUCTURES[leaf].implementations:
            layer = STRUCTURES[leaf].build(
                implementation=implementation,
                param_dtype=jnp.float64,
                carry_dtype=jnp.float64,
                learned_carry=True,
                **options,
            )
            variables = variables_of(layer, xs)

            def loss(variables, xs, layer=layer):
                carry, ys = layer.apply(variables, None, xs, **conditions)
                return jnp.sum(jnp.sin(ys)) + sum(jnp.sum(jnp.cos(x)) for x in carry)

            along = (
                jax.tree.map(lambda x: some(x.shape, 3, x.dtype), variables),
                some(xs.shape, 4, xs.dtype),
            )

            def differentiate(loss=loss, variables=variables, along=along):
                return mode(loss, variables, xs, *along)

            found.append(jax.jit(differentiate)() if compiled else differentiate())
        expected, *others = found
        assert max(jnp.abs(x).max() for x in jax.tree.leaves(expected)) > 1e-3
        for got in others:
            assert_close(got, expected, 1e-9)


def some_slow(names, quick):
    return [pytest.param(n, marks=[] if n in quick else [pytest.mark.slow]) for n in names]


@pytest.mark.parametrize("conditions", CONDITIONS)
@pytest.mark.parametrize("compiled", [True])
@pytest.mark.parametrize("mode", some_slow(MODES, ("jvp", "grad of jvp")))
@pytest.mark.parametrize("leaf", some_slow(STRUCTURES, ("gru",)))
def test_every_layer(leaf, mode, compiled, conditions):
    assert_as_plain(leaf, MODES[mode], compiled, CONDITIONS[conditions])


@pytest.mark.parametrize("options", some_slow(OPTIONS, ("reversed",)))
@pytest.mark.parametrize("mode", some_slow(MORE_MODES, ("jvp of jvp", "grad of vmap")))
def test_modes_of_modes(mode, options):
    conditions = CONDITIONS["lengths and resets"]
    assert_as_plain("gru", MORE_MODES[mode], True, conditions, **OPTIONS[options])


@pytest.mark.parametrize("options", some_slow(OPTIONS, ()))
@pytest.mark.parametrize("mode", MORE_MODES)
def test_modes_of_modes_of_a_linear_recurrence(mode, options):
    conditions = CONDITIONS["lengths and resets"]
    assert_as_plain("s5", MORE_MODES[mode], True, conditions, **OPTIONS[options])


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("mode", ["jvp", "grad of jvp"])
def test_every_cut_of_time(mode, options):
    assert_as_plain("lstm projected", MODES[mode], True, {}, **OPTIONS[options])


@pytest.mark.parametrize("drop", [jax.lax.stop_gradient, jnp.argmax])
@pytest.mark.parametrize("implementation", ["fused", "scan"])
def test_a_tangent_that_is_dropped(implementation, drop):
    xs = some((5, 3, 2))
    layer = STRUCTURES["gru"].build(implementation=implementation)
    variables = variables_of(layer, xs)

    def value(xs):
        return drop(layer.apply(variables, None, xs)[1])

    got, tangent = jax.jvp(value, (xs,), (jnp.ones_like(xs),))
    assert_close(got, value(xs))
    assert tangent.dtype == jax.dtypes.float0 or not jnp.any(tangent)


def test_reverse_mode_works_without_the_operation(monkeypatch):
    find = unstable.find
    gone = "jax.extend.core:Primitive"
    monkeypatch.setattr(unstable, "find", lambda path: None if path == gone else find(path))
    jax.clear_caches()
    try:
        layer = STRUCTURES["gru"].build(implementation="fused")
        xs = some((5, 3, 2))
        variables = variables_of(layer, xs)

        def loss(xs):
            return jnp.sum(layer.apply(variables, None, xs)[1])

        assert jnp.any(jax.grad(loss)(xs))
        with pytest.raises(TypeError, match="custom_vjp"):
            jax.jvp(loss, (xs,), (xs,))
    finally:
        jax.clear_caches()
