"""The example of a docstring, run, with what it really printed."""

import contextlib
import doctest
import io


def session(text: str, where: str) -> str:
    """Runs a doctest and returns it as a session, with the output of this run.

    Raises:
      ValueError: the output is not what the docstring says.

    """
    names: dict[str, object] = {}
    lines: list[str] = []
    checker = doctest.OutputChecker()
    for example in doctest.DocTestParser().get_examples(text):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(example.source, where, "single"), names)
        got = printed.getvalue()
        if not checker.check_output(example.want, got, doctest.NORMALIZE_WHITESPACE):
            raise ValueError(
                f"the example of {where}: expected {example.want!r}, got {got!r}, of "
                f"{example.source.strip()}"
            )
        first, *rest = example.source.rstrip("\n").split("\n")
        lines += [f">>> {first}", *(f"... {line}" for line in rest), *got.splitlines()]
    return "\n".join(lines)
