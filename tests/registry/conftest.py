"""What the tests of the registry share: names that vanish afterwards, and made-up distributions."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import registry


@pytest.fixture(autouse=True)
def names_are_restored() -> Iterator[None]:
    with registry.temporary():
        yield


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Installs a distribution into a new folder on sys.path, as pip would leave it there."""
    before = set(sys.modules)

    def install(
        name: str,
        entries: str,
        *,
        version: str = "1.2",
        group: str = "[zoo.modules]\n",
        **modules: str,
    ) -> Path:
        site = tmp_path / f"{name}-{version}"
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (info / "METADATA").write_text(metadata)
        (info / "entry_points.txt").write_text(group + entries)
        for module, source in modules.items():
            (site / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(site)
        return site

    yield install
    monkeypatch.undo()
    for module in set(sys.modules) - before:
        if module.startswith("acme"):
            del sys.modules[module]
    registry.names()  # a last look, so that nothing of this test is remembered
