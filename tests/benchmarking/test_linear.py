"""The comparison of linear recurrences: everybody computes the same, and its tables are right."""

import contextlib
import sys

import jax
import numpy as np
import pytest

import registry
from benchmarks import linear, peers
from benchmarks.cases import Case, Size, draw
from benchmarks.peers import copy, equations, ours
from benchmarks.results import Report

from .samples import MACHINE, SMALL, command, result

SQUARE = Size(batch=2, steps=4, inputs=3, features=3)


def competitors(library, case):
    """The competitors of a library, or no test without it."""
    try:
        return peers.competitors(library, case, draw(case))
    except ImportError as error:
        pytest.skip(str(error))


def expected(case):
    """The sum of outputs times cotangents, by our layer's reference."""
    data = draw(case)
    layer = registry.build(f"scan_{case.cell}", features=case.size.features, implementation="scan")
    _, ys = layer.apply({"params": ours.drawn(case, data)}, None, data.xs)
    return float(np.sum(np.asarray(ys, float) * data.cotangent))


MEMORAX = pytest.param("memorax", marks=pytest.mark.interop)


# Other libraries promise nothing about strict promotion.
@jax.numpy_dtype_promotion("standard")
@jax.numpy_rank_promotion("allow")
@pytest.mark.parametrize("cell", linear.CELLS)
@pytest.mark.parametrize("library", ["tree", "steps", MEMORAX])
def test_competitors_compute_the_same(library, cell):
    case = Case(cell, SQUARE)
    for competitor in competitors(library, case):
        with contextlib.closing(competitor):
            if (library, cell) == ("memorax", "min_gru"):
                assert competitor.checksum is None and "another" in competitor.name
            else:
                assert competitor.checksum() == pytest.approx(expected(case), abs=1e-4)


# Inputs narrower than outputs, where D is a kernel.
@jax.numpy_dtype_promotion("standard")
@jax.numpy_rank_promotion("allow")
@pytest.mark.parametrize("cell", linear.CELLS)
def test_a_step_is_a_step_of_the_sequence(cell):
    case = Case(cell, SMALL)
    own = equations.equations(case, draw(case))
    random = np.random.default_rng(0)
    h = random.standard_normal((2, SMALL.batch, own.states)).astype("f4")
    h = h[0] + 1j * h[1] if own.dtype == "complex64" else h[0]
    x = draw(case).xs[0]
    a, b = own.elements(own.params, x)
    got = own.read(own.params, a * h + b, x)
    layer = registry.build(f"scan_{cell}", features=SMALL.features)
    carry = (h.real, h.imag) if own.dtype == "complex64" else h
    variables = {"params": ours.drawn(case, draw(case))}
    _, want = layer.apply(variables, carry, x, method="step")
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_other_cells_have_no_equations():
    case = Case("rg_lru", SMALL)
    with pytest.raises(ValueError, match="expected one of min_gru, lru, s5"):
        peers.competitors("tree", case, draw(case))


def test_memorax_wants_inputs_as_wide_as_outputs(monkeypatch):
    package = type(sys)("memorax.networks")
    package.sequence_models = None
    monkeypatch.setitem(sys.modules, "memorax", type(sys)("memorax"))
    monkeypatch.setitem(sys.modules, "memorax.networks", package)
    with pytest.raises(ValueError, match="expected D to be H"):
        peers.competitors("memorax", Case("lru", SMALL), draw(Case("lru", SMALL)))


def test_a_copy_moves_every_array_once():
    case = Case("lru", SMALL)
    (competitor,) = competitors("copy", case)
    with contextlib.closing(competitor):
        assert competitor.checksum is competitor.memory is competitor.step is None
        assert competitor.forward(2) > 0.0 and competitor.gradient(2) > 0.0
    # 3 sequences of 5 steps of 2 + 4 numbers, each read and written.
    assert copy.copied_bytes(case, "forward") == 3 * 5 * 6 * 4 * 2
    assert copy.copied_bytes(case, "gradient") == 2 * copy.copied_bytes(case, "forward")


def test_scan_gru_only_takes_steps():
    (competitor,) = competitors("gated", Case("lru", SMALL))
    with contextlib.closing(competitor):
        assert competitor.step(1) > 0.0
        assert competitor.forward is competitor.gradient is competitor.memory is None


def example():
    """A report whose numbers are easy to check by hand."""
    own, gated = ("ours", [2.0, 2.0, 2.0]), ("gated", [3.0, 3.0, 3.0])
    other = {"ours auto": own, "associative scan": ("tree", [4.0, 8.0, 4.0])}
    results = [
        result("gradient", other | {"copy": ("copy", [1.0, 0.5, 0.5])}, Case("lru", SMALL)),
        result("gradient", other | {"copy": ("copy", [2.0] * 3)}, Case("min_gru", SMALL)),
        result("forward", other, Case("lru", SMALL)),
        result("step", {"ours auto": own, "scan_gru": gated}, Case("lru", SMALL)),
    ]
    return Report(MACHINE, "", results, complete=True)


def test_tables():
    text = linear.tables(example())
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    # 720 bytes of the first case are 1440 with those written, in half a second.
    assert ["LRU", str(SMALL), "0.0 GB/s", "4.0"] in rows
    assert ["MIN_GRU", str(SMALL), "0.0 GB/s", "1.0"] in rows
    assert ["geometric mean", "", "", "2.0"] in rows
    found = {row[0]: row[-2] for row in rows if row}
    assert found["gradient, associative scan"] == found["forward, associative scan"] == "2.00"
    assert found["step, scan_gru"] == "1.50"
    assert "copy, in" not in text


def test_without_a_copy_there_is_no_distance():
    own = example()
    own.results = own.results[2:]
    assert "Distance to the memory" not in linear.tables(own)


def test_picture(tmp_path):
    pytest.importorskip("matplotlib")
    from benchmarks.plot import plot

    names = ("scan", "fused", "parallel")
    crowd = {f"ours {name}": ("ours", [1.0]) for name in ("auto", *names)}
    crowd |= {name: (name, [2.0]) for name in ("tree", "steps", "memorax", "gated", "copy")}
    report = Report(MACHINE, "", [result("step", crowd, Case("lru", SMALL))])
    plot(report, "float32", tmp_path / "linear.png")
    assert (tmp_path / "linear.png").read_bytes().startswith(b"\x89PNG")


def test_command_line(tmp_path):
    done = command(
        *("linear", "--sizes=2x4x3x3", "--cells=min_gru", "--quantities=forward,step"),
        *("--rounds=2", f"--out={tmp_path}"),
    )
    assert done.returncode == 0, done.stderr
    assert "### Forward pass, MIN_GRU, float32" in done.stdout
    assert "### Distance to the memory" in done.stdout
    assert (tmp_path / "linear.md").read_text().strip() == done.stdout.strip()

    own = Report.load(tmp_path / "linear.json")
    forward, step = own.results
    names = [f"ours {name}" for name in ("auto", "scan", "fused", "parallel")]
    names += ["associative scan", "nn.scan"]
    assert [s.name for s in forward.series if s.library != "memorax"] == [*names, "copy"]
    assert [s.name for s in step.series if s.library != "memorax"] == [*names, "scan_gru"]
    assert set(forward.missing) <= {"memorax"}
