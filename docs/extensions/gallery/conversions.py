"""Which converters lead to a layer, read from the table of docs/convert.md."""

import dataclasses
import re
from pathlib import Path

_SUFFIXES = {
    "PyTorch": "torch",
    "Keras 3": "keras",
    "dm-haiku": "haiku",
    "equinox": "equinox",
    "Flax NNX": "nnx",
    "Flax Linen": "linen",
    "ONNX": "onnx",
}


@dataclasses.dataclass(frozen=True)
class Conversion:
    """A library that a layer's weights come from.

    Attributes:
      library: its name.
      functions: the names of the converters, from it and, where there is one, to it.
      remark: for which layers of it, or with which options.
    """

    library: str
    functions: tuple[str, ...]
    remark: str


def conversions(page: Path, name: str) -> list[Conversion]:
    """The libraries that have an equal of a layer."""
    found = []
    for library, _, gives, layers in _rows(page.read_text(encoding="utf-8")):
        match = re.search(rf"`{name}`(?: \(([^)]*)\)| (where [^,]*))?", layers)
        if match:
            suffix = _SUFFIXES[library]
            back = () if gives == "–" else (f"to_{suffix}",)
            remark = match[1] or match[2] or ""
            if only := re.fullmatch(r"`(\w+)` only", remark):
                found.append(Conversion(library, (only[1],), ""))
            else:
                found.append(Conversion(library, (f"from_{suffix}", *back), remark))
    return found


def _rows(text: str) -> list[list[str]]:
    table = text.partition("## What is converted")[2].partition("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip(" |") for cell in row] for row in rows if row[0].strip() in _SUFFIXES]
