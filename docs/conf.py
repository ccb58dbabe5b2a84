"""Makes a site of these pages, for `make docs`; the pages themselves stay plain Markdown."""  # noqa: INP001

import re

from sphinx.application import Sphinx

project = "GrantServer"
author = "The authors of GrantServer"
html_title = project
language = "en"
extensions = ["myst_parser"]
html_theme = "furo"
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False
html_use_index = False
html_use_search = True

# Headings are linked to by the names that code hosts give them.
myst_heading_anchors = 6
myst_links_external_new_tab = False
nitpicky = True
# Consoles show commands and answers that no lexer knows.
highlight_language = "none"


def toctrees(text: str) -> str:
    """Directives that make chapters of the sections of the index, in the order of their lists."""
    made = []
    for heading, section in re.findall(r"^## (.+)\n((?:(?!## ).*\n?)*)", text, re.MULTILINE):
        pages = re.findall(r"^- \[[^\]]+\]\(([\w-]+)\.md\)", section, re.MULTILINE)
        made.append("\n".join(["```{toctree}", ":hidden:", f":caption: {heading}", *pages, "```"]))
    return "\n\n".join(made)


def _add_toctrees(_app: Sphinx, page: str, source: list[str]) -> None:
    if page == "index":
        source[0] += "\n" + toctrees(source[0])


def setup(app: Sphinx) -> None:
    """Let the index be a list that code hosts show as well."""
    app.connect("source-read", _add_toctrees)
