"""The report in a real browser: no error and no outside request, on wide and narrow screens, light and dark."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browsers import open_browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser("--disable-gpu") as opened:
        yield opened


def open_page(browser: Any, page: Path) -> tuple[list[str], set[str]]:
    """Messages on the console, and addresses asked for besides the page and what stands in it."""
    browser.get_log("performance")
    browser.get(page.as_uri())
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    outside = {url for url in asked if not url.startswith("data:")} - {page.as_uri()}
    return [entry["message"] for entry in browser.get_log("browser")], outside


def test_it_opens_alone_and_everything_in_it_can_be_seen(browser, answered):
    scores, _, out = answered
    assert open_page(browser, out / "report.html") == ([], set())
    assert browser.title == scores["title"] == "A <b>bold</b> title & all"
    images = browser.execute_script(
        "return [...document.querySelectorAll('main img')].map(i => [i.complete && i.naturalWidth > 0, i.alt])"
    )
    assert len(images) == 3 * 5 + 2 * 10
    assert all(loaded and len(alt) > 10 for loaded, alt in images)
    plots = browser.execute_script(
        "return [...document.querySelectorAll('svg')].map(s => s.getAttribute('aria-label'))"
    )
    assert len(plots) == 5
    assert all(plots)
    text = browser.execute_script("return document.body.innerText")
    headline = scores["volumes"]["cells"][scores["headline"]]
    for number in (headline["voi"], headline["arand"], headline["oracle"]["voi"], 1.841):
        assert f"{number:.3f}" in text
    assert "None" not in text


def test_it_fits_narrow_screens_is_dark_in_the_dark_and_enlarges_pictures(browser, answered):
    _, _, out = answered
    metrics = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    assert open_page(browser, out / "report.html") == ([], set())
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def look(scheme: str) -> tuple[str, str]:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        style = browser.execute_script("const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]")
        return style[0], style[1]

    assert look("light") != look("dark")
    browser.execute_script("document.querySelector('.panels img').click()")
    assert browser.execute_script(
        "return document.querySelector('dialog').open && document.querySelector('dialog img').naturalWidth > 0"
    )
    browser.execute_script("document.querySelector('dialog').click()")
    assert not browser.execute_script("return document.querySelector('dialog').open")
    assert not browser.get_log("browser")


def test_an_outside_request_would_be_seen(browser, answered, tmp_path):
    _, _, out = answered
    page = (out / "report.html").read_text()
    reaching = tmp_path / "reaching.html"
    reaching.write_text(page.replace("</main>", '<img src="http://127.0.0.1:9/a.png" alt=""></main>'))
    messages, _ = open_page(browser, reaching)
    assert any("Content Security Policy" in message for message in messages)
    reaching.write_text(reaching.read_text().replace("Content-Security-Policy", "Nothing"))
    assert open_page(browser, reaching)[1] == {"http://127.0.0.1:9/a.png"}
