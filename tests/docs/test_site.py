"""The pages make a site without a warning; its links lead somewhere, and it asks nobody else."""

import re
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

from tests.deploy.handbook import DOCS, anchors

ROOT = DOCS.parent
PAGES = sorted(DOCS.glob("*.md"))
IDS = [page.name for page in PAGES]
OUTSIDE = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
MOST_SECONDS = 100


@dataclass
class Page(HTMLParser):
    """What a page of HTML says about other things."""

    text: str
    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    """What a browser fetches by itself."""

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        self.ids |= {told[name] for name in ("id", "name") if name in told}
        if tag == "a" and "href" in told:
            self.links.append(told["href"])
        if tag == "link":
            self.loaded.append(told.get("href", ""))
        self.loaded += [told[name] for name in ("src", "srcset", "data", "poster") if name in told]


def is_outside(address: str) -> bool:
    split = urlsplit(address)
    return bool(split.netloc or split.scheme)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-b", "html"]
    done = subprocess.run(
        [*command, "-d", str(made / "doctrees"), str(DOCS), str(made / "html")],
        capture_output=True,
        text=True,
        check=False,
        timeout=MOST_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return made / "html"


@pytest.fixture(scope="module")
def html(site: Path) -> dict[str, Page]:
    return {
        str(path.relative_to(site)): Page(path.read_text(encoding="utf-8"))
        for path in site.rglob("*.html")
    }


@pytest.mark.timeout(MOST_SECONDS + 20)
def test_every_page_is_reached_from_the_index(html: dict[str, Page]) -> None:
    reached, ahead = set(), ["index.html"]
    while ahead:
        name = ahead.pop()
        reached.add(name)
        # What stands on every page, as the list of chapters does, counts for the index only once.
        for link in html[name].links:
            target = unquote(urldefrag(link).url)
            if target in html and target not in reached:
                ahead.append(target)
    assert {f"{page.stem}.html" for page in PAGES} <= reached


@pytest.mark.timeout(MOST_SECONDS + 20)
def test_every_link_and_anchor_of_the_site_leads_somewhere(
    site: Path, html: dict[str, Page]
) -> None:
    lost = []
    for name, page in html.items():
        for link in page.links:
            if is_outside(link):
                continue
            path, anchor = (unquote(part) for part in urldefrag(link))
            target = path or name
            there = anchor in html[target].ids | {""} if target in html else not anchor
            if not (there and (site / target).is_file()):
                lost.append(f"{name}: {link}")
    assert lost == []


@pytest.mark.timeout(MOST_SECONDS + 20)
def test_a_page_fetches_nothing_from_anybody_else(site: Path, html: dict[str, Page]) -> None:
    fetched = {address for page in html.values() for address in page.loaded}
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        fetched |= set(re.findall(r"url\(\s*['\"]?([^'\")]+)", text))
        fetched |= set(re.findall(r"@import\s+['\"]([^'\"]+)", text))
    assert [one for one in sorted(fetched) if is_outside(one) and not one.startswith("data:")] == []


def test_the_index_lists_every_page_once() -> None:
    listed = re.findall(r"^- \[[^\]]+\]\((.+?)\)", (DOCS / "index.md").read_text(), re.MULTILINE)
    assert sorted(listed) == [name for name in IDS if name != "index.md"]


def test_the_first_page_lists_every_page_once() -> None:
    listed = re.findall(
        r"^\| \[docs/.+?\]\(docs/(.+?)\)", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    assert sorted(listed) == [name for name in IDS if name != "index.md"]


def test_the_index_has_a_section_for_each_kind_of_page() -> None:
    found = re.findall(r"^## (.+)$", (DOCS / "index.md").read_text(), re.MULTILINE)
    assert found == ["Tutorial", "How to", "Reference", "Explanation"]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_a_page_is_plain_markdown(page: Path) -> None:
    text = page.read_text()
    assert re.findall(r"^(?:`{3,}|:{3,})\{.*", text, re.MULTILINE) == []
    assert re.findall(r"^\(.+\)=$|\{[a-z]+\}`", text, re.MULTILINE) == []
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert len(re.findall(r"^# ", prose, re.MULTILINE)) == 1


@pytest.mark.parametrize("page", [*PAGES, *OUTSIDE], ids=[page.name for page in [*PAGES, *OUTSIDE]])
def test_links_lead_somewhere_where_the_code_is(page: Path) -> None:
    if not page.exists():
        pytest.skip("there is none")
    lost = []
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if is_outside(link):
            continue
        path, anchor = (unquote(part) for part in urldefrag(link))
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            lost.append(link)
    assert lost == []
