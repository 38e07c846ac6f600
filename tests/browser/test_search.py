"""The page that searches, in Chromium: its tokenizer against open_clip's, its hits against
Python's, its messages."""

from __future__ import annotations

import functools
import html
import http.server
import json
import random
import threading
import unicodedata
from pathlib import Path

import ftfy
import pytest

from cskt import load_model
from cskt.model.inputs import fit_captions
from cskt.search import page as search

ROOT = Path(__file__).parents[2]
DATA = ROOT / "book" / "_assets" / "search"
pytestmark = [pytest.mark.timeout(600), pytest.mark.browser]
PIECES = [
    "red",
    "Coat",
    "'s",
    "'LL",
    "\t",
    "\n",
    "&amp;",
    "&eacute;",
    "&#233;",
    "&#x1F600;",
    "&lt;b&gt;",
    "<b>",
    "&notit;",
    "<end_of_text>",
    "<start_of_text>",
    "😀",
    "👩🏽‍🚀",
    "日本語",
    "Ω",
    "ß",
    "İ",
    "ﬁ",
    "１２",
    "½",
    "²",
    "_",
    "--",
    "!?",
    "’",
    "“",
    "é",
    "e\u0301",
    "\u00a0",
    "\u3000",
    "\ufeff",
    "\u200d",
    "Привет",
    "مرحبا",
    "हिन्दी",
    "&",
    "&;",
    "'",
    "\u0085",
    "\u2028",
    "\x1b[31m",
    "Ⅷ",
    "ŉ",
    "&amp;lt;",
    "&#128;",
    "&#0;",
    "&#x110000;",
    "'ſ",
    "</script>",
]
BLOCKS = [
    (32, 126),
    (0xA0, 0x24F),
    (0x370, 0x5FF),
    (0x2000, 0x2BFF),
    (0x4E00, 0x9FFF),
    (0x1F300, 0x1F64F),
]


@functools.cache
def data(name: str) -> dict:
    """What the page loads from a data file that is not compressed."""
    script = (DATA / f"{name}.data.js").read_text()
    return json.loads(script.partition(" = ")[2].rstrip(";\n"))


def queries() -> dict:
    """Captions of the page and Python's rankings of them."""
    return data("queries")


def texts() -> list[str]:
    """The test captions and strange strings, without those in which ftfy repairs a wrong
    decoding."""
    draw = random.Random(0)
    strange = [drawn_from_pieces(draw) for _ in range(2000)]
    strange += [drawn_from_blocks(draw) for _ in range(2000)]
    kept = [text for text in strange if is_read_alike(text)]
    assert len(kept) > 2000
    return queries()["captions"] + kept


def drawn_from_pieces(draw: random.Random) -> str:
    pieces = []
    for _ in range(draw.randint(0, 40)):
        pieces.append(draw.choice(PIECES))
        pieces.append(draw.choice(["", " "]))
    return "".join(pieces)


def drawn_from_blocks(draw: random.Random) -> str:
    characters = []
    for _ in range(draw.randint(1, 50)):
        first, last = draw.choice(BLOCKS)
        characters.append(chr(draw.randint(first, last)))
    return "".join(characters)


def is_read_alike(text: str) -> bool:
    """Whether ftfy repairs no wrong decoding in it, and Python's Unicode knows every character."""
    unrepaired = ftfy.fix_text(text, fix_encoding=False, decode_inconsistent_utf8=False)
    categories = [unicodedata.category(character) for character in html.unescape(text)]
    return ftfy.fix_text(text) == unrepaired and "Cn" not in categories


def test_the_tokenizer_is_open_clip_s(page):
    model = load_model("cskt-mini")
    strings = texts()
    page.goto("about:blank")
    page.add_script_tag(path=search.ASSETS / "tokenizer.js")
    found = page.evaluate(
        """([tables, texts]) => {
      const tokenizer = csktTokenizer(tables);
      return texts.map((text) => [tokenizer.encode(text), tokenizer.fit(tokenizer.encode(text))]);
    }""",
        [search.tokenizer_tables(model), strings],
    )
    ids = model.tokenize(strings)
    fitted, ends = fit_captions(ids, model.end_token, 77 - model.num_prompts)
    long = 0
    for text, (every, read), row, cut, end in zip(
        strings, found, ids.tolist(), fitted.tolist(), ends.tolist(), strict=True
    ):
        assert every + [0] * (77 - len(every)) == row, ascii(text)
        assert read == cut[: end + 1], ascii(text)
        long += len(every) == 77
    assert 100 < long < len(strings) / 2, "both ways of cutting are tried"


def test_words_that_the_backbone_does_not_know_are_the_same_as_in_python(page):
    model = load_model("cskt-mini")
    said = ["A red coat.", "a flamboyant, red Giraffe's 7 coats <b>!", "日本語 red"]
    page.goto("about:blank")
    page.add_script_tag(path=search.ASSETS / "tokenizer.js")
    words = page.evaluate(
        """([tables, texts]) => {
      const tokenizer = csktTokenizer(tables);
      const unknown = (text) => tokenizer.words(text).filter((word) => !word.known);
      return texts.map((text) => [...new Set(unknown(text).map((word) => word.text))]);
    }""",
        [search.tokenizer_tables(model), said],
    )
    assert words == [model.unknown_words(text) for text in said]
    assert words[0] == []
    assert "flamboyant" in words[1]


@pytest.fixture
def served(book):
    """The book's address on a web server of this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_GET(self):
            # Every browser asks for one; any other missing file is an error.
            if self.path == "/favicon.ico":
                self.send_response_only(204)
                self.end_headers()
            else:
                super().do_GET()

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=book)
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def ready(page, address: str):
    """The page opened and its encoder started; returns the status line."""
    page.goto(address, wait_until="load")
    status = page.locator(".cskt-search .status")
    page.wait_for_function(
        "document.querySelector('.cskt-search .status').textContent.startsWith('Ready')",
        timeout=60_000,
    )
    return status


def ask(page, text: str) -> None:
    """Type it and press Enter."""
    box = page.get_by_label("Describe a person")
    box.fill(text)
    box.press("Enter")


def hits(page) -> list[str]:
    return [image.get_attribute("alt") for image in page.locator(".hits img").all()]


def check(page, count: int) -> str:
    """What the comparison with Python says of the first ``count`` captions."""
    page.get_by_label("Captions").fill(str(count))
    page.get_by_role("button", name="Check against Python").click()
    output = page.locator(".check p")
    output.get_by_text("in the same order").wait_for(timeout=120_000)
    return output.inner_text()


def expected_hits(caption: int) -> list[str]:
    """Python's ranking for a caption, as the page words it."""
    gallery = data("gallery")
    person = gallery["identities"][queries()["images"][caption]]
    order = queries()["order"][caption]
    scores = queries()["scores"][caption]
    sentences = []
    for rank, (image, score) in enumerate(zip(order, scores, strict=True), start=1):
        identity = gallery["identities"][image]
        camera = gallery["cameras"][image]
        mark = "✓ right" if identity == person else "✗ wrong"
        sentences.append(
            f"rank {rank}, identity {identity}, camera {camera}, similarity {score:.2f} {mark}"
        )
    return sentences


def test_search_from_disk(book, page):
    """A test caption, a sentence with unknown words, a camera, the keyboard, and the comparison
    with Python."""
    status = ready(page, (book / "results/search.html").as_uri())
    caption = queries()["captions"][0]
    ask(page, caption)
    status.get_by_text("This is a test caption").wait_for()
    expected = expected_hits(caption=0)
    assert hits(page) == expected
    assert page.locator(".hits .right").count() == sum("✓" in text for text in expected) > 0
    assert not page.locator(".notes").is_visible()
    page.locator(".words li").first.wait_for()
    assert page.locator(".words li").count() == len(caption.split())

    ask(page, "a flamboyant person in red")
    page.get_by_text(
        "This backbone has never seen: flamboyant. Such words tell it nothing."
    ).wait_for()
    assert "✓" not in "".join(hits(page))
    assert "Nobody knows who is meant" in status.inner_text()
    page.get_by_label("Hits").fill("50")
    page.locator(".camera").select_option("c2")
    page.wait_for_function("document.querySelectorAll('.hits img').length === 50")
    assert all("camera c2" in text for text in hits(page))
    assert "60 captions: the same 10 images for 100%" in check(page, 60)
    outside = [url for url in page.requests if not url.startswith(("file:", "data:", "blob:"))]
    assert not outside
    assert not page.errors


def test_search_from_a_web_server(served, page):
    ready(page, f"{served}/results/search.html")
    assert "captions: the same 10 images for 100%" in check(page, 20)
    own = (served, "data:", f"blob:{served}")
    assert all(url.startswith(own) for url in page.requests)
    assert not page.errors


def test_whatever_is_typed_gets_a_plain_answer(book, page):
    status = ready(page, (book / "results/search.html").as_uri())
    before = hits(page)
    ask(page, "  \n ")
    status.get_by_text("Type a description first").wait_for()
    ask(page, "x" * 10_000)
    status.get_by_text("The description has 10,000 characters; shorten it to 500.").wait_for()
    assert hits(page) == before
    page.evaluate("window.hacked = null")
    for text, unknown in [
        ("red <img/src=x/onerror=window.hacked=1> <script>window.hacked=1</script>", "onerror"),
        ("😀👩🏽‍🚀", "😀👩🏽‍🚀"),
        ("日本語のコート", "日本語のコート"),
        ("مرحبا &lt;b&gt; red", "مرحبا"),
        ("<end_of_text>", ""),
    ]:
        ask(page, text)
        page.wait_for_function(
            "([text]) => document.querySelector('.notes').textContent.includes(text) "
            "&& document.querySelector('.status').textContent.includes('images in')",
            arg=[unknown],
        )
        assert len(hits(page)) == 10
        if len(text.split()) > 1:  # word by word, as typed
            page.wait_for_function(
                "end => document.querySelector('.words li:last-child')?.textContent.endsWith(end)",
                arg=text.split()[-1],
            )
    ask(page, "a man in a red coat with a black hat " * 12)
    page.get_by_text("The sentence is too long: what follows").wait_for()
    page.wait_for_timeout(500)
    assert page.evaluate("window.hacked") is None
    assert page.locator(".hits script, .words script").count() == 0
    assert not page.errors


@pytest.mark.parametrize("missing", ["WebAssembly", "DecompressionStream"])
def test_a_browser_without_the_means_shows_precomputed_hits(book, page, missing):
    page.add_init_script(f"delete globalThis.{missing}")
    page.goto((book / "results/search.html").as_uri(), wait_until="load")
    status = page.locator(".cskt-search .status")
    status.get_by_text(
        f"The text encoder does not run here: this browser has no {missing}."
    ).wait_for()
    before = hits(page)
    page.get_by_label("Example").select_option(index=2)
    status.get_by_text("Python's ranking.").wait_for()
    assert len(hits(page)) == 10
    assert hits(page) != before
    ask(page, "a red coat")
    status.get_by_text(
        "The text encoder does not run in this browser: choose an example"
    ).wait_for()
    assert not page.errors


def test_a_page_without_its_data_says_so(book, page):
    page.route("**/*.data.js", lambda route: route.abort())
    page.goto((book / "results/search.html").as_uri(), wait_until="load")
    page.get_by_text("Its images could not be loaded.").wait_for()
