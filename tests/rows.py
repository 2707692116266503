"""Which rows of a table run every day."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def rows(table: Iterable[Any], every_day: Collection[Any]) -> list[Any]:
    """The rows of a table; all but those of every day are marked ``slow``."""
    return [row if row in every_day else pytest.param(row, marks=pytest.mark.slow) for row in table]
