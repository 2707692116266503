"""The conformance kit over every registered layer, and over some that are made of them."""

import functools

import jax
import pytest

import registry
from zoo.recurrent.testing import CHECKS, Case, check_layer

from .layers import COMPOSITES, PASSED_ON, ScannedGRU, inputs_for, some

XS = some((6, 3, 5))

# Checked whole by default; of some others the dearest checks are slow, and of the rest, which share
# their code, all of them.
WHOLE = ("scan_gru",)
PARTLY = ("scan_lstm", "scan_cfc", "scan_conv_lstm", "scan_s5", "bidirectional", "stack", "scanned")
DEAR = (
    "check_activations",
    "check_batch_axes",
    "check_carries",
    "check_conditions_together",
    "check_dropouts",
    "check_dtypes",
    "check_gradients",
    "check_implementations",
    "check_init_cost",
    "check_learned_carry",
    "check_mask",
    "check_padding_cannot_leak",
    "check_random_carry",
    "check_resets",
    "check_resets_stop_leaks",
    "check_reverse",
    "check_seq_lengths",
    "check_time_axis",
)


@functools.cache
def case(name: str) -> Case:
    if name == "scanned":
        return Case(functools.partial(ScannedGRU, features=4), XS)
    if name in COMPOSITES:
        return Case(COMPOSITES[name], XS, PASSED_ON)
    if name == "scan_lstm, learned carry":
        build = functools.partial(registry.build, "scan_lstm", learned_carry=True, projection=3)
        return Case(functools.partial(build, features=4), XS)
    build = functools.partial(registry.build, name, features=4)
    layer = build() if name.startswith("scan") else None
    return Case(build, XS if layer is None else inputs_for(layer, *XS.shape))


def is_quick(name, check) -> bool:
    return name in WHOLE or (name in PARTLY and check.__name__ not in DEAR)


NAMES = sorted({*registry.names(), *COMPOSITES, "scanned", "scan_lstm, learned carry"})
ROWS = [
    (name, check)
    for name in NAMES
    for check in CHECKS
    # A scanned cell has the dtypes of its own cell: Flax's return float32 whatever ``dtype`` says.
    # The norms of one stack and the module in another have float32 parameters, whatever their
    # layers have.
    if check.__name__ != "check_dtypes"
    or name not in ("scanned", "stack of bidirectional", "stack of a list")
]
TABLE = [
    pytest.param(
        name,
        check,
        marks=[] if is_quick(name, check) else [pytest.mark.slow],
        id=f"{name}-{check.__name__}",
    )
    for name, check in ROWS
]


@pytest.mark.parametrize(("name", "check"), TABLE)
def test_layer(name, check):
    check(case(name))


def test_every_registered_layer_is_in_the_table():
    assert set(registry.names()) <= set(NAMES)


def test_check_layer_runs_every_check(monkeypatch):
    run = []
    monkeypatch.setattr(
        "zoo.recurrent.testing.suite.CHECKS",
        tuple(_recorded(check, run) for check in CHECKS),
    )
    check_layer(functools.partial(registry.build, "scan_gru", features=4), XS)
    assert run == [check.__name__ for check in CHECKS]


def _recorded(check, run):
    @functools.wraps(check)
    def record(case):
        assert isinstance(case.layer.init, object) and jax.numpy.shape(case.xs) == XS.shape
        run.append(check.__name__)

    return record
