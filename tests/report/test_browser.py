"""The report in a real browser: nothing is asked for, nothing is complained of, nothing sticks out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report.pages import pages
from tests.support.browser import Browser, browser, installed

PROGRAM = installed()
SIZES = {"phone": (360, 740), "tablet": (820, 1180), "desktop": (1440, 900)}
WIDEST = "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"
CLIPPED = """[...document.querySelectorAll('svg text')].filter(text => {
  const box = text.getBoundingClientRect();
  return box.width > 0 && (box.left < -1 || box.right > document.documentElement.clientWidth + 1);
}).map(text => text.textContent)"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium or Chrome is installed"),
]


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    assert PROGRAM is not None
    with browser(PROGRAM) as opened:
        yield opened


@pytest.mark.parametrize("size", SIZES)
def test_every_page_asks_nobody_complains_of_nothing_and_fits(
    tab: Browser, tmp_path: Path, size: str
) -> None:
    width, height = SIZES[size]
    colours = set()
    for index, page in enumerate(pages().values()):
        file = tmp_path / f"{index}.html"
        file.write_text(page, encoding="utf-8")
        for scheme in ("light", "dark"):
            tab.show(file.as_uri(), width, height, scheme)
            widest, clipped = tab.evaluate(WIDEST), tab.evaluate(CLIPPED)
            colour = tab.evaluate("getComputedStyle(document.body).backgroundColor")
            asked = [event["request"]["url"] for event in tab.events("Network.requestWillBeSent")]
            assert asked == [file.as_uri()]
            complaints = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
            assert [event for name in complaints for event in tab.events(name)] == []
            assert widest <= width, f"{widest} wide on {width}"
            assert clipped == []
            colours.add(colour)
    assert len(colours) == 2


def test_it_prints_on_paper_whatever_the_screen_shows(tab: Browser, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(pages()["v1-ok"], encoding="utf-8")
    tab.show(file.as_uri(), *SIZES["desktop"], "dark")
    tab.call(
        "Emulation.setEmulatedMedia",
        media="print",
        features=[{"name": "prefers-color-scheme", "value": "dark"}],
    )
    paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    ink = tab.evaluate("getComputedStyle(document.body).color")
    assert (paper, ink) == ("rgb(255, 255, 255)", "rgb(0, 0, 0)")
    assert tab.call("Page.printToPDF")["data"].startswith("JVBER")  # %PDF, in base64
