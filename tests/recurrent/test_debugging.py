"""Nothing of ours shows in JAX's modes for debugging, in any layer and under any conditions."""

import contextlib
import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import registry
from zoo.recurrent import scanned

from .layers import STRUCTURES, some

XS = some((5, 3, 4))
CONDITIONS = {
    "none": {},
    "all": {
        "seq_lengths": np.array([5, 0, 3], np.int32),
        "mask": np.random.default_rng(0).random((5, 3)) < 0.8,
        "resets": np.random.default_rng(1).random((5, 3)) < 0.3,
    },
}
LAYERS = {
    **{
        name if how == "fused" else f"{name}, {how}": functools.partial(
            leaf.build, implementation=how
        )
        for name, leaf in STRUCTURES.items()
        for how in leaf.implementations[1:]
    },
    "gru, scan": lambda: registry.build("scan_gru", features=4, implementation="scan"),
    "gru, checkpoints": lambda: registry.build("scan_gru", features=4, checkpoint_every=2),
    "scanned": lambda: scanned(nn.GRUCell)(features=4),
    "scanned, checkpoints": lambda: scanned(nn.GRUCell)(features=4, checkpoint_every=2),
    "bidirectional": lambda: registry.build(
        "bidirectional", layer="scan_gru", features=4, merge="mul"
    ),
    "stack": lambda: registry.build(
        "stack", layer="scan_gru", features=4, num_layers=3, layer_norm=True
    ),
}
QUICK = ("gru", "scanned")


@contextlib.contextmanager
def leaks_and_nans():
    with jax.checking_leaks(), jax.debug_nans(True):
        yield


@contextlib.contextmanager
def nans_without_jit():
    with jax.disable_jit(), jax.debug_nans(True):
        yield


MODES = {
    "debug_nans": lambda: jax.debug_nans(True),
    "checking_leaks": jax.checking_leaks,
    "both": leaks_and_nans,
    "disable_jit": nans_without_jit,
}


def combinations():
    for name, mode, conditions in itertools.product(LAYERS, MODES, CONDITIONS):
        modes = ("both", "disable_jit") if name == "gru" else ("both",)
        quick = name in QUICK and mode in modes and conditions == "all"
        yield pytest.param(name, mode, conditions, marks=[] if quick else [pytest.mark.slow])


@pytest.mark.parametrize(("name", "mode", "conditions"), list(combinations()))
def test_debugging(name, mode, conditions):
    layer = LAYERS[name]()
    given = {key: jnp.asarray(value) for key, value in CONDITIONS[conditions].items()}

    def loss(variables, xs):
        return jnp.sum(layer.apply(variables, None, xs, **given)[1] ** 2)

    with MODES[mode]():
        variables = layer.init(jax.random.key(0), None, XS)
        gradients = jax.jit(jax.grad(loss, (0, 1)))(variables, XS)
        layer.apply(variables, None, XS, **given)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(gradients))


@pytest.mark.parametrize("name", ["gru", "scanned", "stack"])
def test_a_nan_of_the_callers_is_found(name):
    layer = LAYERS[name]()
    variables = layer.init(jax.random.key(0), None, XS)
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        layer.apply(variables, None, XS.at[2].set(jnp.nan), resets=jnp.zeros((5, 3), bool))
