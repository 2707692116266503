"""docs/linear.md: it knows all linear layers."""

import re
from pathlib import Path

import registry
from zoo.recurrent.layers.linear import LinearLayer

PAGE = (Path(__file__).parents[2] / "docs" / "linear.md").read_text()


def test_table_lists_the_linear_layers() -> None:
    listed = re.findall(r"^\| `(scan_\w+)` \| (?:real|complex)", PAGE, re.MULTILINE)
    layers = [
        name
        for name in registry.names("scan_*")
        if isinstance(registry.build(name, features=2), LinearLayer)
    ]
    assert sorted(listed) == sorted(layers)
