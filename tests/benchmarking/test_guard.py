"""No layer is far slower than nn.RNN, whatever version of JAX compiles it; no measurement."""

import pytest

from benchmarks.cases import Case, Size
from benchmarks.measure import Task, measure
from benchmarks.progress import Progress

SIZE = Size(32, 256, 128, 128)


@pytest.mark.quiet
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_nothing_is_more_than_twice_as_slow(cell):
    task = Task(Case(cell, SIZE), ("ours", "linen"), ("forward", "gradient"), rounds=5)
    results = list(measure(task, Progress(task.total_rounds)))
    assert [result.quantity for result in results] == ["forward", "gradient"]
    for result in results:
        assert not result.missing
        assert result.best("linen") > 0.5, result.ratios()
