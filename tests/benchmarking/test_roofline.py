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
    assert len(numbers) == 6 and all(float(number) >= 0 for number in numbers)
