"""The command for a GPU runs on a CPU too, at tiny sizes, and loses one piece at most."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import gpu_pieces, gpu_report, parity, peers
from benchmarks.cases import Case, draw
from benchmarks.peers import cudnn

from .samples import MACHINE, SMALL, command


def run(out, *options):
    return command("gpu", f"--out={out}", "--rounds=1", "--jobs=1", *options)


@pytest.mark.slow
def test_command_line(tmp_path):
    tiny = ["--layers=scan_elman,no_such_layer", "--cells=lstm", "--sizes=2x4x3x4"]
    done = run(tmp_path, *tiny, "--pieces=parity,gated", "--peers=ours,linen", "--dtypes=float32")
    # One piece failed, and the others were done.
    assert done.returncode == 1, done.stderr
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert written["machine"]["backend"] == "cpu"
    good, bad, measured = written["outcomes"]
    assert set(good["found"]) == {f"{i} {d}" for i in ("scan", "fused") for d in parity.TOLERANCE}
    assert "exit status" in bad["error"]
    assert [own["quantity"] for own in measured["found"]] == ["forward", "gradient", "memory"]
    text = (tmp_path / "gpu.md").read_text()
    assert text in done.stdout
    assert "ours fused" in text and "parity/no_such_layer: exit status" in text


def test_nothing_begins_after_the_end(tmp_path):
    done = run(tmp_path, "--pieces=parity", "--layers=scan_gru", "--minutes=0")
    assert done.returncode == 1
    assert "not begun" in (tmp_path / "gpu.md").read_text()


@pytest.mark.slow
def test_the_kit_runs_in_a_piece():
    found = gpu_pieces.do("kit/scan_elman/fused", [], rounds=1)
    assert {*found.values(), "skipped"} == {"kept", "skipped"}


def test_a_case_with_heads_is_ours_alone():
    case = Case("lstm", SMALL, "bfloat16", heads=2)
    data = draw(case)
    assert not peers.competitors("linen", case, data)
    for competitor in peers.competitors("ours", case, data):
        assert np.isfinite(competitor.checksum())
        competitor.close()


def test_tables_say_what_is_too_far_and_broken():
    outcomes = [
        gpu_report.Outcome("parity/scan_gru", 1.0, {"scan float32": 1e-6, "fused float32": 0.5}),
        gpu_report.Outcome("kit/scan_gru/fused", 1.0, {"check_jit": "kept", "check_mask": "no."}),
    ]
    text = gpu_report.tables(outcomes, MACHINE)
    assert "| `scan_gru` | 1.0e-06 | 5.0e-01 **too far** |" in text
    assert "1 checks of 1 layers" in text and "- kit/scan_gru/fused, check_mask: no." in text


def test_weights_for_cudnn():
    rnn = pytest.importorskip("jax.experimental.rnn")
    case = Case("lstm", SMALL)
    data, size = draw(case), case.size
    weights = rnn.unpack_lstm_weights(
        jnp.asarray(cudnn.weights(data)), size.inputs, size.features, 1, False
    )
    for side, kernels, biases in (("i", *weights[::2]), ("h", *weights[1::2])):
        for number, gate in enumerate("ifgo"):
            rows = slice(number * size.features, (number + 1) * size.features)
            own = data.params[side + gate]
            np.testing.assert_array_equal(kernels[0][rows], own["kernel"].T)
            np.testing.assert_array_equal(biases[0][rows], own.get("bias", 0.0))
