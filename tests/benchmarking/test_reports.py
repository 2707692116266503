"""Results, statistics, reports and pictures: right numbers, whole files."""

import dataclasses

import pytest

from benchmarks import report, timing
from benchmarks.cases import Case
from benchmarks.results import Report

from .samples import LARGE, MACHINE, SMALL, example, result


def test_statistics():
    assert timing.median_ratio([1.0, 6.0, 3.0], [2.0, 2.0, 1.0]) == 3.0
    assert timing.geometric_mean([4.0, 0.5, 4.0]) == pytest.approx(2.0)
    with pytest.raises(ValueError):
        timing.median_ratio([1.0], [1.0, 2.0])


def test_ratios_are_taken_within_rounds_and_of_the_best_form():
    own = result(
        "gradient",
        {
            "ours auto": ("ours", [1.0, 2.0, 4.0]),
            "nn.RNN LSTMCell": ("linen", [3.0, 6.0, 8.0]),
            "nn.RNN OptimizedLSTMCell": ("linen", [2.0, 1.0, 12.0]),
        },
    )
    assert own.ratios() == {
        "ours auto": 1.0,
        "nn.RNN LSTMCell": 3.0,
        "nn.RNN OptimizedLSTMCell": 2.0,
    }
    assert own.best("linen") == 2.0
    assert own.best("torch") is None


def test_without_ours_there_are_no_ratios():
    own = result("forward", {"haiku": ("haiku", [1.0])})
    assert own.ratios() == {}
    assert own.best("haiku") is None


def test_a_report_survives_its_json(tmp_path):
    path = tmp_path / "new" / "recurrent.json"
    example().save(path)
    assert Report.load(path) == example()


def test_a_broken_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "recurrent.json"
    example().save(path)
    with pytest.raises(TypeError):
        dataclasses.replace(example(), machine={"cpu": object()}).save(path)
    assert Report.load(path) == example()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"results": [{}]}', '{"results": []}'])
def test_other_files_are_refused_by_name(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"other\.json"):
        Report.load(path)


def test_summary_of_means_and_minima():
    # nn.RNN at its best: 2 at the small size, the median of 4, 4, 9 at the large one.
    assert report.summary(example(), "float32") == [
        ["gradient, nn.RNN", f"{8**0.5:.2f}", f"2.00 ({SMALL})"]
    ]


def test_summary_over_both_cells():
    gru = result(
        "gradient",
        {"ours auto": ("ours", [2.0]), "nn.RNN GRUCell": ("linen", [1.0])},
        Case("gru", SMALL),
    )
    both = example()
    both.results.append(gru)
    (row,) = report.summary(both, "float32")
    assert row[-2:] == [f"{4 ** (1 / 3):.2f}", f"0.50 (GRU {SMALL})"]


def test_reports_of_two_versions_side_by_side():
    other = example()
    versions = {**MACHINE["versions"], "jax": "99.0"}
    other.machine = {**MACHINE, "versions": versions, "cpu": "Another processor"}
    other.results[:] = other.results[1:2]
    text = report.comparison([example(), other])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    mean = f"{8**0.5:.2f}"
    assert ["gradient, nn.RNN", mean, f"2.00 ({SMALL})", "4.00", f"4.00 ({LARGE})"] in rows
    assert "jax 99.0 on Another processor: minimum" in text
    assert "jax 99.0 on Another processor: Python" in text


def test_tables():
    text = report.markdown(example())
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert [str(SMALL), "1.00 s", "4.00 s (4.00)", "2.00 s (2.00)"] in rows
    assert [str(LARGE), "1.00 s", "4.00 s (4.00)", "–"] in rows
    assert ["ours auto", "8.00 MB", "1.00 s", "1.00"] in rows
    assert ["ours auto checkpoint_every=64", "2.00 MB", "1.25 s", "1.25"] in rows
    assert "A processor, 2 cores" in text
    assert "torch None" not in text
    assert "- torch.nn, in 1 of 4 results: not there" in text
    assert "interrupted" not in text
    assert "interrupted" in report.markdown(dataclasses.replace(example(), complete=False))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2.5, "2.50 s"), (0.25, "250 ms"), (0.0025, "2.50 ms"), (25e-6, "25.0 µs"), (0.0, "0.00 µs")],
)
def test_units_of_time(seconds, text):
    own = result("forward", {"haiku": ("haiku", [seconds])})
    assert text in report.markdown(Report(MACHINE, "", [own]))


def test_picture(tmp_path):
    pytest.importorskip("matplotlib")
    from benchmarks.plot import plot

    path = tmp_path / "recurrent.png"
    plot(example(), "float32", path)
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="bfloat16"):
        plot(example(), "bfloat16", path)
