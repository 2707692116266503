"""docs/linear.md: its code runs and prints what it says, and it knows all linear layers."""

import contextlib
import io
import re
from pathlib import Path

import registry
from zoo.recurrent.layers.linear import LinearLayer

PAGE = (Path(__file__).parents[2] / "docs" / "linear.md").read_text()


def test_code_prints_what_it_says() -> None:
    code = "".join(re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "linear.md", "exec"), {"__name__": "page"})
    expected = re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE)
    assert printed.getvalue().splitlines() == expected
    assert len(expected) == 8


def test_table_lists_the_linear_layers() -> None:
    listed = re.findall(r"^\| `(scan_\w+)` \| (?:real|complex)", PAGE, re.MULTILINE)
    layers = [
        name
        for name in registry.names("scan_*")
        if isinstance(registry.build(name, features=2), LinearLayer)
    ]
    assert sorted(listed) == sorted(layers)
