"""Links of the site's pages, what its check finds, and the site itself."""

import subprocess
import sys
from pathlib import Path

import pytest

from docs.extensions import check, links

ROOT = Path(__file__).parents[2]


def test_links_of_the_readme_lead_to_pages_of_the_site() -> None:
    docs = ROOT / "docs"
    text = "[a](docs/linear.md#measuring) [b](CHANGELOG.md) [c](LICENSE) [d](https://e.org) [f](#g)"
    assert links.relink(text, docs, ROOT, docs) == (
        "[a](linear.md#measuring) [b](project/changelog.md) [c](../LICENSE) [d](https://e.org) "
        "[f](#g)"
    )
    assert links.relink("[a](../README.md#b)", docs, docs, docs) == "[a](index.md#b)"
    assert links.relink("[a](README.md)", docs, ROOT, docs / "project") == "[a](../index.md)"


def test_a_list_of_pages_without_pages_is_left_out(tmp_path) -> None:
    (tmp_path / "guides").mkdir()
    (tmp_path / "guides" / "one.md").touch()
    assert links._filled("guides/*\nothers/*\n*\n", tmp_path) == "guides/*\n\n*\n"


def test_the_check_finds_what_is_wrong(tmp_path) -> None:
    (tmp_path / "index.html").write_text(
        '<a href="other.html#here">1</a><a href="other.html#gone">2</a><a href="gone.html">3</a>'
        '<a href="https://example.org/">4</a><a href="#top">5</a>'
        '<script src="https://cdn.example.org/x.js"></script><img src="gone.png">'
    )
    (tmp_path / "other.html").write_text('<p id="here"><a href="./">6</a></p>')
    assert check.problems(tmp_path) == [
        "index.html: other.html#gone has no such place on its page",
        "index.html: gone.html leads nowhere",
        "index.html: #top has no such place on its page",
        "index.html: gone.png leads nowhere",
        "index.html: loads https://cdn.example.org/x.js from outside",
    ]
    assert check.problems(tmp_path / "nothing") == [
        f"expected a built site in {tmp_path / 'nothing'}, got no page"
    ]
    assert any("registry.build has no entry" in name for name in check.missing_names(tmp_path))


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path) -> None:
    pytest.importorskip("sphinx_book_theme", reason="needs the extra [docs]")
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs"]
    subprocess.run([*build, str(tmp_path)], cwd=ROOT, check=True)
    assert check.main(str(tmp_path)) == 0
