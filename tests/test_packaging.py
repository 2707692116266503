"""What is installed with the distribution, and what ships in it."""

import configparser
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONFIG = configparser.ConfigParser()
CONFIG.read(ROOT / "setup.cfg")


def required(section: str, option: str) -> dict[str, str]:
    """Name of the distribution → the versions that are asked for."""
    lines = CONFIG[section][option].split()
    return dict(re.fullmatch(r"([\w-]+)(.*)", line).groups() for line in lines)


def test_the_core_depends_on_jax_and_flax_alone():
    core = required("options", "install_requires")
    assert set(core) == {"absl-py", "chex", "flax", "jax", "jaxlib"}
    assert all(version.startswith(">=") for version in core.values())


def test_torch_is_asked_for_by_exactly_one_version():
    extras = CONFIG["options.extras_require"]
    asked = {name: required("options.extras_require", name).get("torch") for name in extras}
    assert set(asked.values()) == {None, "==2.13.0"}


def test_the_changelog_begins_with_this_version():
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == CONFIG["metadata"]["version"]


@pytest.mark.slow
def test_the_wheel_holds_both_packages_and_nothing_else(tmp_path):
    hidden = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "runs")
    shutil.copytree(ROOT, tmp_path / "checkout", ignore=hidden)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", tmp_path]
    subprocess.run([*build, tmp_path / "checkout"], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    sources = [path for top in ("registry", "zoo") for path in (ROOT / top).rglob("*.py")]
    sources += [ROOT / "registry" / "py.typed", ROOT / "zoo" / "py.typed"]
    assert names == {str(path.relative_to(ROOT)) for path in sources}
