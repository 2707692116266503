"""Differentiation modes: which work, and what those say that do not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import registry

from .layers import assert_close, some, variables_of

XS = some((4, 2, 3))


@functools.cache
def loss_of(implementation):
    layer = registry.build("scan_gru", features=2, implementation=implementation)
    variables = variables_of(layer, XS)

    def loss(xs, variables=variables):
        return jnp.sum(jnp.sin(layer.apply(variables, None, xs)[1]))

    return loss


def in_a_scan(loss):
    def body(total, xs):
        return total + loss(xs), None

    return lambda xs: jax.lax.scan(body, jnp.zeros(()), jnp.stack([xs, 2 * xs]))[0]


def under_cond(loss):
    return lambda xs: jax.lax.cond(jnp.sum(xs) < 1e9, loss, lambda xs: 0 * loss(xs), xs)


REVERSE_MODES = {
    "grad": lambda loss: jax.grad(loss)(XS),
    "jit of grad": lambda loss: jax.jit(jax.grad(loss))(XS),
    "grad of jit": lambda loss: jax.grad(jax.jit(loss))(XS),
    "vmap of grad": lambda loss: jax.vmap(jax.grad(loss))(jnp.stack([XS, 2 * XS])),
    "grad of vmap": lambda loss: jax.grad(lambda xs: jnp.sum(jax.vmap(loss)(xs)))(
        jnp.stack([XS, 2 * XS])
    ),
    "grad of checkpoint": lambda loss: jax.grad(jax.checkpoint(loss))(XS),
    "vmap of grad of jit of checkpoint": lambda loss: jax.vmap(
        jax.grad(jax.jit(jax.checkpoint(loss)))
    )(XS[None]),
    "grad of scan": lambda loss: jax.grad(in_a_scan(loss))(XS),
    "vmap of grad of cond": lambda loss: jax.vmap(jax.grad(under_cond(loss)))(XS[None]),
    "jacrev": lambda loss: jax.jacrev(lambda xs: loss(xs) * jnp.ones(2))(XS),
    "grad of grad": lambda loss: jax.grad(lambda xs: jnp.sum(jnp.sin(jax.grad(loss)(xs))))(XS),
    "hessian": lambda loss: jax.hessian(loss)(XS[:2]),
    "jit of hessian": lambda loss: jax.jit(jax.hessian(loss))(XS[:2]),
    "jvp of grad": lambda loss: jax.jvp(jax.grad(loss), (XS,), (jnp.ones_like(XS),)),
    "linearize of grad": lambda loss: jax.linearize(jax.grad(loss), XS)[1](jnp.ones_like(XS)),
}
FORWARD_MODES = {
    "jvp": lambda f: jax.jvp(f, (XS,), (jnp.ones_like(XS),)),
    "jvp of jit": lambda f: jax.jvp(jax.jit(f), (XS,), (jnp.ones_like(XS),)),
    "linearize": lambda f: jax.linearize(f, XS)[1](jnp.ones_like(XS)),
    "jacfwd": lambda f: jax.jacfwd(f)(XS),
}
QUICK = (
    "grad",
    "vmap of grad",
    "grad of vmap",
    "grad of checkpoint",
    "grad of scan",
    "grad of grad",
    "hessian",
)


@pytest.mark.parametrize(
    "mode",
    [pytest.param(m, marks=[] if m in QUICK else [pytest.mark.slow]) for m in REVERSE_MODES],
)
def test_modes_that_end_in_reverse(mode):
    differentiate = REVERSE_MODES[mode]
    got, expected = (differentiate(loss_of(name)) for name in ("fused", "scan"))
    assert np.abs(jax.tree.leaves(expected)[-1]).max() > 1e-3
    assert_close(got, expected, 1e-5)


@pytest.mark.parametrize("implementation", ["fused", "scan"])
@pytest.mark.parametrize("mode", FORWARD_MODES)
def test_forward_mode_agrees_with_the_gradient(mode, implementation):
    loss = loss_of(implementation)
    gradient = np.asarray(jax.grad(loss)(XS))
    got = jax.tree.leaves(FORWARD_MODES[mode](loss))[-1]
    assert_close(got, gradient if mode == "jacfwd" else gradient.sum(), 1e-5)


@pytest.mark.slow
def test_the_hessian_is_that_of_finite_differences():
    with jax.enable_x64(True):
        layer = registry.build(
            "scan_lstm", features=2, param_dtype=jnp.float64, carry_dtype=jnp.float64
        )
        xs = some((3, 1, 2), 0, jnp.float64)
        variables = jax.tree.map(lambda x: x.astype(jnp.float64), variables_of(layer, xs))

        def loss(xs):
            return jnp.sum(jnp.sin(layer.apply(variables, None, xs)[1]))

        hessian = jax.hessian(loss)(xs).reshape(xs.size, xs.size)
        gradient = jax.jit(jax.grad(loss))
        for i in range(xs.size):
            nudge = np.zeros(xs.size)
            nudge[i] = 1e-5
            nudge = nudge.reshape(xs.shape)
            slope = (gradient(xs + nudge) - gradient(xs - nudge)).ravel() / 2e-5
            assert_close(hessian[i], slope, 1e-8)


@pytest.mark.parametrize("what", ["variables", "carry", "xs", "one kernel"])
def test_any_argument_alone(what):
    """What is not differentiated costs nothing, and what is, gets the same gradient."""
    layer = registry.build("scan_gru", features=2)
    variables, start = variables_of(layer, XS), some((2, 2), 1)

    def loss(variables, start, xs):
        return jnp.sum(jnp.sin(layer.apply(variables, start, xs)[1]))

    together = jax.grad(loss, argnums=(0, 1, 2))(variables, start, XS)
    if what == "one kernel":

        def of_one(kernel):
            params = {**variables["params"], "hr": {"kernel": kernel}}
            return loss({"params": params}, start, XS)

        got = jax.grad(of_one)(variables["params"]["hr"]["kernel"])
        assert_close(got, together[0]["params"]["hr"]["kernel"], 1e-6)
        return
    index = ("variables", "carry", "xs").index(what)
    assert_close(jax.grad(loss, argnums=index)(variables, start, XS), together[index], 1e-6)
