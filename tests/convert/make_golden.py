"""Makes the golden arrays with the real libraries: `python tests/convert/make_golden.py`.

Each case holds what the converter is given as plain data, random inputs and states, and what the
library computed from them, with and without lengths.
"""

import dataclasses
from typing import Any

import golden
from live import LENGTHS, LIBRARIES, Shape, sequences, states


def case(name: str, shape: Shape) -> dict[str, Any]:
    """Builds one network, runs it, and returns the case."""
    library = LIBRARIES[name]
    network = library.build(shape)
    arguments, options = library.plain(network)
    x, start = sequences(shape.dtype), states(shape)
    runs = [
        dict(zip(("outputs", "ends"), library.run(network, shape, x, lengths, start), strict=True))
        for lengths in (None, LENGTHS)
    ]
    state = library.state(shape, start)
    return {
        "shape": dataclasses.asdict(shape),
        "arguments": arguments,
        "options": options,
        "x": x,
        "start": start,
        "state": state if name == "onnx" else [state],
        "lengths": LENGTHS.tolist(),
        "runs": runs,
    }


def main() -> None:
    """Writes one file per library."""
    golden.FOLDER.mkdir(exist_ok=True)
    for name, library in LIBRARIES.items():
        # Parameters alone do not say which functions a Flax cell was given.
        cells = getattr(library, "default_cells", library.cells)
        shapes = [Shape(cell, *size) for cell in cells for size in ((1, 1), (3, 2))]
        shapes += [Shape(cell, 2, 1, False) for cell in cells if False in library.biases]
        path = golden.save(name, [case(name, shape) for shape in shapes])
        print(f"{path.name}: {len(shapes)} cases, {path.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main()
