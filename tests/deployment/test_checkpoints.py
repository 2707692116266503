"""Variables written by Orbax come back, on other devices and into a layer that is run otherwise."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from flax.training.train_state import TrainState

from tests.convert import reference
from tests.recurrent.layers import assert_close, assert_same

from .layers import XS, both, build, declared, drawn, gru, lstm, stack

ocp = pytest.importorskip("orbax.checkpoint")

ROOT = Path(__file__).parents[2]
DEEP = stack(both(lstm(learned_carry=True)))


def save(path: Path, tree: Any) -> None:
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree)


def restore(path: Path, like: Any) -> Any:
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(path, like)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    save(folder / "gru", drawn(gru()))
    save(folder / "deep", drawn(DEEP))
    return folder


@pytest.mark.parametrize(("name", "config"), [("gru", gru()), ("deep", DEEP)])
def test_variables(saved: Path, name: str, config: dict[str, Any]) -> None:
    assert_same(restore(saved / name, declared(config)), drawn(config))


OPTIONS = [
    {"implementation": "scan"},
    {"implementation": "fused", "unroll": 2},
    {"time_axis": 1},
    {"reverse": True},
    {"checkpoint_every": 2, "truncate_every": 3, "dropout_rate": 0.5, "zoneout_rate": 0.1},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_an_old_checkpoint_fits_a_layer_run_otherwise(saved: Path, options: dict[str, Any]) -> None:
    everywhere = {key: options[key] for key in ("time_axis", "reverse") if key in options}
    leaf = {key: value for key, value in options.items() if key not in everywhere}
    shape = (2, 7, 3) if "time_axis" in options else (7, 2, 3)
    deep = stack(both(lstm(learned_carry=True, **leaf)), **everywhere)
    assert_same(restore(saved / "deep", declared(deep, shape)), drawn(DEEP))
    assert_same(restore(saved / "gru", declared(gru(**options), shape)), drawn(gru()))


@pytest.mark.parametrize("options", OPTIONS[:4], ids=str)
def test_and_computes_what_it_should(saved: Path, options: dict[str, Any]) -> None:
    config = gru(**options)
    restored = restore(saved / "gru", declared(config))
    found = jax.jit(build(config).apply)(restored, None, XS)
    assert_close(found, reference.run(config, drawn(gru()), XS), 1e-5)


def test_train_state_goes_on_where_it_stopped(tmp_path: Path) -> None:
    layer, optimizer = build(gru()), optax.sgd(0.1, momentum=0.9)

    def fresh() -> TrainState:
        return TrainState.create(apply_fn=layer.apply, params=drawn(gru())["params"], tx=optimizer)

    @jax.jit
    def update(state: TrainState) -> TrainState:
        def loss(params):
            return jnp.mean(jnp.square(state.apply_fn({"params": params}, None, XS)[1] - 0.5))

        return state.apply_gradients(grads=jax.grad(loss)(state.params))

    state = update(fresh())
    save(tmp_path / "state", state)
    restored = restore(tmp_path / "state", jax.eval_shape(fresh))
    assert int(restored.step) == 1
    # Without the momentum of the first step the second one would be another.
    assert_same(update(restored).params, update(state).params)


@pytest.mark.slow
def test_onto_another_mesh(saved: Path) -> None:
    """Eight devices need a process of their own; this one reads what it wrote."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.deployment.sharded", saved],
        cwd=ROOT,
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        },
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2 shards of (3, 4), then 4 of (3, 2)\n"
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), declared(DEEP)
    )
    assert_same(restore(saved / "sharded", like), drawn(DEEP))
