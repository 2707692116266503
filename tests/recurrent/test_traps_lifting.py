"""Where cells lifted over time are known to go wrong: every function shows that ours do not."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import registry
from zoo.recurrent import TIME, scanned
from zoo.recurrent.sequence import run

from .layers import assert_close, assert_same, some, variables_of

T, B, D, H = 5, 3, 2, 4
XS = some((T, B, D))


@pytest.fixture(scope="module")
def gru():
    return registry.build("scan_gru", features=H)


@pytest.fixture(scope="module")
def variables(gru):
    return variables_of(gru, XS)


def test_parameters_lie_under_the_layers_own_name():
    class Parent(nn.Module):
        @nn.compact
        def __call__(self, xs):
            return registry.build("scan_gru", features=6, name="memory")(None, xs)

    params = jax.eval_shape(Parent().init, jax.random.key(0), XS)["params"]
    assert set(params) == {"memory"}
    assert set(params["memory"]) == {"ir", "iz", "in", "hr", "hz", "hn"}


def test_an_eager_call_is_compiled_once(gru, variables):
    gru.apply(variables, None, XS)
    size = run._cache_size()
    for _ in range(3):
        gru.apply(variables, None, XS)
    assert run._cache_size() == size


class Watched(nn.GRUCell):
    """A cell that writes down its state and drops some of its input."""

    @nn.compact
    def __call__(self, carry, x):
        x = nn.Dropout(0.5, deterministic=not self.has_rng("dropout"))(x)
        carry, y = super().__call__(carry, x)
        self.sow("intermediates", "state", y)
        return carry, y


def test_what_a_cell_sows_is_kept_for_every_step():
    layer = scanned(Watched)(features=H)
    variables = layer.init(jax.random.key(0), None, XS)
    assert set(variables) == {"params"}
    (_, ys), state = layer.apply(variables, None, XS, mutable="intermediates")
    assert_same(state["intermediates"]["state"][0], ys)


def test_a_cells_dropout_is_drawn_for_every_step():
    layer = scanned(Watched)(features=H)
    xs = jnp.broadcast_to(XS[:1], (20, B, D))
    variables = layer.init(jax.random.key(0), None, xs)
    rngs = {"dropout": jax.random.key(1)}
    _, dropped = layer.apply(variables, None, xs, rngs=rngs)
    _, again = layer.apply(variables, None, xs, rngs=rngs)
    assert_same(dropped, again)
    _, kept = layer.apply(variables, None, xs)
    # Undisturbed, the same input drives the state to rest; one mask for all steps would as well.
    assert np.abs(kept[-1] - kept[-2]).max() < 1e-2
    moving = np.abs(np.diff(np.asarray(dropped)[-10:], axis=0)).max(axis=(1, 2))
    assert np.count_nonzero(moving > 1e-2) >= 5


def test_shared_parameters_and_masks_drawn_per_step_initialise_together():
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    lifted = TIME.lift(Watched)(features=H)
    variables = lifted.init(keys, jnp.zeros((B, H)), XS)
    assert variables["params"]["ir"]["kernel"].shape == (D, H)
    apply = jax.jit(
        lambda key: lifted.apply(variables, jnp.zeros((B, H)), XS, rngs={"dropout": key})
    )
    _, ys = apply(keys["dropout"])
    assert np.abs(ys - apply(jax.random.key(2))[1]).max() > 1e-2


def test_a_cell_with_a_random_carry_wants_no_key_where_a_carry_is_given():
    layer = scanned(nn.GRUCell)(features=H, carry_init=nn.initializers.normal(1.0))
    variables = layer.init(jax.random.key(0), None, XS)
    start = some((B, H), 1)
    _, ys = jax.eval_shape(layer.apply, variables, start, XS)
    assert ys.shape == (T, B, H)
    with pytest.raises(ValueError, match="expected a key"):
        jax.eval_shape(layer.apply, variables, None, XS)


class Normalised(nn.GRUCell):
    """A cell with statistics over the batch, which would count padding."""

    @nn.compact
    def __call__(self, carry, x):
        return super().__call__(carry, nn.BatchNorm(use_running_average=False)(x))


@pytest.mark.parametrize("init", ["eager", "abstract"])
def test_batch_statistics_in_a_cell_are_refused_in_words(init):
    layer = scanned(Normalised)(features=H)
    start = layer.init if init == "eager" else functools.partial(jax.eval_shape, layer.init)
    with pytest.raises(TypeError, match=r"variables are params .* nn\.BatchNorm.* nn\.LayerNorm"):
        start(jax.random.key(0), None, XS)


def test_the_convention_shares_parameters_over_time():
    lifted = TIME.lift(nn.GRUCell)(features=H)
    variables = lifted.init(jax.random.key(0), jnp.zeros((B, H)), XS)
    assert variables["params"]["ir"]["kernel"].shape == (D, H)
    carry, ys = lifted.apply(variables, jnp.zeros((B, H)), XS)
    gru = registry.build("scan_gru", features=H)
    assert_close((carry, ys), gru.apply(variables, None, XS))


def test_init_takes_no_step(gru):
    """Steps that were taken would show: this activation counts how often it is used."""
    used = []

    def activation(x):
        used.append(x)
        return jnp.tanh(x)

    layer = registry.build("scan_gru", features=H, activation_fn=activation)
    layer.init(jax.random.key(0), None, XS)
    assert not used
    layer.apply(gru.init(jax.random.key(0), None, XS), None, XS)
    assert used
