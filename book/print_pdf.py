"""The whole book as one PDF, printed by Chromium: ``python book/print_pdf.py`` in the project's
folder (``make pdf``). It prints the committed pages and needs no LaTeX."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "_build" / "pdf" / "cskt.pdf"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
# What has no meaning on paper: the menus, the buttons and the code of folded cells.
HIDDEN = (
    ".bd-sidebar-primary, .bd-sidebar-secondary, .bd-header-article, .bd-header, .prev-next-area,"
    ".bd-footer, .cell .cell_input, details.hide.above-input, .headerlink, button, .copybtn"
)
STYLE = f"""
{HIDDEN} {{ display: none !important; }}
.bd-main, .bd-content, .bd-article-container, .bd-page-width {{ max-width: none !important; }}
.bd-article-container {{ padding: 0 !important; }}
pre {{ white-space: pre-wrap !important; }}
table {{ font-size: 7pt !important; }}
table.sortable {{ font-size: 5.5pt !important; }}
td, th {{ white-space: normal !important; padding: 1pt 2pt !important; }}
span[id^="document-"] + section {{ break-before: page; }}
img, svg, table tr, pre {{ break-inside: avoid; }}
"""


def build() -> Path:
    """All chapters in one page of html; returns it. Ends the program where that fails."""
    place = ROOT / "_build" / "single"
    tool = str(Path(sys.executable).with_name("jupyter-book"))
    command = [tool, "build", "book/", "--builder", "singlehtml"]
    command += ["--path-output", str(place)]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        sys.exit("The book could not be built; see the message above.")
    pages = sorted((place / "_build" / "singlehtml").glob("*.html"))
    return pages[0]


def print_page(page_file: Path, target: Path) -> None:
    """Print a page of html with the system's Chromium."""
    found = [path for path in map(shutil.which, BROWSERS) if path]
    if not found:
        sys.exit("Chromium was not found; on Debian or Ubuntu: apt-get install chromium.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found[0], args=FLAGS)
        page = browser.new_page(color_scheme="light")
        page.set_default_timeout(600_000)
        page.goto(page_file.as_uri(), wait_until="load")
        page.wait_for_function(
            "!window.MathJax || document.querySelector('mjx-container') !== null"
        )
        page.wait_for_timeout(5000)
        page.add_style_tag(content=STYLE)
        margins = {"top": "16mm", "bottom": "16mm", "left": "16mm", "right": "16mm"}
        page.pdf(path=target, format="A4", margin=margins, print_background=True)
        browser.close()


if __name__ == "__main__":
    print_page(build(), TARGET)
    print(f"The book as a PDF: {TARGET}")
