"""Debian's Chromium for every browser test; without it they are skipped."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Known faults of the page generator: sphinx-thebe, which jupyter-book always loads and this book
# does not use, writes its constants twice into every page; the theme complains of a first visit,
# before any choice of light or dark.
KNOWN = (
    "Identifier 'THEBE_JS_URL' has already been declared",
    "Got invalid theme mode: . Resetting to auto.",
)


@pytest.fixture(scope="session")
def book(tmp_path_factory) -> Path:
    """The committed pages, built into a folder of their own; any warning fails."""
    output = tmp_path_factory.mktemp("book")
    builder = Path(sys.executable).with_name("jupyter-book")
    command = [builder, "build", "book/", "-W", "--keep-going", "--path-output", output]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return output / "_build" / "html"


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A page that keeps what it asked for (``requests``), what failed and what was logged as an
    error (``errors``)."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.requests, page.errors = [], []

    def note(text: str) -> None:
        if not any(known in text for known in KNOWN):
            page.errors.append(text)

    page.on("request", lambda request: page.requests.append(request.url))
    page.on("requestfailed", lambda request: note(f"failed: {request.url}"))
    page.on("pageerror", lambda error: note(str(error)))
    page.on("console", lambda said: note(said.text) if said.type == "error" else None)
    yield page
    page.close()
