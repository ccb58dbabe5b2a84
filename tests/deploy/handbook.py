"""What the pages about Kubernetes tell their readers to write and to type."""

import re
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).parents[2] / "docs"
PAGE: Final = (DOCS / "kubernetes.md").read_text()
EXPOSURE: Final = (DOCS / "exposure.md").read_text()


def blocks(language: str, page: str = PAGE) -> list[str]:
    """The blocks of a language, in order."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return [text for what, text in found if what == language]


def section(heading: str, page: str = PAGE) -> str:
    """The text below a heading, up to the next one; a # in a block is none."""
    found = re.search(
        rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ [^\n]*\n\n|\Z)", page, re.MULTILINE | re.DOTALL
    )
    assert found is not None, heading
    return found[1]


def headings(above: str, page: str = PAGE) -> list[str]:
    """The headings one level below another, in order."""
    found = re.search(
        rf"^(#+) {re.escape(above)}\n(.*?)(?=^#{{1,2}} [^\n]*\n\n|\Z)",
        page,
        re.MULTILINE | re.DOTALL,
    )
    assert found is not None, above
    return re.findall(rf"^{found[1]}# (.+)$", found[2], re.MULTILINE)


def rows(heading: str, page: str = PAGE) -> list[list[str]]:
    """The cells of the table below a heading, without its own headings."""
    lines = [line for line in section(heading, page).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def anchors(page: str) -> set[str]:
    """What links to a page may have behind the `#`."""
    return {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    }
