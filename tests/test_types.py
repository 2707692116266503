"""What type checkers see of the library and of programs that use it."""

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from zoo.catalogue import LAYERS, BuiltInName

ROOT = Path(__file__).parents[1]
PROGRAM = """
import registry
from zoo.recurrent import ScanGRU

layer = registry.build("scan_gru", features=4)
reveal_type(layer)
reveal_type(ScanGRU(features=4))
reveal_type(layer.output_features)
reveal_type(registry.build({"name": "scan_gru"}))
"""


def check(*arguments: str) -> tuple[int, str]:
    """Runs pyright with the interpreter that runs this; returns its status and what it says."""
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_names_that_build_a_layer_are_those_of_the_catalogue() -> None:
    assert set(get_args(BuiltInName)) <= set(LAYERS)


@pytest.mark.slow
def test_the_library_agrees_with_its_annotations() -> None:
    pytest.importorskip("pyright")
    status, text = check("zoo", "registry")
    assert status == 0, text


@pytest.mark.slow
def test_a_program_sees_the_types(tmp_path: Path) -> None:
    pytest.importorskip("pyright")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    status, text = check(str(program))
    assert status == 0, text
    for kind in ("RecurrentLayer", "ScanGRU", "int", "Any"):
        assert f'is "{kind}"' in text, text
