"""What bounds a layer can be measured."""

import pytest

from benchmarks import roofline
from benchmarks.cases import Case

from .samples import SMALL


@pytest.mark.parametrize("quantity", ["forward", "gradient"])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_row_of_the_table(cell, quantity):
    row = roofline.compare(Case(cell, SMALL), quantity, rounds=1)
    name, size, *numbers = row.strip("| ").split(" | ")
    assert (name, size) == (cell.upper(), str(SMALL))
    parts = {"forward": 2, "gradient": 3}[quantity]
    assert [len(column.split(", ")) for column in numbers] == [parts, parts, 1, 1]
    assert all(float(number) >= 0 for column in numbers for number in column.split(", "))
