"""How a linear recurrence is cut for its kernel: channels and time over programs, and tiles."""

import dataclasses

CHANNELS = 128
"""Channels of a program, one for each thread of a warpgroup."""

GROUP = 8
"""Steps whose numbers are in registers at the same time."""

# Streaming multiprocessors of an H100 or H200 (SXM), and programs that each of them is given where
# time is cut: one copies while the other computes.
_MULTIPROCESSORS = 132
_PROGRAMS = 2

# How many times its share of the memory's bandwidth a multiprocessor can draw alone.
_DRAW = 2.5

# With fewer steps, two kernels more take longer to launch than they save.
_STEPS = 1024
_TILES = 4


@dataclasses.dataclass(frozen=True)
class Cut:
    """How time is cut.

    Attributes:
      rows: steps of a tile, which is copied at once.
      tiles: of all of time, the last of which may be filled up.
      each: tiles of a chunk, of which the last chunk may have fewer.
    """

    rows: int
    tiles: int
    each: int

    @property
    def steps(self) -> int:
        """Steps of all tiles."""
        return self.rows * self.tiles

    @property
    def chunks(self) -> int:
        """Programs that share the steps of the same channels."""
        return -(-self.tiles // self.each)


def cut(steps: int, width: int, read: int, written: int) -> Cut:
    """How many steps a program takes.

    One pass over time moves every array once, and keeps one multiprocessor busy for every
    ``CHANNELS`` channels. Two passes read what is read once more and keep all of them busy: they
    are taken where the multiprocessors of one pass, each of which can draw more than its share of
    the memory's bandwidth, would still draw less than that.

    Args:
      steps: T.
      width: channels, filled up to whole programs.
      read: arrays with a time axis that are read.
      written: arrays with a time axis that are written.
    """
    # A slot of shared memory holds a tile of everything that is read: 16 KiB at the most.
    rows = GROUP if read > 2 or steps <= GROUP else 2 * GROUP
    tiles, programs = -(-steps // rows), width // CHANNELS
    share = (read + written) / (2 * read + written)
    if steps < _STEPS or programs * _DRAW >= _MULTIPROCESSORS * share:
        return Cut(rows, tiles, tiles)
    chunks = min(-(-_PROGRAMS * _MULTIPROCESSORS // programs), tiles // _TILES)
    return Cut(rows, tiles, -(-tiles // chunks))
