"""docs/placement.md: its code runs on eight devices and prints what it says, alone and joined."""

import re
import socket

import pytest

from .subprocesses import ROOT, said, started

BLOCKS = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "docs/placement.md").read_text(), re.DOTALL | re.MULTILINE
)
*SNIPPETS, TRAIN = BLOCKS


def test_code_prints_what_it_says(tmp_path):
    program = "\n".join(SNIPPETS)
    expected = re.findall(r"^ *print\(.*\)  # (.*)$", program, re.MULTILINE)
    path = tmp_path / "snippets.py"
    path.write_text(program)
    assert said(started(path, devices=8)).splitlines() == expected
    assert len(expected) == len(SNIPPETS) + 1 == 5


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_two_processes_train_as_one_does(tmp_path, devices):
    assert TRAIN.startswith("# train.py")
    path = tmp_path / "train.py"
    path.write_text(TRAIN)

    def losses(processes: int) -> list[float]:
        address = f"localhost:{free_port()}"
        running = [
            started(path, address, processes, process, devices=devices)
            for process in range(processes)
        ]
        # Gloo reports its connections in between.
        printed = [re.findall(r"^\d\.\d{6}$", said(process), re.MULTILINE) for process in running]
        assert printed == printed[:1] * processes
        return list(map(float, printed[0]))

    joined = losses(2)
    assert len(joined) == 3 and joined[0] > joined[1] > joined[2]
    assert joined == pytest.approx(losses(1), abs=2e-6)
