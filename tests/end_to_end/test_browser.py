"""The browser of these tests tells what a page shows, says and asks for."""

from pathlib import Path

import pytest
from browser import open_page

pytestmark = pytest.mark.slow

PAGE = """\
<!doctype html><meta name="viewport" content="width=device-width, initial-scale=1"><title>t</title>
<style>body { background: white } @media (prefers-color-scheme: dark) { body { background: black } }</style>
<p id="p">before</p><p style="height: 2000px">tall</p>
<script>setTimeout(() => { document.getElementById("p").textContent = "after" }, 300)</script>
"""
BAD = """\
<!doctype html><img src="http://203.0.113.1/a.png"><img src="missing.png">
<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">
<script>console.error("one", 2); console.log("not this"); throw new Error("three")</script>
"""


def address(folder: Path, text: str) -> str:
    (folder / "page.html").write_text(text)
    return (folder / "page.html").as_uri()


def size(png: Path) -> tuple[int, int]:
    header = png.read_bytes()[16:24]
    return int.from_bytes(header[:4]), int.from_bytes(header[4:])


def test_a_quiet_page_has_its_text_and_asks_for_itself_alone(tmp_path: Path) -> None:
    with open_page(address(tmp_path, PAGE)) as page:
        page.wait_for_text("after", "tall")
        assert page.errors == [] and page.requests == [page.url]


def test_pictures_are_as_wide_as_the_window_and_follow_the_colour_scheme(tmp_path: Path) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    with open_page(address(tmp_path, PAGE), width=400, scheme="dark") as page:
        assert page.evaluate("innerWidth") == 400 and page.evaluate(background) == "rgb(0, 0, 0)"
        width, height = size(page.screenshot(tmp_path / "phone.png"))
        assert width == 400 and height > 2000
        page.show(1400, "light")
        assert page.evaluate("innerWidth") == 1400 and page.evaluate(background) == "rgb(255, 255, 255)"
        assert size(page.screenshot(tmp_path / "wide.png", whole=False)) == (1400, 900)


def test_errors_and_requests_are_told(tmp_path: Path) -> None:
    with open_page(address(tmp_path, BAD)) as page:
        missing = (tmp_path / "missing.png").as_uri()
        assert page.requests == [page.url, "http://203.0.113.1/a.png", missing]
        told = "\n".join(page.errors)
        assert "one 2" in told and "Error: three" in told and missing in told and "not this" not in told


def test_only_pages_of_this_machine_are_opened() -> None:
    with pytest.raises(AssertionError, match="not on this machine"), open_page("https://example.org"):
        pass
