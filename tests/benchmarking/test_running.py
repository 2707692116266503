"""How benchmarks are run: fair turns, a plan, and what happens when something fails."""

import doctest
import gc
import itertools
import json
from collections import Counter

import pytest

from benchmarks import cases, measure, peers, recurrent, results, running, timing
from benchmarks.cases import Case, Size
from benchmarks.measure import Task
from benchmarks.peers import Competitor
from benchmarks.results import Report

from .samples import LARGE, MACHINE, SMALL, Quiet, command, result


@pytest.mark.parametrize("module", [cases, timing], ids=lambda module: module.__name__)
def test_examples_in_docstrings(module):
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0


def test_turns_are_taken_round_by_round():
    turns = []

    def competitor(name, seconds):
        def timed(calls):
            turns.append((name, calls))
            return seconds

        return timed

    rounds = Quiet()
    times, failures = timing.interleave(
        {"a": competitor("a", 0.25), "b": competitor("b", 2.0)},
        rounds=3,
        seconds=1.0,
        pause=0.0,
        after_round=rounds.advance,
    )
    # Two turns each to warm up and to see how long one call takes; the quick one then makes four.
    a, b = ("a", 4), ("b", 1)
    assert turns == [("a", 1), ("a", 1), ("b", 1), ("b", 1), a, b, b, a, a, b]
    assert times == {"a": [0.25] * 3, "b": [2.0] * 3}
    assert failures == {}
    assert rounds.rounds == 3


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (2, 2), (3, 6), (8, 8), (11, 22)])
def test_everybody_is_first_and_after_everybody_else_equally_often(count, rows):
    orders = [timing.balanced_order(count, number) for number in range(rows)]
    assert all(sorted(order) == list(range(count)) for order in orders)
    assert set(Counter(order[0] for order in orders).values()) == {rows // count}
    neighbours = Counter(pair for order in orders for pair in itertools.pairwise(order))
    assert len(neighbours) == count * (count - 1)
    assert len(set(neighbours.values())) <= 1


def test_a_single_call_where_no_duration_is_asked_for():
    turns = []
    timing.interleave({"a": lambda calls: turns.append(calls) or 1e-9}, 2, seconds=0.0, pause=0.0)
    assert turns == [1, 1, 1]


@pytest.mark.parametrize("turn", [0, 1, 3], ids=["first", "second", "in a round"])
def test_who_fails_is_taken_out_and_named(turn):
    turns = iter(range(10))

    def failing(calls):
        if next(turns) == turn:
            raise RuntimeError("out of memory\nand a long story")
        return 1.0

    times, failures = timing.interleave(
        {"bad": failing, "good": lambda calls: 1.0}, rounds=4, pause=0.0
    )
    assert times == {"good": [1.0] * 4}
    assert failures == {"bad": "RuntimeError: out of memory"}


def test_an_interrupt_leaves_the_garbage_collector_on():
    def interrupted(calls):
        if not gc.isenabled():
            raise KeyboardInterrupt
        return 1.0

    with pytest.raises(KeyboardInterrupt):
        timing.interleave({"a": interrupted}, rounds=1, pause=0.0)
    assert gc.isenabled()


@pytest.mark.parametrize(
    "text", ["32x256x128", "32x256x128x0", "a", "1x2x3x4x5", " 1x1x1x1", "-1x1x1x1"]
)
def test_sizes_that_are_none(text):
    with pytest.raises(ValueError, match="BxTxDxH"):
        Size.parse(text)


def test_plan():
    tasks = recurrent.plan(
        [SMALL, LARGE],
        ["gru", "lstm"],
        ["float32"],
        ["ours", "linen", "torch"],
        ["gradient", "compile", "checkpoint"],
        rounds=7,
        platform="cpu",
    )
    compared, checkpoint = tasks[:4], tasks[4:]
    assert [(t.case.size, t.case.cell) for t in compared] == [
        (size, cell) for size in (SMALL, LARGE) for cell in ("gru", "lstm")
    ]
    assert all(t.libraries == ("ours", "linen", "torch") for t in compared)
    assert all(t.quantities == ("gradient", "compile") and t.total_rounds == 10 for t in compared)
    assert [t.case.checkpoint_every for t in checkpoint] == [64, 64]
    assert all(t.libraries == ("ours", "linen") for t in checkpoint)
    assert all(t.quantities == ("gradient", "memory") for t in checkpoint)


def test_an_interrupt_keeps_what_is_finished(tmp_path):
    path = tmp_path / "recurrent.json"
    tasks = [
        Task(Case("gru", size), ("ours",), ("forward", "gradient"), 1) for size in (SMALL, LARGE)
    ]

    def measured(task, progress):
        yield result("forward", {"ours auto": ("ours", [1.0])}, task.case)
        if task is tasks[1]:
            assert [r.case for r in Report.load(path).results] == [tasks[0].case] * 2
            raise KeyboardInterrupt
        yield result("gradient", {"ours auto": ("ours", [1.0])}, task.case)

    own = Report(MACHINE, "")
    running.collect(own, tasks, path, Quiet(), measured)
    assert not own.complete
    assert Report.load(path) == own
    assert [(r.case.size, r.quantity) for r in own.results] == [
        (SMALL, "forward"),
        (SMALL, "gradient"),
        (LARGE, "forward"),
    ]
    running.collect(own, tasks[:1], path, Quiet(), measured)
    assert Report.load(path).complete


def test_competitors_that_fail_or_differ_are_left_out(monkeypatch):
    closed = []

    def fake(name, library, checksum, memory=lambda: 1):
        timed = lambda calls: 1.0  # noqa: E731
        close = lambda: closed.append(name)  # noqa: E731
        return Competitor(name, library, checksum, timed, memory=memory, close=close)

    def fails():
        raise RuntimeError("no memory")

    made = {
        "ours": [fake("ours auto", "ours", lambda: 1.0)],
        "linen": [
            fake("equal", "linen", lambda: 1.01, memory=fails),
            fake("different", "linen", lambda: 100.0),
            fake("nan", "linen", lambda: float("nan")),
            fake("broken", "linen", fails),
        ],
        "haiku": [fake("other equations", "haiku", None)],
    }

    def competitors(library, case, data):
        if library not in made:
            raise ModuleNotFoundError(f"No module named '{library}'")
        return made[library]

    monkeypatch.setattr(peers, "competitors", competitors)
    libraries = ("ours", "linen", "haiku", "keras")
    quantities = ("forward", "memory", "step")
    progress = Quiet()
    task = Task(Case("gru", SMALL), libraries, quantities, rounds=2)
    forward, memory, step = measure.measure(task, progress)
    assert [s.name for s in forward.series] == ["ours auto", "equal", "other equations"]
    assert [s.values for s in forward.series] == [[1.0, 1.0]] * 3
    assert set(forward.missing) == {"different", "nan", "broken", "Keras on JAX"}
    assert "computes something else than ours auto" in forward.missing["different"]
    assert [s.name for s in memory.series] == ["ours auto", "other equations"]
    assert memory.missing["equal"] == "RuntimeError: no memory"
    assert step.series == []
    assert progress.rounds == task.total_rounds == 5
    assert len(progress.said) == 5
    assert sorted(closed) == sorted(c.name for own in made.values() for c in own)


def test_command_line(tmp_path):
    done = command(
        *("recurrent", "--sizes=2x4x3x3", "--cells=gru", "--peers=ours,linen"),
        *("--quantities=gradient,memory,step", "--rounds=2", f"--out={tmp_path}"),
    )
    assert done.returncode == 0, done.stderr
    assert "### Gradient of parameters and inputs, GRU, float32" in done.stdout
    assert "gru B2 T4 D3 H3 float32: gradient" in done.stderr
    assert (tmp_path / "recurrent.md").read_text().strip() == done.stdout.strip()

    own = Report.load(tmp_path / "recurrent.json")
    assert own.complete
    assert json.loads((tmp_path / "recurrent.json").read_text())["machine"]["versions"]["jax"]
    gradient, memory, step = own.results
    assert [(s.name, len(s.values)) for s in gradient.series] == [
        *((f"ours {name}", 2) for name in ("auto", "scan", "fused")),
        ("nn.RNN GRUCell", 2),
    ]
    assert all(s.values[0] > 0 for s in memory.series)
    assert gradient.missing == memory.missing == step.missing == {}
    assert results.BASE in gradient.ratios()
