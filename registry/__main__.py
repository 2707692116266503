"""The registry on the command line.

    python -m registry                          lists all names
    python -m registry --pattern='scan_*'       lists some of them; also --family, --tag
    python -m registry describe NAME            describes one
    python -m registry describe scan_gru --features=64 --input_shape=100,32,16
                                                builds it, and adds shapes and parameters

Options of a layer are written --option=value. The value is read as Python, as JSON or as text,
whichever fits first.
"""

import ast
import json
import sys
from collections.abc import Sequence
from typing import Any

from registry.description import describe, table
from registry.errors import RegistryError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0, or 2 with one line about what is wrong.

    Example:
        >>> main(["describe", "--features=8"])
        2
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        print(_answer(arguments))
    except (RegistryError, TypeError, ValueError) as error:
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _answer(arguments: Sequence[str]) -> str:
    if {"-h", "--help"} & set(arguments):
        return str(__doc__)
    words = [argument for argument in arguments if not argument.startswith("--")]
    options = dict(_option(argument) for argument in arguments if argument.startswith("--"))
    match words:
        case []:
            return table(**options)
        case ["describe", name]:
            if isinstance(options.get("input_shape"), int):
                options["input_shape"] = (options["input_shape"],)
            return describe(name, **options)
    raise ValueError(f"expected nothing or 'describe NAME', got {words}; see --help")


def _option(argument: str) -> tuple[str, Any]:
    option, equals, text = argument.removeprefix("--").partition("=")
    if not equals:
        raise ValueError(f"expected --option=value, got {argument!r}")
    return option.replace("-", "_"), _value(text)


def _value(text: str) -> Any:
    for parse in (ast.literal_eval, json.loads):
        try:
            return parse(text)
        except (ValueError, TypeError, SyntaxError):
            continue
    return text


if __name__ == "__main__":
    sys.exit(main())
