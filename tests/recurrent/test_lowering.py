"""Every layer lowers for a GPU on a machine that has none, and does there what it does here."""

import chex
import jax
import jax.numpy as jnp
import pytest

import registry

from .layers import some

NAMES = [name for name in registry.names("scan_*")]


@pytest.mark.parametrize("implementation", ["scan", "fused"])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_lower_for_cuda(name, implementation):
    layer = registry.build(name, features=4, implementation=implementation)
    xs = some((6, 3, *(4,) * (layer.feature_axes - 1), 5))
    resets, lengths = jnp.zeros((6, 3), bool), jnp.full((3,), 6)
    variables = jax.eval_shape(layer.init, jax.random.key(0), None, xs)

    def loss(variables, xs):
        _, ys = layer.apply(variables, None, xs, resets=resets, seq_lengths=lengths)
        return jnp.sum(ys * ys)

    lowered = (
        jax.jit(jax.grad(loss, (0, 1))).trace(variables, xs).lower(lowering_platforms=("cuda",))
    )
    assert "stablehlo.while" in lowered.as_text()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("scan_lstm", {}),
        ("scan_gru", {"checkpoint_every": 16}),
        pytest.param("scan_conv_gru", {"checkpoint_every": 16}, marks=pytest.mark.slow),
        ("scan_min_gru", {}),
    ],
    ids=str,
)
def test_what_is_chosen_on_a_gpu(monkeypatch, name, options):
    def run(implementation):
        layer = registry.build(name, features=4, implementation=implementation, **options)
        xs = some((70, 3, *(4,) * (layer.feature_axes - 1), 5))
        variables = jax.jit(layer.init)(jax.random.key(0), None, xs)

        def loss(variables, xs):
            _, ys = layer.apply(variables, None, xs, seq_lengths=jnp.array([70, 64, 3]))
            return jnp.sum(ys * ys)

        gradient = jax.jit(jax.grad(loss, (0, 1)))
        return gradient(variables, xs), str(jax.make_jaxpr(gradient)(variables, xs))

    expected, _ = run("scan")
    here, _ = run("auto")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    # What was traced before was traced for a CPU.
    jax.clear_caches()
    there, program = run("auto")
    chex.assert_trees_all_close(there, expected, atol=1e-5, rtol=1e-4)
    chex.assert_trees_all_close(there, here, atol=1e-5, rtol=1e-4)
    assert ("unroll=8" in program) == (name != "scan_min_gru")
    jax.clear_caches()
