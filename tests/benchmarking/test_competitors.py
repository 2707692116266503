"""The benchmarks' competitors compute the same, from the equations."""

import contextlib

import jax
import numpy as np
import pytest

import registry
from benchmarks import measure, peers
from benchmarks.cases import Case, draw
from benchmarks.peers import ours

from .samples import SMALL


def by_hand(case, data):
    """The sum of outputs times cotangents, in NumPy and float64, from the equations."""

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    w = {n: {k: v.astype(float) for k, v in own.items()} for n, own in data.params.items()}

    def gate(name, a):
        return a @ w[name]["kernel"] + w[name].get("bias", 0.0)

    c = h = np.zeros((case.size.batch, case.size.features))
    total = 0.0
    for x, cotangent in zip(data.xs.astype(float), data.cotangent.astype(float), strict=True):
        if case.cell == "gru":
            r, z = (sigmoid(gate("i" + g, x) + gate("h" + g, h)) for g in "rz")
            n = np.tanh(gate("in", x) + r * gate("hn", h))
            h = (1 - z) * n + z * h
        else:
            i, f, g, o = (gate("i" + g, x) + gate("h" + g, h) for g in "ifgo")
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        total += np.sum(h * cotangent)
    return total


def competitors(library, case):
    """The competitors of a library, or no test without it."""
    try:
        return peers.competitors(library, case, draw(case))
    except ImportError as error:
        pytest.skip(str(error))


OTHERS = [
    pytest.param(name, marks=pytest.mark.interop) for name in ("nnx", "haiku", "keras", "torch")
]


# Other libraries promise nothing about strict promotion.
@jax.numpy_dtype_promotion("standard")
@jax.numpy_rank_promotion("allow")
@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("library", ["ours", "module", "linen", *OTHERS])
def test_competitors_compute_the_same(library, cell):
    case = Case(cell, SMALL)
    for competitor in competitors(library, case):
        with contextlib.closing(competitor):
            if (library, cell) == ("haiku", "gru"):
                assert competitor.checksum is None
            else:
                expected = by_hand(case, draw(case))
                assert competitor.checksum() == pytest.approx(expected, abs=1e-4)


@jax.numpy_dtype_promotion("standard")
@jax.numpy_rank_promotion("allow")
@pytest.mark.parametrize("library", OTHERS)
def test_others_can_be_measured(library):
    # Most of them need help with bfloat16; what works there works in float32.
    case = Case("lstm", SMALL, "bfloat16")
    for competitor in competitors(library, case):
        with contextlib.closing(competitor):
            for quantity in measure.QUANTITIES:
                timed = getattr(competitor, quantity)
                if quantity == "memory":
                    assert timed is None or timed() > 0
                elif library != "torch" or quantity != "compile":
                    assert timed(1) > 0.0


def test_a_sweep_takes_the_blocks_that_it_says(monkeypatch):
    # A GPU has a rule of its own for them.
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    layer = registry.build("scan_gru", features=3, implementation="fused")
    xs = np.ones((12, 2, 3), np.float32)
    variables = layer.init(jax.random.key(0), None, xs)
    with ours.blocks_of(4):
        program = str(jax.make_jaxpr(lambda xs: layer.apply(variables, None, xs)[1])(xs))
    assert "length=4" in program and "unroll=8" not in program
    jax.clear_caches()
