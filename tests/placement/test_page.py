"""docs/placement.md: its program for several processes trains as one process does."""

import re

import pytest

from .subprocesses import ROOT, losses

(TRAIN,) = re.findall(
    r"^```python\n(# train\.py.*?)^```",
    (ROOT / "docs/placement.md").read_text(),
    re.DOTALL | re.MULTILINE,
)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_two_processes_train_as_one_does(tmp_path, devices):
    path = tmp_path / "train.py"
    path.write_text(TRAIN)

    joined = losses(path, processes=2, devices=devices)
    assert len(joined) == 3 and joined[0] > joined[1] > joined[2]
    assert joined == pytest.approx(losses(path, processes=1, devices=devices), abs=2e-6)
