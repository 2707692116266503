"""What stands around the code: workflows, citation, hooks. It names the versions that there are."""

import configparser
import re
import sys
from pathlib import Path

import pytest
import yaml

import zoo

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def commands(workflow: Path) -> list[str]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"].values()
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == zoo.__version__
    assert citation["license"] == "Apache-2.0"


def test_every_supported_python_is_tested():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    classifiers = config["metadata"]["classifiers"]
    supported = re.findall(r"^Programming Language :: Python :: (3\.\d+)$", classifiers, re.M)
    tests = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    matrix = tests["jobs"]["versions"]["strategy"]["matrix"]
    assert matrix == {"python": supported, "jax": ["oldest", "newest"]}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_call_what_is_there(workflow):
    assert commands(workflow)
    for command in commands(workflow):
        for script in re.findall(r"(?<![\w/])\.ci/\w+", command):
            assert (ROOT / script).exists()


def test_workflows_may_read_and_no_more():
    for workflow in WORKFLOWS:
        settings = yaml.safe_load(workflow.read_text())
        assert settings["permissions"] == {"contents": "read"}, workflow.name


def test_the_oldest_versions_are_found_in_setup_cfg():
    (command,) = (x for x in commands(ROOT / ".github/workflows/tests.yml") if "sed -nE" in x)
    (pattern,) = re.findall(r"'s/(.*?)/", command)
    found = re.findall(pattern, (ROOT / "setup.cfg").read_text(), re.MULTILINE)
    assert sorted(found) == ["absl-py", "chex", "flax", "jax", "jaxlib"]


def test_the_commands_of_contributing_are_those_of_the_workflows():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (site,) = (x for x in commands(ROOT / ".github/workflows/docs.yml") if "sphinx" in x)
    assert site in text
    release = commands(ROOT / ".github/workflows/release.yml")
    assert {"python -m build", "python -m twine check --strict dist/*"} <= {*release}
    assert all(x in text for x in ("python -m build", "python -m twine check --strict dist/*"))


def test_no_folder_of_tests_has_the_name_of_a_standard_module():
    """Pytest imports a folder by its own name, in the place of what has this name already."""
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/__init__.py")}
    assert folders and not folders & sys.stdlib_module_names
