"""Reads compiled programs: which devices talk to each other inside of which loops."""

import math
import re

_COLLECTIVES = (
    "all-gather|all-reduce|all-to-all|collective-broadcast|collective-permute|ragged-all-to-all|"
    "reduce-scatter"
)
_CALLED = re.compile(r"(?:body|condition|calls|to_apply|\w+_computations?)=(\{[^}]*\}|%?[\w.\-]+)")


def meetings(text: str, besides: int | None = None) -> list[tuple[str, int]]:
    """The collectives inside of loops, at any depth: what each does, and among how many devices.

    Args:
      text: a compiled program, as ``compiled.as_text()`` has it.
      besides: iterations of loops that are not looked at, except for the loops inside of them.
    """
    computations = _computations(text)
    loops = [line for lines in computations.values() for line in lines if " while(" in line]
    assert loops, "a layer loops over time"
    todo = [name for line in loops if _iterations(line) != besides for name in _callees(line)]
    seen, found = set(), []
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        for line in computations[name]:
            collective = re.search(rf" ({_COLLECTIVES})(?:-start)?\(", line)
            if collective:
                found.append((collective[1], _participants(line)))
            todo.extend(_callees(line))
    return sorted(found)


def _computations(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        head = re.match(r"(?:ENTRY )?%?([\w.\-]+) .*\{$", line)
        if head:
            lines = found[head[1]] = []
        else:
            lines.append(line)
    return found


def _callees(line: str) -> list[str]:
    return [name for group in _CALLED.findall(line) for name in re.findall(r"[\w.\-]+", group)]


def _iterations(line: str) -> int | None:
    count = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', line)
    return int(count[1]) if count else None


def _participants(line: str) -> int:
    """The number of devices in each group; XLA writes groups in three ways, and pairs."""
    if "source_target_pairs=" in line:
        return 2
    if named := re.search(r"replica_groups=mesh\[(.*?)\].*? \{(.*?)\}, ", line):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
        return math.prod(sizes[name] for name in re.findall(r"'(\w+)'", named[2]))
    if counted := re.search(r"replica_groups=\[\d+,(\d+)\]<=", line):
        return int(counted[1])
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", line)
    assert listed, line
    return len(listed[1].split(","))
