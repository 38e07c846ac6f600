"""The two views of the prompts in Chromium: from file://, and with Python behind it under Voila."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cskt import widgets

VOILA = Path(sys.executable).with_name("voila")
pytestmark = pytest.mark.timeout(300)
NOTEBOOK = """import torch
torch.set_num_threads(1)
import numpy as np
import cskt
from cskt import widgets
images = np.random.default_rng(0).integers(0, 255, (2, 128, 64, 3), dtype=np.uint8)
captions = ["a woman in a red coat with a black backpack", "blueish <script>window.hacked = 1</script>"]
display(widgets.PromptExplorer(cskt.load_model("cskt-mini"), images, captions))"""


@pytest.fixture
def maps() -> np.ndarray:
    """Of two images, three layers and four prompts."""
    return (
        np.random.default_rng(1).dirichlet(np.ones(41), (2, 3, 4))[..., :32].reshape(2, 3, 4, 8, 4)
    )


@pytest.fixture
def static(page, maps, tmp_path):
    """Two views on one page, the second with hostile text; the first of them as a locator."""
    images = np.random.default_rng(0).integers(0, 255, (2, 128, 64, 3), dtype=np.uint8)
    names = ["projected 1", "projected 2", "own 1", "own 2"]
    hostile = [
        "</script><script>window.hacked = 1</script>",
        '"><img src=x onerror="window.hacked = 1">',
        "own 1",
        "b",
    ]
    views = [
        widgets.prompt_view(images, maps, names, "Where patches look"),
        widgets.prompt_view(images, maps, hostile, hostile[1]),
    ]
    file = tmp_path / "view.html"
    file.write_text(
        "<!doctype html><meta charset=utf-8><title>view</title>" + "".join(views), encoding="utf-8"
    )
    page.goto(file.as_uri(), wait_until="load")
    yield page.locator(".cskt-view").first
    assert not page.errors and page.evaluate("window.hacked") is None
    assert not [url for url in page.requests if not url.startswith(("file:", "data:"))]


def seen(view) -> tuple[str, str, str]:
    """The two numbers and the overlay's pixels."""
    return (
        view.locator(".low").inner_text(),
        view.locator(".high").inner_text(),
        view.locator("canvas").evaluate("canvas => canvas.toDataURL()"),
    )


def test_every_choice_changes_numbers_and_overlay(static, maps):
    """What is shown is that map's; the other view stays as it is."""
    other, before = static.page.locator(".cskt-view").nth(1), []
    untouched = seen(other)
    image, layer, prompt = (
        static.locator("[type=radio]"),
        static.get_by_label("Layer"),
        static.get_by_label("Prompt"),
    )

    def expect(*place: int) -> None:
        assert seen(static)[:2] == (f"{maps[place].min():.4f}", f"{maps[place].max():.4f}")
        assert seen(static)[2] not in before
        before.append(seen(static)[2])

    expect(0, 0, 0)
    picture = static.locator(".stage img").nth(1).get_attribute("src")
    static.locator("[role=radiogroup] img").nth(1).click()
    expect(1, 0, 0)
    assert {big.get_attribute("src") for big in static.locator(".stage img").all()}.isdisjoint(
        {picture}
    )
    layer.fill("3")
    expect(1, 2, 0)
    prompt.select_option("own 2")
    expect(1, 2, 3)
    assert static.locator(".stage img").nth(0).get_attribute("alt") == "image 2"
    assert static.locator(".shown").inner_text() == "image 2, layer 3, prompt own 2"
    assert (
        static.get_by_alt_text("image 2, layer 3, prompt own 2, shaded by attention").count() == 1
    )
    image.nth(1).focus()
    static.page.keyboard.press("ArrowLeft")
    expect(0, 2, 3)
    layer.focus()
    static.page.keyboard.press("ArrowLeft")
    expect(0, 1, 3)
    assert seen(other) == untouched
    assert static.page.evaluate("[...document.querySelectorAll('[id]')].length") == 2


def test_the_overlay_is_strongest_where_attention_is(static, maps):
    alphas = static.locator("canvas").evaluate(
        "canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
    )[3::4]
    assert len(alphas) == 32 and np.argmax(alphas) == maps[0, 0, 0].argmax() and min(alphas) == 0
    over, under = (
        static.locator("canvas").bounding_box(),
        static.locator(".stage img").nth(1).bounding_box(),
    )
    assert over == under


@pytest.fixture(scope="module")
def voila(tmp_path_factory):
    """The address of a running notebook that shows a PromptExplorer; the server ends with the
    tests."""
    folder = tmp_path_factory.mktemp("voila")
    cell = dict(
        cell_type="code", execution_count=None, id="a", metadata={}, outputs=[], source=NOTEBOOK
    )
    kernel = dict(kernelspec=dict(name="python3", display_name="Python 3", language="python"))
    (folder / "explorer.ipynb").write_text(
        json.dumps(dict(cells=[cell], metadata=kernel, nbformat=4, nbformat_minor=5))
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [VOILA, "explorer.ipynb", "--no-browser", "--Voila.ip=127.0.0.1", f"--port={port}"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        try:
            for _ in range(120):
                assert server.poll() is None, (folder / "log").read_text()
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(30)


def test_the_explorer_answers_under_voila(voila, page):
    page.goto(voila, wait_until="load")
    picture, words = page.locator(".widget-html").nth(0), page.locator(".widget-html").nth(1)
    picture.locator("img").first.wait_for(timeout=120_000)
    assert picture.locator("img[alt]").count() == 2 and "⟨end⟩" in words.inner_text()

    def changed(act) -> tuple[str, str]:
        """What both views hold once they have followed."""
        before = picture.inner_html(), words.inner_html()
        act()
        page.wait_for_function(
            "before => [...document.querySelectorAll('.widget-html')].slice(0, 2)"
            ".every((view, i) => view.innerHTML !== before[i])",
            arg=before,
            timeout=10_000,
        )
        return picture.inner_text(), words.inner_text()

    page.locator(".widget-slider [role=slider]").first.focus()
    for text in changed(lambda: page.keyboard.press("ArrowRight")):
        assert "layer 2, head mean, prompt own 1" in text
    for text in changed(lambda: page.get_by_label("Prompt").select_option("projected 3")):
        assert "layer 2, head mean, prompt projected 3" in text
    page.get_by_label("Caption").select_option(index=1)
    words.get_by_text("blueish").wait_for()
    page.get_by_label("Image").select_option(index=1)
    picture.get_by_text("Patches of image 2").wait_for()
    assert words.locator("script").count() == 0 and words.get_by_text("script").count() == 2
    assert page.evaluate("window.hacked") is None
