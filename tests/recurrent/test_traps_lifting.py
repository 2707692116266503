"""Where cells lifted over time are known to go wrong: every function shows that ours do not."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import registry
from zoo.recurrent import TIME, scanned
from zoo.recurrent.call.program import run

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
    used.clear()  # Building looks at the shape of what it returns.
    layer.init(jax.random.key(0), None, XS)
    assert not used
    layer.apply(gru.init(jax.random.key(0), None, XS), None, XS)
    assert used


LIFTED = {
    "gru": lambda: registry.build("scan_gru", features=H),
    "lstm": lambda: registry.build("scan_lstm", features=H, implementation="scan"),
    "scanned": lambda: scanned(nn.GRUCell)(features=H),
    "stack": lambda: registry.build("stack", layer="scan_gru", features=H, num_layers=3),
    "bidirectional": lambda: registry.build("bidirectional", layer="scan_gru", features=H),
}
CONDITIONS = (
    jnp.array([5, 0, 3]),
    jnp.ones((T, B), bool).at[1].set(False),
    jnp.zeros((T, B), bool).at[3].set(True),
)
NAMES = ("seq_lengths", "mask", "resets")


def options_of(layer):
    return {
        f.name: getattr(layer, f.name)
        for f in dataclasses.fields(layer)
        if f.init and f.name not in ("parent", "name")
    }


def ensemble_of(layer, given):
    lifted = nn.vmap(
        type(layer),
        in_axes=(None,) * (2 + given),
        variable_axes={"params": 0},
        split_rngs={"params": True},
        axis_size=2,
    )
    return lifted(**options_of(layer))


@pytest.mark.parametrize("name", LIFTED)
def test_an_ensemble_takes_conditions_by_position(name):
    layer = LIFTED[name]()
    ensemble = ensemble_of(layer, 3)
    variables = ensemble.init(jax.random.key(0), None, XS, *CONDITIONS)
    got = ensemble.apply(variables, None, XS, *CONDITIONS)
    for k in range(2):
        own = jax.tree.map(lambda x, k=k: x[k], variables)
        wanted = layer.apply(own, None, XS, **dict(zip(NAMES, CONDITIONS, strict=True)))
        assert_close(jax.tree.map(lambda x, k=k: x[k], got), wanted, 1e-6)


@pytest.mark.parametrize("condition", [*NAMES, "deterministic"])
@pytest.mark.parametrize("name", LIFTED)
def test_an_ensemble_refuses_what_would_be_dropped(name, condition):
    ensemble = ensemble_of(LIFTED[name](), 0)
    value = dict(zip(NAMES, CONDITIONS, strict=True)).get(condition, True)
    with pytest.raises(TypeError, match=f"by position, got the keywords {condition}, which nn"):
        ensemble.init(jax.random.key(0), None, XS, **{condition: value})


@pytest.mark.parametrize("lift", [nn.remat, nn.jit], ids=["remat", "jit"])
@pytest.mark.parametrize("name", LIFTED)
def test_what_keeps_keywords_keeps_them(name, lift):
    layer = LIFTED[name]()
    lifted = lift(type(layer))(**options_of(layer))
    variables = variables_of(layer, XS)
    wanted = layer.apply(variables, None, XS, **dict(zip(NAMES, CONDITIONS, strict=True)))
    assert_close(lifted.apply(variables, None, XS, *CONDITIONS), wanted, 1e-6)
    keywords = dict(zip(NAMES, CONDITIONS, strict=True))
    assert_close(lifted.apply(variables, None, XS, **keywords), wanted, 1e-6)


@pytest.mark.parametrize("lift", [nn.remat, nn.jit], ids=["remat", "jit"])
def test_dropout_under_lifting_wants_a_static_flag(lift):
    options, rngs = {"features": H, "dropout_rate": 0.5}, {"dropout": jax.random.key(1)}
    layer = registry.build("scan_gru", **options)
    variables = variables_of(layer, XS)
    args = variables, None, XS, None, None, None
    static = lift(type(layer), static_argnums=(6,))(**options)
    _, dropped = static.apply(*args, False, rngs=rngs)
    assert not jnp.allclose(dropped, layer.apply(*args)[1])
    if lift is nn.remat:  # nn.jit draws from keys of its own
        assert_close(dropped, layer.apply(*args, False, rngs=rngs)[1], 1e-6)
    with pytest.raises(TypeError, match=r"deterministic: .*static_argnums"):
        lift(type(layer))(**options).apply(*args, False, rngs=rngs)


def test_a_stack_of_cells_wants_one_too():
    layer = registry.build(
        "stack", layer=scanned(nn.GRUCell), features=H, num_layers=2, dropout_rate=0.5
    )
    lifted = nn.remat(type(layer))(**options_of(layer))
    with pytest.raises(TypeError, match=r"deterministic: .*static_argnums"):
        lifted.apply(variables_of(layer, XS), None, XS, None, None, None, False)
