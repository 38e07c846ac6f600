"""Marks in the demo on a telephone and a screen, and who is served at all."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.browser.served_demo import ask, opened, shows

pytestmark = [pytest.mark.timeout(300), pytest.mark.browser]


@pytest.mark.parametrize("width", [390, 1200])
def test_marks_words_and_pictures_on_a_telephone_and_a_screen(voila, page, width):
    page.set_default_timeout(15_000)
    page.set_viewport_size({"width": width, "height": 844})
    opened(page, voila.page("/voila/render/demo.ipynb"))
    ask(page, "a person in red")
    page.get_by_label("Hits").fill("4")
    page.get_by_label("Hits").press("Enter")
    shows(page, 4)
    figures = page.locator(".cskt-demo figure")
    assert page.get_by_label("Camera").input_value() == "all"
    assert page.evaluate("document.documentElement.scrollWidth") <= width

    figures.first.focus()
    page.keyboard.press("r")
    page.keyboard.press("j")
    page.keyboard.press("w")
    page.locator(".cskt-card .mod-danger").wait_for()
    assert page.locator(".cskt-card .mod-success").count() == 1
    page.get_by_role("button", name="Export marks").click()
    with page.expect_download() as table:
        page.get_by_role("link", name="marks.csv").click()
    lines = Path(table.value.path()).read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["mark", "right", "wrong"]
    with page.expect_download() as sheet:
        page.get_by_role("link", name="marks.html").click()
    assert Path(sheet.value.path()).read_text().count("<figure>") == 2

    before = figures.first.inner_text()
    page.get_by_role("button", name="Search with marks").click()
    page.locator(".cskt-said b").get_by_text("after 1 right and 1 wrong").wait_for()
    assert figures.first.inner_text() != before
    page.get_by_label("hide seen").check()
    page.wait_for_function("() => !document.querySelector('.cskt-card .mod-success')")
    page.get_by_label("hide seen").uncheck()
    page.get_by_role("button", name="▶").click()
    page.get_by_text("5 ·").first.wait_for()

    page.get_by_role("button", name="more", exact=True).first.click()
    page.locator(".cskt-said b").get_by_text("more like").wait_for()
    page.get_by_label("with the picture").check()
    ask(page, "a person in blue")
    page.locator(".cskt-said b").get_by_text("but “a person in blue”").wait_for()

    small = figures.first.locator("img").bounding_box()["height"]
    figures.first.focus()
    page.keyboard.press("Enter")
    assert figures.first.locator("img").bounding_box()["height"] > 2 * small
    page.keyboard.press("Escape")
    assert figures.first.locator("img").bounding_box()["height"] == small
    link = page.get_by_role("link", name="link to this search").get_attribute("href")
    assert link == "?describe=a+person+in+blue"
    page.goto(f"{voila.address}/voila/render/demo.ipynb{link}", wait_until="load")
    page.locator(".cskt-said b").get_by_text("“a person in blue”").wait_for(timeout=60_000)


def test_a_closed_page_ends_its_process_and_a_full_house_is_said(voila, browser):
    voila.wait_for_visitors(0)
    pages = [browser.new_page(), browser.new_page(), browser.new_page()]
    for page in pages[:2]:
        opened(page, voila.page("/voila/render/demo.ipynb"))
    assert voila.visitors() == 2
    answer = pages[2].goto(voila.page("/voila/render/demo.ipynb"))
    assert answer.status == 503
    pages[2].get_by_role("heading", name="The demo is full").wait_for()
    for page in pages:
        page.goto("about:blank")
        page.close()
    voila.wait_for_visitors(0)


def test_nobody_else_starts_anything(voila):
    voila.wait_for_visitors(0)
    page = f"/voila/render/demo.ipynb?token={voila.token}"
    for site in ("cross-site", "same-site"):
        assert voila.ask(page, {"Sec-Fetch-Site": site})[0] == 403
    assert voila.ask(page, {"Host": "evil.example"})[0] == 403
    status, text = voila.ask("/voila/render/demo.ipynb")  # without the token
    assert "Describe" not in text
    assert voila.visitors() == 0


def test_a_port_that_is_taken_is_said_before_anything_else(serve, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert serve.main(["--port", str(port)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"port {port} is taken" in captured.err
