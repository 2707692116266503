"""Time measured in turns, so that a drift of the machine meets every competitor alike."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

Timed = Callable[[int], float]
"""Does its work the given number of times; returns seconds per time."""


def repeat(work: Callable[[], object]) -> Timed:
    """Makes a ``Timed`` of a function that returns when its work is done.

    Example:
      >>> repeat(lambda: sum(range(100)))(10) < 1.0
      True
    """

    def timed(calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            work()
        return (time.perf_counter() - start) / calls

    return timed


def enough_calls(timed: Timed, seconds: float) -> int:
    """Warms up, and says how many calls fill about so many seconds (at least one).

    Args:
      timed: what is to be measured.
      seconds: how long one measurement should last; 0 for a single call.

    Returns:
      The number of calls.
    """
    timed(1)
    if seconds <= 0.0:
        return 1
    return max(1, math.ceil(seconds / max(timed(1), 1e-7)))


def interleave(
    competitors: Mapping[str, Timed],
    rounds: int,
    *,
    seconds: float = 0.02,
    pause: float = 0.005,
    after_round: Callable[[], None] = lambda: None,
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Measures competitors in turns, in another order every round.

    Heat and other programs then slow all of them alike, so that the ratio of two competitors
    within one round is worth more than the ratio of two times. Who leaves threads awake or caches
    cold slows the next one: of two equal programs, one that always came after PyTorch took a fifth
    longer in a small forward pass. The order is therefore balanced: each competitor is first in one
    round, and runs right after every other equally often.

    Args:
      competitors: what to measure, by name.
      rounds: how often everybody has a turn.
      seconds: a turn lasts about so long, in as many calls as that takes; at least one.
      pause: seconds of silence before each turn, in which threads of the one before fall asleep.
      after_round: called after every round.

    Returns:
      Seconds per call of every round, by name; and, by name, why a competitor was taken out.

    Example:
      >>> times, failures = interleave({"a": lambda n: 1.0, "b": lambda n: 2.0}, rounds=2)
      >>> times, failures
      ({'a': [1.0, 1.0], 'b': [2.0, 2.0]}, {})
    """
    failures: dict[str, str] = {}
    calls: dict[str, int] = {}
    for name, timed in competitors.items():
        try:
            calls[name] = enough_calls(timed, seconds)
        except Exception as error:
            failures[name] = why(error)
    times: dict[str, list[float]] = {name: [] for name in calls}
    # A collection would be charged to whoever happens to have the turn.
    gc.collect()
    collecting = gc.isenabled()
    gc.disable()
    try:
        for number in range(rounds):
            names = list(times)
            for place in balanced_order(len(names), number):
                name = names[place]
                time.sleep(pause)
                try:
                    times[name].append(competitors[name](calls[name]))
                except Exception as error:
                    failures[name] = why(error)
                    del times[name]
            after_round()
    finally:
        if collecting:
            gc.enable()
    return times, failures


def balanced_order(count: int, number: int) -> list[int]:
    """Row ``number`` of a balanced Latin square of competitors (Williams 1949).

    Each is first once, and follows every other equally often: once in ``count`` rows where that is
    even, twice in ``2 * count``, of which half are mirrored, where it is odd.

    Example:
      >>> [balanced_order(4, number) for number in range(4)]
      [[0, 3, 1, 2], [1, 0, 2, 3], [2, 1, 3, 0], [3, 2, 0, 1]]
    """
    zigzag = [place // 2 if place % 2 == 0 else -(place + 1) // 2 for place in range(count)]
    mirrored = count % 2 and number // count % 2
    row = [(place + number) % count for place in zigzag]
    return row[::-1] if mirrored else row


def why(error: BaseException) -> str:
    """The first line of what went wrong.

    Example:
      >>> why(ValueError("no"))
      'ValueError: no'
    """
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def median_ratio(values: Sequence[float], base: Sequence[float]) -> float:
    """The median over rounds of ``values / base``.

    Args:
      values: one number per round.
      base: one number per round, of the same rounds.

    Returns:
      The ratio; above 1 where ``values`` are the larger ones. NaN where ``base`` has a zero.

    Raises:
      ValueError: there are not as many of the one as of the other.

    Example:
      >>> median_ratio([2.0, 4.0, 9.0], [1.0, 2.0, 3.0])
      2.0
    """
    return statistics.median(a / b if b else math.nan for a, b in zip(values, base, strict=True))


def geometric_mean(ratios: Sequence[float]) -> float:
    """The mean of ratios: 2 and 1/2 make 1.

    Example:
      >>> geometric_mean([2.0, 0.5])
      1.0
    """
    return math.exp(statistics.fmean(math.log(ratio) for ratio in ratios))
