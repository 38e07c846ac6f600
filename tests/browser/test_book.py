"""The built book as a reader opens it: from file://, offline, in Chromium."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.timeout(600), pytest.mark.browser]


def pages() -> list[str]:
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())
    names = [toc["root"]]
    for part in toc["parts"]:
        names += [chapter["file"] for chapter in part["chapters"]]
    return names


@pytest.mark.parametrize("name", pages())
def test_every_page_opens_offline(name, book, page):
    page.goto((book / f"{name}.html").as_uri(), wait_until="load")
    page.wait_for_timeout(300)
    outside = [url for url in page.requests if not url.startswith(("file:", "data:", "blob:"))]
    assert not outside
    assert not page.errors
    assert page.locator("h1").first.inner_text().strip()


def test_mathematics_is_typeset(book, page):
    page.goto((book / "method.html").as_uri(), wait_until="load")
    page.wait_for_selector("mjx-container svg")
    assert page.locator("mjx-container").count() > 10
    assert page.locator("mjx-merror, [data-mjx-error]").count() == 0


def test_the_prompt_view_answers_on_the_static_page(book, page):
    page.goto((book / "results/prompts.html").as_uri(), wait_until="load")
    view = page.locator(".cskt-view")
    before = view.locator("p").inner_text()
    view.locator("input[type=range]").press("ArrowRight")
    view.locator("select").select_option(index=2)
    assert "layer 2" in view.locator("p").inner_text() != before
    assert not page.errors


def test_synthetic_figures_are_labelled_on_the_page(book, page):
    page.goto((book / "results/benchmarks.html").as_uri(), wait_until="load")
    text = page.locator("main, article").first.inner_text()
    assert text.count("not run here") >= 3
    assert text.count("(synthetic)") >= 3


def test_the_menu_opens_on_a_phone(book, page):
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto((book / "method.html").as_uri(), wait_until="load")
    chapter = page.locator(".bd-links a", has_text="The embedded default").locator("visible=true")
    assert chapter.count() == 0
    page.locator(".primary-toggle").click()
    chapter.wait_for()


def test_the_contents_of_the_page_open_on_a_phone(book, page):
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto((book / "method.html").as_uri(), wait_until="load")
    contents = page.locator(".bd-sidebar-secondary a.nav-link:visible, dialog a.nav-link:visible")
    assert contents.count() == 0
    page.locator(".secondary-toggle").click()
    contents.first.wait_for(state="visible")


def test_the_menu_closes_and_opens_on_a_wide_screen(book, page):
    page.set_viewport_size({"width": 1300, "height": 800})
    page.goto((book / "method.html").as_uri(), wait_until="load")
    chapter = page.locator(".bd-links a", has_text="The embedded default").locator("visible=true")
    chapter.wait_for()
    page.locator(".primary-toggle").click()
    chapter.wait_for(state="detached")  # none of those that are visible
    page.locator(".primary-toggle").click()
    chapter.wait_for()
