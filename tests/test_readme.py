"""README.md: its table is true, and its commands are those that are tested."""

import re
from pathlib import Path

import registry

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


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
