"""The search demo in Chromium, as a reader uses it: served by Voila as ``make demo`` does it, and
in JupyterLab."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request

import nbformat
import pytest

from tests.browser.served_demo import (
    HOSTILE,
    ROOT,
    ask,
    free_port,
    listening_addresses,
    opened,
    running,
    shows,
    upload,
)

pytestmark = [pytest.mark.timeout(300), pytest.mark.browser]


def test_a_reader_searches_and_asks_why(voila, folder, page):  # noqa: PLR0915  one visit
    address, server = voila.address, voila.process
    opened(page, voila.page("/voila/render/two.ipynb"))
    ask(page, "a person in red")
    figures = page.locator(".cskt-demo figure")
    panels = page.locator(".cskt-panel")
    panels.nth(1).wait_for()
    shows(page, 20)
    assert "synthetic" in page.locator(".cskt-said").last.inner_text()
    assert figures.get_by_text("✓ right").count() >= 1
    assert figures.get_by_text("✗ wrong").count() >= 10
    assert page.locator(".cskt-demo img:not([alt]), .cskt-demo img[alt='']").count() == 0
    assert page.get_by_text("zero-shot", exact=True).locator("visible=true").count() >= 1

    page.get_by_label("Camera").select_option("c1")
    page.get_by_text("Only 6 images fit the filter.").wait_for()
    shows(page, 12)
    texts = figures.locator("img").evaluate_all("all => all.map(one => one.alt)")
    assert all("camera c1" in text for text in texts)
    page.get_by_label("Model").select_option("CSKT")
    shows(page, 6)
    page.get_by_label("Camera").select_option("all")
    page.get_by_label("Model").select_option("side by side")
    shows(page, 20)

    second = figures.nth(1).locator("img").get_attribute("alt").split(",")[1].strip()
    page.get_by_role("button", name="map").nth(1).click()
    panels.locator("img").nth(1).wait_for()
    for panel in panels.all():
        assert second in panel.inner_text()
        assert panel.locator("code").count() == 4
        assert panel.locator("[title]").count() == 32, "a cell for each of the 8 x 4 patches"
    picture = panels.first.locator("img").bounding_box()
    heat = panels.first.locator("img + div").bounding_box()
    assert picture == heat

    page.get_by_role("button", name="more", exact=True).nth(1).click()
    page.locator(".cskt-said b").get_by_text(f"more like {second}").wait_for()
    page.wait_for_function(
        "name => document.querySelector('.cskt-demo figure img').alt.includes(name)", arg=second
    )
    assert "1.00" in figures.first.inner_text()

    upload(page, folder / "mine.png")
    page.locator(".cskt-said b").get_by_text("more like mine.png").wait_for()
    upload(page, folder / "more" / "broken.png")
    page.get_by_text("Not done: broken.png").wait_for()
    upload(page, folder / "large.bmp")  # above the server's usual limit
    page.locator(".cskt-said b").get_by_text("more like large.bmp").wait_for()
    assert figures.count() == 20

    page.get_by_label("Folder").fill("more")
    page.get_by_role("button", name="Add folder").click()
    page.get_by_text("1 images added, 0 known already, 1 files skipped.").wait_for()
    ask(page, HOSTILE)
    page.get_by_label("Hits").fill("20")
    page.get_by_label("Hits").press("Enter")
    page.get_by_text("The gallery holds only 13 images.").wait_for()
    page.locator(f"figure img[alt*='{HOSTILE[:12]}']").first.wait_for()
    page.get_by_label("Example").select_option(index=1)
    page.get_by_label("Example").select_option(index=2)
    page.locator(".cskt-said b").get_by_text(HOSTILE).wait_for()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[src=x]").count() == 0

    assert listening_addresses(server.pid) == {"127.0.0.1"}
    # A page whose name leads here.
    asked = urllib.request.Request(address, headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(asked, timeout=60)
    # Voila's page asks a CDN for style sheets; the browser is told to refuse, and nothing else
    # fails.
    refused = ("Content Security Policy", "failed: https://cdn.jsdelivr.net")
    for error in page.errors:
        assert any(known in error for known in refused), error


def test_the_app_by_keyboard_alone(voila, page):
    """``demo.ipynb`` on a gallery of one's own: no code, Tab and Enter only."""
    finished = []
    page.on("requestfinished", lambda request: finished.append(request.url))
    opened(page, voila.page("/voila/render/demo.ipynb"))
    text = page.inner_text("body")
    assert page.locator("h1").inner_text().startswith("Find a person by a description")
    assert "Everything stays on this machine" in text
    assert "consent" in text
    assert "import cskt" not in text

    def tab_to(what: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate(
                """what => {
                    const at = document.activeElement;
                    const names = [at.innerText, at.labels?.[0]?.innerText];
                    return names.some(name => name?.trim() === what) }""",
                what,
            ):
                return
        raise AssertionError(f"Tab never comes to {what}")

    tab_to("Describe")
    page.keyboard.type("a person in green", delay=10)
    page.keyboard.press("Enter")
    page.locator(".cskt-said b").get_by_text("a person in green").wait_for()
    page.locator(".cskt-panel").wait_for()
    tab_to("Search")
    page.keyboard.press("Enter")
    tab_to("map")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    page.keyboard.press("Enter")
    page.locator(".cskt-panel img").wait_for()
    assert outline == "solid"
    tab_to("more")
    page.keyboard.press("Space")
    page.locator(".cskt-said b").get_by_text("more like").wait_for()
    assert not [url for url in finished if not url.startswith((voila.address, "data:", "blob:"))]


def is_ready(kernel: dict) -> bool:
    return kernel["execution_state"] == "idle" and kernel["connections"] > 0


def test_the_demo_in_jupyterlab(folder, page):
    """Run All, a search, a map."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        "--IdentityProvider.token=",
        "--ServerApp.password=",
        f"--ServerApp.root_dir={folder}",
        "--LabApp.news_url=None",
        f"--LabApp.workspaces_dir={folder / '.workspaces'}",
        f"--LabApp.user_settings_dir={folder / '.settings'}",
    ]
    with running(command, folder, port):
        address = f"http://127.0.0.1:{port}"
        page.goto(f"{address}/lab/tree/two.ipynb?reset", wait_until="load")
        for _ in range(240):  # Run All is lost on a kernel that is not there yet
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"{address}/api/kernels") as answer,
            ):
                kernels = json.load(answer)
                if kernels and is_ready(kernels[0]):
                    break
            page.wait_for_timeout(250)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        page.get_by_label("Describe").wait_for(timeout=120_000)
        ask(page, "a person in blue")
        page.locator(".cskt-panel").nth(1).wait_for()
        assert page.locator(".cskt-demo figure").count() == 20
        page.get_by_role("button", name="map").nth(12).click()
        page.locator(".cskt-panel img").nth(1).wait_for()


@pytest.mark.parametrize("arguments", [[], ["GALLERY=my.db"]])
def test_make_demo_says_where_and_what(arguments):
    """The command that make would run."""
    done = subprocess.run(
        ["make", "-n", "demo", "PORT=9999", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and 'notebooks/demo.py --port "9999"' in done.stdout
    assert ('--gallery "my.db"' in done.stdout) == bool(arguments)


def test_a_missing_gallery_is_said_before_anything_is_served(serve, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert serve.main(["--gallery", "gone.db"]) == 1
    assert f"there is no gallery at {tmp_path / 'gone.db'}" in capsys.readouterr().err


def test_what_is_served_is_said_and_has_the_parameters(
    serve, folder, tmp_path, monkeypatch, capsys
):
    (tmp_path / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "demo.ipynb", tmp_path / "notebooks")
    monkeypatch.setattr(serve, "ROOT", tmp_path)
    monkeypatch.chdir(folder)
    served = []
    monkeypatch.setattr(os, "execv", lambda program, command: served.append(command))
    serve.main(["--gallery", "zero-shot.db", "--port", "9999"])
    (command,) = served
    assert {
        "--Voila.ip=127.0.0.1",
        "--port=9999",
        str(tmp_path / "runs" / "demo-9999.ipynb"),
    } <= set(command)
    said = capsys.readouterr().out
    assert "zero-shot.db: 1" in said
    assert "http://" not in said, "the server says the address once it listens"
    cells = nbformat.read(tmp_path / "runs" / "demo-9999.ipynb", as_version=4).cells
    assert any(str(folder / "zero-shot.db") in cell.source for cell in cells)
