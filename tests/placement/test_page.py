"""docs/placement.md: its code runs on eight devices and prints what it says, alone and joined."""

import re

import pytest

from .subprocesses import ROOT, losses, said, started

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
    assert len(expected) == len(SNIPPETS) + 2 == 7


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_two_processes_train_as_one_does(tmp_path, devices):
    assert TRAIN.startswith("# train.py")
    path = tmp_path / "train.py"
    path.write_text(TRAIN)

    joined = losses(path, processes=2, devices=devices)
    assert len(joined) == 3 and joined[0] > joined[1] > joined[2]
    assert joined == pytest.approx(losses(path, processes=1, devices=devices), abs=2e-6)
