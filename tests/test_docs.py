"""The documentation site in a real browser: its pages are whole, and need only their server."""

import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
from browser import DESK, PHONE, picture, served

pytestmark = pytest.mark.site

SITE = Path(__file__).parents[1] / "build" / "docs" / "html"
PAGES = sorted(
    str(path.relative_to(SITE)) for path in SITE.rglob("*.html") if "_static" not in path.parts
)
# What a page must not show: a formula or a role that was left as text.
RAW = re.compile(r"\$|\\[a-zA-Z(\[]|:\w+:`|\]\(|`")
PICTURED = ["index", "tutorial", "derivation", "accuracy", "api", "performance",
            "generated/cysoftmax.cross_entropy_with_grad", "generated/cysoftmax.RowStats",
            "generated/cysoftmax.torch.CrossEntropyLoss"]  # fmt: skip

# The text of a page without code, formulas and the scripts in it.
TEXT = """() => {
    const copy = document.querySelector("main").cloneNode(true);
    copy.querySelectorAll("pre, code, .math, script, style, .sig").forEach(e => e.remove());
    return copy.textContent;
}"""
UNRENDERED = """() => [...document.querySelectorAll(".math")]
    .filter(e => !e.querySelector("mjx-container svg") || e.querySelector("[data-mjx-error]"))
    .map(e => e.textContent)"""
BROKEN_PICTURES = """() => [...document.images]
    .filter(e => !(e.complete && e.naturalWidth > 0)).map(e => e.src)"""
LINKS = "() => [...document.querySelectorAll('a[href]')].map(a => a.href)"


@pytest.fixture(scope="module")
def context(browser):
    """One context for all pages: they share what they load."""
    return browser.new_context()


@cache
def anchors(path):
    return set(re.findall(r'\bid="([^"]+)"', path.read_text(encoding="utf-8")))


def leads_somewhere(address, base):
    """Return whether a link leads to a file of the site and a place in it, or to a secure site."""
    if not address.startswith(base):
        return address.startswith("https://")
    name, anchor = urldefrag(address[len(base) :])
    path = SITE / (unquote(name) or "index.html")
    return path.is_file() and (not anchor or unquote(anchor) in anchors(path))


def opened(page, name):
    """Open a page and wait until its formulas are drawn."""
    page.goto(served(SITE) + name)
    if page.locator(".math").count():
        page.wait_for_function("window.MathJax && MathJax.startup && MathJax.startup.promise")
        page.evaluate("MathJax.startup.promise")


def test_the_site_is_made():
    assert len(PAGES) > 20, "make docs"
    assert (SITE / "_static" / "mathjax" / "LICENSE").is_file()


def formulas(page):
    return page.locator("mjx-container").count()


def width(page):
    return page.evaluate("document.documentElement.scrollWidth")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_on_a_wide_and_a_narrow_screen(page, name):
    opened(page, name)
    assert page.evaluate(UNRENDERED) == []
    assert page.evaluate(BROKEN_PICTURES) == []
    assert RAW.findall(page.evaluate(TEXT)) == []
    assert formulas(page) > 200 or name != "derivation.html"
    base = served(SITE)
    assert [link for link in page.evaluate(LINKS) if not leads_somewhere(link, base)] == []
    for kind, size in [("desk", DESK), ("phone", PHONE)]:
        page.set_viewport_size(size)
        assert width(page) <= size["width"]
        stem = name.removesuffix(".html")
        if stem in PICTURED:
            picture(page, f"docs-{stem.split('.')[-1].replace('/', '-')}-{kind}")


@pytest.mark.parametrize("name", ["index", "reproducibility"])
def test_a_dark_page_has_light_text(page, name):
    page.emulate_media(color_scheme="dark")
    opened(page, f"{name}.html")
    colours = page.evaluate(
        "() => ['color', 'backgroundColor'].map(k => getComputedStyle(document.body)[k])"
    )
    text, background = (sum(map(int, re.findall(r"\d+", c)[:3])) for c in colours)
    assert text > 450 > 200 > background
    picture(page, f"docs-{name}-dark")


def test_a_search_finds_a_function(page):
    page.goto(served(SITE) + "search.html?q=label_smoothing")
    # Results are added one after the other.
    page.locator("#search-results li a", has_text="cross_entropy").first.wait_for()
