"""What is installed with the distribution, and what ships in it."""

import configparser
import email
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import registry
import zoo

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
    headings = re.findall(r"^## \[?([\w.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == zoo.__version__


def test_the_version_is_written_down_once():
    assert CONFIG["metadata"]["version"] == "attr: zoo.__version__"
    assert registry.__version__ is zoo.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", zoo.__version__)


def test_the_installed_distribution_is_of_this_version():
    try:
        installed = importlib.metadata.distribution("recurrent-zoo")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("not installed")
    # One that was installed in editable mode has the version of the day when it was.
    if '"editable": true' not in (installed.read_text("direct_url.json") or ""):
        assert installed.version == zoo.__version__


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """The files of the repository, new ones too, without what git ignores."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip(f"no checkout of git: {listed.stderr}")
    return [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]


@pytest.fixture(scope="module")
def distributions(tracked, tmp_path_factory) -> tuple[Path, Path]:
    """The source distribution, and the wheel that is made of it."""
    pytest.importorskip("build", reason="comes with the extra [test]")
    folder = tmp_path_factory.mktemp("build")
    checkout = folder / "checkout"
    for name in tracked:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    # What lies about in a folder where somebody works.
    for name in ("runs/log.json", "build/site/index.html", "zoo/__pycache__/x.pyc", ".env"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("private")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist"]
    done = subprocess.run([*build, checkout], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,), (wheel,) = folder.glob("dist/*.tar.gz"), folder.glob("dist/*.whl")
    return sdist, wheel


def test_the_source_distribution_holds_what_the_repository_does(distributions, tracked):
    sdist, _ = distributions
    root = f"recurrent_zoo-{zoo.__version__}"
    assert sdist.name == f"{root}.tar.gz"
    with tarfile.open(sdist) as archive:
        names = {member.name for member in archive.getmembers() if member.isfile()}
    made = {f"{root}/PKG-INFO"} | {name for name in names if ".egg-info/" in name}
    assert names - made == {f"{root}/{name}" for name in tracked}


def test_the_wheel_holds_both_packages_and_nothing_else(distributions):
    _, wheel = distributions
    assert wheel.name == f"recurrent_zoo-{zoo.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        about = email.message_from_bytes(archive.read(metadata))
    sources = [path for top in ("registry", "zoo") for path in (ROOT / top).rglob("*.py")]
    sources += [ROOT / "registry" / "py.typed", ROOT / "zoo" / "py.typed"]
    expected = {str(path.relative_to(ROOT)) for path in sources}
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert about["Version"] == zoo.__version__ and about["License-Expression"] == "Apache-2.0"
    assert about["Requires-Python"] == ">=3.11"
    assert set(about.get_all("Provides-Extra", [])) == set(CONFIG["options.extras_require"])
