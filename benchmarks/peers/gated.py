"""``scan_gru`` of the same width, for its step: a linear recurrence's is to cost no more."""

import dataclasses

from benchmarks.cases import Case, Data, draw
from benchmarks.peers import Competitor, ours


def competitors(case: Case, data: Data) -> list[Competitor]:
    """One competitor, which only takes steps."""
    one_step = dataclasses.replace(case, cell="gru", size=dataclasses.replace(case.size, steps=1))
    (made,) = ours.competitors(one_step, draw(one_step), ["auto"])
    return [Competitor("scan_gru", "gated", step=made.step, close=made.close)]
