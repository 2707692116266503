"""Every page: its code runs and prints what it says, and its links lead somewhere."""

import pytest

from tests import pages
from tests.pages import OWN_FILES, PAGES, ROOT, Page

ROWS = {str(path.relative_to(ROOT)): Page(path) for path in PAGES}


def rows(*, where, slow: str = "") -> list:
    """The pages that are wanted; those of the folder ``slow`` belong to the long tests."""
    return [
        pytest.param(
            page, id=name, marks=[pytest.mark.slow] if page.path.parent.name == slow else []
        )
        for name, page in ROWS.items()
        if where(page)
    ]


@pytest.mark.parametrize("page", rows(where=lambda page: page.program().strip(), slow="guides"))
def test_code_prints_what_the_page_says(page, tmp_path):
    pages.check(page, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("page", rows(where=lambda page: page.path.parent.name == "guides"))
def test_code_prints_the_same_with_all_optimisations(page, tmp_path):
    pages.check(page, tmp_path, quick=False)


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras
@pytest.mark.parametrize("page", rows(where=lambda page: page.needs_interop))
def test_code_with_other_libraries_prints_what_the_page_says(page, tmp_path):
    pages.check(page, tmp_path, interop=True)


@pytest.mark.slow
@pytest.mark.parametrize("page", rows(where=lambda page: page.tests))
def test_tests_on_the_page_pass(page, tmp_path):
    pages.run_tests(page, tmp_path)


@pytest.mark.parametrize("page", rows(where=lambda page: True))
def test_all_code_is_run_and_links_lead_somewhere(page):
    assert page.unclear_fences() == []
    assert pages.broken_links(page) == []


@pytest.mark.parametrize("page", rows(where=lambda page: page.path.parent.name == "guides"))
def test_a_guide_is_short_and_runs(page):
    assert page.text.startswith("# ") and page.program(interop=True).strip()
    assert len(page.text.splitlines()) <= 170


def test_programs_of_their_own_have_a_test():
    shown = [block.code.splitlines()[0] for page in ROWS.values() for block in page.blocks]
    for name, test in OWN_FILES.items():
        assert any(line.startswith(name) for line in shown) and (ROOT / test).exists()


def page_of(tmp_path, *parts: str) -> Page:
    path = tmp_path / "page.md"
    path.write_text("\n".join(["# A page", "", *parts, ""]))
    return Page(path)


def block(code: str, info: str = "python") -> str:
    return f"```{info}\n{code}\n```"


def test_blocks_share_names_and_errors_name_the_line(tmp_path):
    page = page_of(tmp_path, block("x = 1"), "Then:", block("print(x + 1)  # 2"))
    pages.check(page, tmp_path)
    with pytest.raises(NameError) as caught:
        pages.check(page_of(tmp_path, "And:", block("print(y)  # 2")), tmp_path)
    assert caught.traceback[-1].lineno + 1 == 5


@pytest.mark.parametrize(
    "code",
    ["print(1)  # 2", "print(1)", "for n in (1, 1):\n    print(n)  # 1", "x = 1"],
    ids=["another", "no comment", "twice", "nothing shown"],
)
def test_what_is_printed_is_compared(tmp_path, code):
    with pytest.raises(AssertionError):
        pages.check(page_of(tmp_path, block(code)), tmp_path)


@pytest.mark.parametrize("info", ["python no-run", "py", "", "{code-block} python", "python3"])
def test_no_code_can_be_left_out(tmp_path, info):
    page = page_of(tmp_path, block("x = 1", info))
    assert page.unclear_fences() == [info]


def test_other_fences_are_found(tmp_path):
    page = page_of(tmp_path, "~~~python", "x = 1", "~~~")
    with pytest.raises(AssertionError, match="a fence without its other half"):
        page.unclear_fences()


def test_other_blocks_are_left_alone(tmp_path):
    kinds = ("sh", "text", "toml", "{toctree}")
    page = page_of(tmp_path, *(block("some words", kind) for kind in kinds))
    assert page.unclear_fences() == [] and page.program().strip() == ""


def test_blocks_with_other_libraries_are_told_apart(tmp_path):
    page = page_of(tmp_path, block("import torch.nn as nn\nx = 2"), block("print(1)  # 1"))
    assert page.needs_interop and "torch" not in page.program()
    assert "torch" in page.program(interop=True)


def test_quotes_have_to_be_in_the_source(tmp_path):
    line = 'n = self.activation_fn(u["in"] + r * hn)'
    assert page_of(tmp_path, block(line)).program().strip() == ""
    assert page_of(tmp_path, block(line.replace("hn", "nh"))).program().strip() != ""
    assert page_of(tmp_path, block(line.removeprefix("n = "))).program().strip() != ""


def test_broken_links_are_found(tmp_path):
    links = "[a](page.md) [b](other.md) [c](page.md#a-page) [d](#a-part) [e](https://x.y/z)"
    assert pages.broken_links(page_of(tmp_path, links)) == ["other.md", "#a-part"]
