"""What the page generator leaves undone: captions and alternative texts of plots, folded
parameters, roles that assistive technology knows, and no file that no page loads."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

PARAMETERS = {"parameters", "injected-parameters"}
POINT = 96 / 72  # of a plot's size, in pixels
# Written into each page: what it says, and what it should say.
REPAIRS = (
    # The theme draws icons with a font, and once more with a script of 1.5 MB.
    (r'<script defer src="[^"]*scripts/fontawesome\.js[^"]*"></script>', ""),
    # Nothing here is run on another machine.
    (r"<script>const THEBE_JS_URL[^<]*</script>", ""),
    (r'<script async="async" src="[^"]*sphinx-thebe\.js[^"]*"></script>', ""),
    (r'<link [^>]*href="[^"]*sphinx-thebe\.css[^"]*" />', ""),
    # Links stand between the list and its items, and an item is no list item.
    (r'<div role="list" class="citation-list">', '<div class="citation-list">'),
    (r' role="doc-biblioentry"', ""),
    (
        r'<div class="sidebar-primary-items__start ',
        '<div role="navigation" aria-label="Book" class="sidebar-primary-items__start ',
    ),
    # The label of a fold is what it reads.
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),
    (r'<th class="head"><p></p></th>', '<td class="head"></td>'),
    (r'<th class="blank( level\d)?" *>&nbsp;</th>', r'<td class="blank\1">&nbsp;</td>'),
    (r'(<table id="T_.*?</table>)', r'<div class="scroll-box">\1</div>'),
)
WITH_MATHEMATICS = 'class="math '
MATHJAX = (
    r"<script>window\.MathJax = [^<]*</script>\s*"
    r'<script defer="defer" src="[^"]*mathjax[^"]*"></script>'
)
UNUSED = (  # below _static
    "**/*.map",
    "scripts/fontawesome.js",
    "vendor/fontawesome/webfonts/*.ttf",  # browsers ask for the smaller ones
    "vendor/fontawesome/webfonts/fa-brands-*",
    "vendor/fontawesome/webfonts/fa-regular-*",
    "sphinx-thebe.*",
)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", fold_parameters)
    app.connect("build-finished", finish)
    app.add_transform(PlotsBecomeFigures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def fold_parameters(app: Sphinx, page: str, source: list[str]) -> None:
    """The cells with a notebook's parameters are folded like every other one."""
    if not app.env.doc2path(page).endswith(".ipynb"):
        return
    notebook = json.loads(source[0])
    for cell in notebook["cells"]:
        tags = cell["metadata"].setdefault("tags", [])
        if PARAMETERS.intersection(tags) and "hide-input" not in tags:
            tags.append("hide-input")
    source[0] = json.dumps(notebook)


class PlotsBecomeFigures(SphinxTransform):
    """A plot of a notebook carries its name, caption and alternative text in itself
    (:func:`cskt.report.style.show`): it becomes a numbered figure with the label
    ``PAGE-NAME``."""

    default_priority = 500  # before the labels of the page are collected

    def apply(self, **arguments: Any) -> None:
        page = self.env.docname.rpartition("/")[2]
        count: dict[str, int] = {}
        for image in list(self.document.findall(nodes.image)):
            path = Path(self.env.app.srcdir, image["uri"])
            if not image["uri"].endswith(".svg") or not path.is_file():
                continue
            drawing = path.read_text(encoding="utf-8")
            caption = _text_of(drawing, "title")
            if caption is None or image.get("alt"):
                continue
            name = re.search(r'data-name="([\w-]+)"', drawing)[1]
            count[name] = count.get(name, 0) + 1
            if count[name] > 1:
                name = f"{name}-{count[name]}"
            self._replace(image, f"{page}-{name}", caption, drawing)

    def _replace(self, image: nodes.image, label: str, caption: str, drawing: str) -> None:
        width = re.search(r'<svg[^>]* width="([\d.]+)pt"', drawing)
        box = nodes.container("", classes=["scroll-box"])
        figure = nodes.figure("", box, nodes.caption(caption, caption), names=[label])
        image.replace_self(figure)
        image["alt"] = _text_of(drawing, "desc")
        image["classes"] = ["dark-light"]  # the theme leaves it as it is in dark mode
        image["width"] = f"{float(width[1]) * POINT:.0f}px"
        box += image
        self.document.note_explicit_target(figure)


def _text_of(drawing: str, element: str) -> str | None:
    found = re.search(rf"<{element}>(.*?)</{element}>", drawing, flags=re.DOTALL)
    return html.unescape(found[1]) if found else None


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Repair the pages that were written, and remove what none of them loads."""
    if exception or app.builder.format != "html":
        return
    built = Path(app.outdir)
    icons: set[str] = set()
    for path in built.rglob("*.html"):
        if "_static" not in path.parts:
            text = repaired(path.read_text(encoding="utf-8"))
            icons.update(re.findall(r"fa-([a-z-]+)", text))
            path.write_text(text, encoding="utf-8")
    static = built / "_static"
    sheet = static / "styles" / "pydata-sphinx-theme.css"
    rules = without_unused_icons(sheet.read_text(encoding="utf-8"), icons)
    sheet.write_text(rules, encoding="utf-8")
    for pattern in UNUSED:
        for path in static.glob(pattern):
            _remove(path)
    for path in (built / "_sources").rglob("*.ipynb"):
        _drop_outputs(path)


def repaired(page: str) -> str:
    """A page's html with :data:`REPAIRS`, with icons, and without MathJax where nothing is to be
    typeset."""
    for pattern, replacement in REPAIRS:
        page = re.sub(pattern, replacement, page, flags=re.DOTALL)
    if WITH_MATHEMATICS not in page:
        page = re.sub(MATHJAX, "", page)
    return page


def without_unused_icons(sheet: str, used: set[str]) -> str:
    """The theme's style sheet with the icons that the pages name, of two thousand."""
    rule = r'(?:\.fa-[\w-]+:before,?)+\{content:"[^"]*"\}'

    def kept(found: re.Match) -> str:
        names = re.findall(r"\.fa-([\w-]+):before", found[0])
        return found[0] if used.intersection(names) else ""

    return re.sub(rule, kept, sheet)


def _remove(path: Path) -> None:
    """A file, or a folder with all its files."""
    if path.is_dir():
        for inner in path.iterdir():
            _remove(inner)
        path.rmdir()
    else:
        path.unlink()


def _drop_outputs(path: Path) -> None:
    """A notebook to download has no outputs: whoever opens it runs it."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
            cell.execution_count = None
    nbformat.write(notebook, path)
