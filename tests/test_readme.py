"""README.md: its code runs and prints what it says, its table and its links are true."""

import contextlib
import io
import re
from pathlib import Path

import pytest

import registry

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY")),
    *sorted((ROOT / "docs").glob("*.md")),
]
README = PAGES[0].read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_code_prints_what_it_says():
    names: dict[str, object] = {"__name__": "readme"}
    with registry.temporary():
        for block in blocks("python"):
            expected = re.findall(r"^print\(.*\)  # (.*)$", block, re.MULTILINE)
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(block, "README.md", "exec"), names)
            assert printed.getvalue().splitlines() == expected
    assert len(blocks("python")) >= 5


def test_table_lists_layers_as_the_registry_does():
    rows = re.findall(r"^\| `(\w+)` \| (.*?) ?\| (.*) \|$", README, re.MULTILINE)
    listed = {name: (re.findall(r"`(\w+)`", also), what) for name, also, what in rows}
    specs = {name: registry.spec(name) for name in registry.names(family="recurrent")}
    about = {name: (list(s.aliases), s.summary) for name, s in specs.items()}
    assert listed.items() <= about.items() and len(listed) >= 18


def test_ci_runs_the_test_command_of_the_readme():
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(commands) == 2
    example, tests = commands
    assert example.endswith("examples/japanese_vowels.py")
    assert tests.endswith("-m pytest -n 2 --dist loadfile")
    script = (ROOT / ".ci" / "run").read_text()
    (pattern,) = re.findall(r"^readme_command=.*grep -E '(.*)' README\.md", script, re.MULTILINE)
    assert [line for line in README.splitlines() if re.search(pattern, line)] == [tests]
    assert 'eval "${readme_command//.venv/$venv}"' in script


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    inside = [target for target in targets if "://" not in target]
    assert [target for target in inside if not (page.parent / target).exists()] == []
