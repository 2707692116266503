"""What bounds a layer can be measured."""

import pytest

from benchmarks import roofline
from benchmarks.cases import Case

from .samples import SMALL


@pytest.mark.parametrize(
    ("quantity", "columns"),
    [
        ("forward", [2, 2, 1, 1]),
        pytest.param("gradient", [3, 3, 1, 1], marks=pytest.mark.slow),
        pytest.param("compile", [1, 1, 1], marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_row_of_the_table(cell, quantity, columns):
    row = roofline.compare(Case(cell, SMALL), quantity, rounds=1)
    name, size, *numbers = row.strip("| ").split(" | ")
    assert (name, size) == (cell.upper(), str(SMALL))
    assert [len(column.split(", ")) for column in numbers] == columns
    assert all(float(number) >= 0 for column in numbers for number in column.split(", "))
