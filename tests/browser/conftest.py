"""Debian's Chromium for every browser test; without it they are skipped."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

import cskt
from cskt.search.gallery import Gallery
from tests.browser.served_demo import HOSTILE, SIDE_BY_SIDE, Served, free_port, running
from tests.tiny_runs import COLOURS

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


@pytest.fixture(scope="module")
def serve():
    """The script behind ``make demo``."""
    spec = importlib.util.spec_from_file_location("serve_demo", ROOT / "notebooks" / "demo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two galleries of 12 images, a notebook that shows them, ``demo.ipynb`` of one of them, and
    images to add."""
    folder = tmp_path_factory.mktemp("demo")
    generator = np.random.default_rng(0)
    images = []
    for colour in COLOURS.values():
        for _ in range(2):
            pixels = np.array(colour) + generator.normal(0, 20, (128, 64, 3))
            images.append(np.clip(pixels, 0, 255).astype(np.uint8))
    facts = []
    for i in range(len(images)):
        facts.append({"identity": i // 2, "camera": f"c{i % 2}", "source": f"{i}.png"})
    torch.manual_seed(0)
    cskt.load_model("cskt-mini", config=cskt.CSKTConfig.mini()).save_pretrained(folder / "model")
    for name, model in (("cskt", folder / "model"), ("zero-shot", "cskt-mini")):
        with Gallery(folder / f"{name}.db", model) as gallery:
            gallery.add(np.stack(images), facts)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = new_notebook(cells=[new_code_cell(SIDE_BY_SIDE)], metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / "two.ipynb")
    papermill.execute_notebook(
        ROOT / "notebooks" / "demo.ipynb",
        folder / "demo.ipynb",
        {"gallery": str(folder / "cskt.db")},
        prepare_only=True,
        progress_bar=False,
    )
    (folder / "more").mkdir()
    Image.fromarray(images[0][::-1]).save(folder / "more" / f"{HOSTILE}.png")
    (folder / "more" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.fromarray(generator.integers(0, 255, (2100, 2000, 3), dtype=np.uint8)).save(
        folder / "large.bmp"
    )
    Image.fromarray(images[4]).save(folder / "mine.png")
    return folder


@pytest.fixture(scope="module")
def voila(serve, folder):
    """The server of the two notebooks, for two visitors, started as ``make demo`` starts it."""
    port = free_port()
    command = [*serve.command(folder, port), "--DemoServer.most_visitors=2"]
    with running(command, folder, port) as server:
        said = None
        while said is None:
            said = re.search(r"The demo: (http\S+)/\?token=(\w+)", (folder / "log").read_text())
            time.sleep(0.1)
        yield Served(said[1], said[2], server)
