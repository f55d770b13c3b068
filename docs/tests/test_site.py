"""The built site: every public name is in it, nothing in it is from another host, and a browser shows it as it should.

`make docs` builds it and runs this. Screenshots go to out/screenshots.
"""

import html
import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlparse

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
SITE, SCREENSHOTS = ROOT / "out" / "docs", ROOT / "out" / "screenshots"
sys.path.insert(0, str(ROOT / "docs" / "_ext"))

pytestmark = pytest.mark.skipif(not (SITE / "objects.inv").exists(), reason="out/docs is not built: `make docs`")

#: Pages that a browser is shown, and whether they have formulas and pictures.
PAGES = {
    "README": (False, True),
    "docs/getting-started": (False, False),
    "docs/libraries": (False, False),
    "docs/guide": (False, False),
    "docs/methods": (False, False),
    "docs/tuning": (False, False),
    "docs/questions": (False, False),
    "docs/compaction": (False, False),
    "docs/theory": (True, False),
    "docs/porting": (False, False),
    "docs/extending": (False, False),
    "docs/results": (False, True),
    "docs/alternatives": (False, True),
    "docs/targets": (False, False),
    "docs/beyond": (False, False),
    "docs/scale": (False, False),
    "docs/layers": (False, False),
    "docs/api/index": (False, False),
    "docs/api/generated/ramda_jax.ramda": (False, False),
    "docs/api/generated/ramda_jax.preconditioned": (False, False),
    "notebooks/1_from_prox_to_ramda": (True, True),
    "benchmarks/README": (False, False),
}
LOADED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "link": "href",
    "video": "src",
    "object": "data",
}


class Loads(HTMLParser):
    """What a page loads by itself: not what it links to."""

    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if attributes.get(LOADED.get(tag, "")) and attributes.get("rel") not in ("next", "prev", "search", "index"):
            self.addresses.append(attributes[LOADED[tag]])


def test_every_public_name_has_its_page():
    from public_names import SUBMODULES, documented_names
    from sphinx.util.inventory import InventoryFile

    inventory = InventoryFile.loads((SITE / "objects.inv").read_bytes(), uri="")
    found = {name for kind in inventory.data if kind.startswith("py:") for name in inventory.data[kind]}
    assert set(documented_names().values()) <= found
    assert {f"ramda_jax.{submodule}" for submodule in SUBMODULES} <= found


def test_nothing_is_loaded_from_another_host():
    loads = {}
    for page in SITE.rglob("*.html"):
        parser = Loads()
        parser.feed(page.read_text())
        loads[page] = parser.addresses
    assert len(loads[SITE / "README.html"]) > 5
    for page, addresses in loads.items():
        for address in addresses:
            assert urlparse(address).scheme in ("", "data") and not address.startswith("//"), (page, address)
    for style in SITE.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(https?:)?//", style.read_text()), style


def texts(path):
    """The pieces of a Markdown file's text as GitHub reads it, without quotes, dashes and formulas."""
    for block in MarkdownIt("gfm-like", {"linkify": False}).parse(path.read_text()):
        for token in block.children or ():
            if token.type == "text" and "$" not in block.content:
                yield from re.findall(r"[\w ,.:;()%+]{12,}", token.content)


@pytest.mark.parametrize(
    "page", ["README", "CONTRIBUTING", "docs/guide", "docs/compaction", "docs/results", "docs/scale"]
)
def test_all_text_of_a_page_is_on_the_site(page):
    shown = " ".join(html.unescape(re.sub(r"<[^>]*>", "", (SITE / f"{page}.html").read_text())).split())
    missing = [text for text in texts(ROOT / f"{page}.md") if text.strip() not in shown]
    assert not missing


def test_notebooks_are_shown_with_their_outputs():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert 'class="cell_output' in (SITE / "notebooks" / f"{path.stem}.html").read_text(), path.name


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    programs = [shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")]
    if None in programs:
        pytest.skip("no chromium and chromedriver are installed here: the pages are not looked at")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    profile = tmp_path_factory.mktemp("profile")
    for argument in (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        f"--disable-component-update --disable-sync --window-size=1300,1800 --user-data-dir={profile}"
    ).split():
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "SEVERE"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1]))
    SCREENSHOTS.mkdir(exist_ok=True)
    yield driver
    driver.quit()


def wrong_formulas(browser):
    """How many MathJax could not read, and how many commands in others it does not know, which it shows in red."""
    wrong = ".math:not(:has(mjx-container)), mjx-merror, [data-mjx-error], mjx-container [style*='color: red']"
    return browser.execute_script("return document.querySelectorAll(arguments[0]).length", wrong)


def sideways(browser):
    """By how many pixels the page is wider than the window."""
    return browser.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")


def show_as_on_a_phone(browser):
    """Makes the window 390 pixels wide: a window of its own cannot be that narrow."""
    size = {"width": 390, "height": 1200, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


@pytest.mark.parametrize("page", PAGES)
def test_a_browser_shows_the_page(browser, page):
    has_formulas, has_pictures = PAGES[page]
    browser.get((SITE / f"{page}.html").as_uri())
    browser.execute_async_script(
        "const done = arguments[0]; window.MathJax?.startup?.promise ? MathJax.startup.promise.then(done) : done()"
    )
    browser.save_screenshot(str(SCREENSHOTS / f"{page.replace('/', '-')}.png"))

    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [message["params"] for message in messages if message["method"] == "Network.requestWillBeSent"]
    # Chromium's own first tab is still in the log.
    requested = [sent["request"]["url"] for sent in requests if not sent["documentURL"].startswith("chrome")]
    assert requested and all(urlparse(url).scheme in ("file", "data", "blob") for url in requested), requested
    assert browser.get_log("browser") == []

    sizes = browser.execute_script("return [...document.querySelectorAll('h1')].map(e => e.offsetHeight)")
    assert len(sizes) == 1 and sizes[0] > 0
    pictures = browser.execute_script(
        "return [...document.querySelectorAll('article img')].map(e => [e.src, e.naturalWidth, e.offsetWidth])"
    )
    assert all(natural > 0 and shown > 0 for _, natural, shown in pictures), pictures
    assert bool(pictures) == has_pictures
    formulas = browser.execute_script(
        "return [...document.querySelectorAll('mjx-container')].map(e => [e.offsetWidth, e.offsetHeight])"
    )
    assert all(width > 0 and height > 0 for width, height in formulas), formulas
    assert bool(formulas) == has_formulas
    assert wrong_formulas(browser) == 0
    assert sideways(browser) <= 0, "the page scrolls sideways"
    show_as_on_a_phone(browser)
    try:
        browser.save_screenshot(str(SCREENSHOTS / f"{page.replace('/', '-')}-narrow.png"))
        assert sideways(browser) <= 0, "the page scrolls sideways on a phone"
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("wrong", [r"\minimum_W", r"\frac{1}{2_W"])
def test_a_formula_that_is_wrong_would_be_seen(browser, wrong):
    page = (SITE / "docs" / "theory.html").read_text()
    broken = SITE / "docs" / "broken.html"
    broken.write_text(page.replace(r"\min_W", wrong, 1))
    try:
        browser.get(broken.as_uri())
        browser.execute_async_script("MathJax.startup.promise.then(arguments[0])")
        assert wrong_formulas(browser) > 0
    finally:
        broken.unlink()
