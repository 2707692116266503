"""Runs the code of a page: all its blocks as one program, which has to print what the page says."""

import ast
import contextlib
import dataclasses
import functools
import io
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import jax

import registry
from tests.placement.subprocesses import said, started

ROOT = Path(__file__).parents[1]
# Other folders of docs/ hold what the site generates.
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "guides").glob("*.md")),
]

# Programs that a page shows beside its own, and the test that runs each of them.
OWN_FILES = {"# train.py": "tests/placement/test_page.py"}

# What comes with the extra [interop] alone.
INTEROP = {"equinox", "haiku", "keras", "onnx", "safetensors", "torch"}

# What a fence may hold beside Python; a directive of MyST is allowed as well, unless it holds code.
OTHER_LANGUAGES = {"json", "sh", "text", "toml", "yaml"}
CODE_DIRECTIVES = ("{code", "{doctest", "{eval", "{testcode")


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code: the number of its first line, what its fence says, and the code."""

    line: int
    info: str
    code: str

    @functools.cached_property
    def imports(self) -> set[str]:
        """The packages that it imports."""
        nodes = list(ast.walk(ast.parse(self.code)))
        modules = [a.name for node in nodes if isinstance(node, ast.Import) for a in node.names]
        modules += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
        return {module.partition(".")[0] for module in modules}

    @property
    def is_own_file(self) -> bool:
        """Whether it is a program by itself, which another test runs."""
        return self.code.startswith(tuple(OWN_FILES))

    @property
    def is_quoted(self) -> bool:
        """Whether the library's source has these lines, at any indentation."""
        return any(
            "\n" + textwrap.indent(self.code, " " * indentation) in _source()
            for indentation in (0, 4, 8)
        )


@dataclasses.dataclass(frozen=True)
class Page:
    """A page in Markdown."""

    path: Path

    @functools.cached_property
    def text(self) -> str:
        """All of it."""
        return self.path.read_text()

    @functools.cached_property
    def blocks(self) -> list[Block]:
        """Its blocks of code, in order."""
        fenced = re.finditer(r"^ *```(.*)\n((?:.*\n)*?) *```$", self.text, re.MULTILINE)
        return [Block(self.text.count("\n", 0, m.start(2)) + 1, m[1].strip(), m[2]) for m in fenced]

    @functools.cached_property
    def run_blocks(self) -> list[Block]:
        """Its blocks of Python that are neither quotes nor files of their own."""
        python = [block for block in self.blocks if block.info == "python"]
        return [block for block in python if not block.is_own_file and not block.is_quoted]

    @property
    def devices(self) -> int:
        """How many devices it tells its reader to have."""
        asked = re.findall(r"--xla_force_host_platform_device_count=(\d+)", self.text)
        return max(map(int, asked), default=1)

    @property
    def needs_interop(self) -> bool:
        """Whether some block imports other libraries."""
        return any(block.imports & INTEROP for block in self.run_blocks)

    @property
    def tests(self) -> bool:
        """Whether its program consists of tests, which are for pytest to run."""
        return bool(re.search(r"^def test_", self.program(), re.MULTILINE))

    def program(self, *, interop: bool = False) -> str:
        """Its blocks on the lines where the page has them, so that errors name those.

        Args:
          interop: with the blocks that import other libraries.
        """
        lines = [""] * len(self.text.splitlines())
        for block in self.run_blocks:
            if interop or not block.imports & INTEROP:
                code = block.code.splitlines()
                lines[block.line - 1 : block.line - 1 + len(code)] = code
        return "\n".join(lines).rstrip() + "\n"

    def unclear_fences(self) -> list[str]:
        """What fences say that is no language we know; no block of Python can be left out."""
        fences = re.findall(r"^ *(?:```|~~~).*$", self.text, re.MULTILINE)
        assert len(fences) == 2 * len(self.blocks), f"{self.path}: a fence without its other half"

        def clear(info: str) -> bool:
            if info.startswith("{"):
                return not info.startswith(CODE_DIRECTIVES)
            return info in {"python", *OTHER_LANGUAGES}

        return [block.info for block in self.blocks if not clear(block.info)]


def expected(program: str) -> list[str]:
    """What the comments behind a program's prints say."""
    return re.findall(r"^ *print\(.*\)  # (.*)$", program, re.MULTILINE)


@contextlib.contextmanager
def quick_compilation(quick: bool) -> Iterator[None]:
    """Compiles in half of the time, to programs that are slower."""
    jax.config.update("jax_disable_most_optimizations", quick)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)


def printed(page: Page, program: str, folder: Path, *, quick: bool = True) -> list[str]:
    """The lines that a page's program prints, run in a folder and on the devices it asks for."""
    if page.devices > 1:
        path = folder / "page.py"
        path.write_text(program)
        return said(started(path, devices=page.devices)).splitlines()
    output = io.StringIO()
    with (
        contextlib.chdir(folder),
        registry.temporary(),
        jax.numpy_dtype_promotion("standard"),  # as readers have it, and optax wants it
        jax.numpy_rank_promotion("allow"),
        quick_compilation(quick),
        contextlib.redirect_stdout(output),
    ):
        exec(compile(program, str(page.path), "exec"), {"__name__": page.path.stem})
    return output.getvalue().splitlines()


def check(page: Page, folder: Path, *, interop: bool = False, quick: bool = True) -> None:
    """Requires that the program of a page prints what the page says.

    Args:
      page: the page.
      folder: where its program is run.
      interop: with the blocks that import other libraries.
      quick: compiled without most optimisations, which readers have.
    """
    program = page.program(interop=interop)
    assert printed(page, program, folder, quick=quick) == expected(program)
    if program.strip() and not page.tests:
        assert expected(program), f"{page.path} runs code and shows nothing of what it does"


def run_tests(page: Page, folder: Path) -> None:
    """Requires that the tests which a page shows pass."""
    path = folder / "test_page.py"
    path.write_text(page.program(interop=True))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def broken_links(page: Page) -> list[str]:
    """The relative links of a page that lead to no file, or to no heading of it."""
    found = []
    for target in re.findall(r"\]\(([^)\s]+)[^)]*\)", page.text):
        name, _, heading = target.partition("#")
        path = (page.path.parent / name) if name else page.path
        if "://" in target:
            continue
        if not path.exists() or (heading and heading not in _headings(path)):
            found.append(target)
    return found


def _headings(path: Path) -> set[str]:
    """The anchors of a page, as a repository's page and MyST make them of its headings."""
    titles = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@functools.cache
def _source() -> str:
    return "\n" + "\n".join(path.read_text() for path in sorted((ROOT / "zoo").rglob("*.py")))
