"""A page in headless Chromium: its text, its errors, what it asked for, and pictures of it.

Spoken to over Chromium's own DevTools protocol, for which the websockets library is enough: no driver, no download.
"""

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from system_tools import system_tool
from websockets.sync.client import ClientConnection, connect

LIMIT_S = 60.0
PHONE = 600  # pixels: narrower windows count as those of a phone
HEIGHT = 900
OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # which root cannot have
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--enable-unsafe-swiftshader",  # WebGL without a GPU
    "--hide-scrollbars",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--disable-breakpad",
    "--metrics-recording-only",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing beyond this machine is found
    "--remote-debugging-port=0",
)
Scheme = Literal["light", "dark"]


class Page:
    """An open page. What it says and asks for is collected from its first moment on.

    with open_page(report.as_uri(), width=400, scheme="dark") as page:
        page.wait_for("document.body.innerText.includes('decay')")
        page.screenshot(Path("phone.png"))
        assert page.errors == [] and page.requests == [page.url]
    """

    def __init__(self, connection: ClientConnection, url: str) -> None:
        self.url = url
        self._connection = connection
        self._session: str | None = None
        self._calls = 0
        self._loaded = False
        self._errors: list[str] = []
        self._requests: list[str] = []

    @property
    def errors(self) -> list[str]:
        """All that reached the console as an error so far: exceptions, failed loads, `console.error`."""
        self._call("Runtime.evaluate", expression="0")  # whatever was said before has arrived by then
        return list(self._errors)

    @property
    def requests(self) -> list[str]:
        """Every address asked for so far, that of the page first; `data:` and `blob:` ask nobody."""
        self._call("Runtime.evaluate", expression="0")
        return list(self._requests)

    def load(self, width: int, scheme: Scheme) -> None:
        """Go to the page and wait until it and what it names are loaded."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        self.show(width, scheme)
        failed = self._call("Page.navigate", url=self.url).get("errorText")
        assert not failed, f"{self.url}: {failed}"
        give_up = time.monotonic() + LIMIT_S
        while not self._loaded:
            self._receive(give_up)

    def show(self, width: int, scheme: Scheme = "light") -> None:
        """Make the window so many pixels wide, on a system that prefers that colour scheme; narrow is a phone."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=HEIGHT,
            deviceScaleFactor=1,
            mobile=width < PHONE,
        )
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, of a promise what it resolves to."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, f"{expression}: {_thrown(answer['exceptionDetails'])}"
        return answer["result"].get("value")

    def text(self) -> str:
        """What a reader sees."""
        return str(self.evaluate("document.body.innerText"))

    def wait_for(self, expression: str, limit_s: float = LIMIT_S) -> Any:
        """Evaluate again and again until the value is true, and return it."""
        give_up = time.monotonic() + limit_s
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < give_up, f"never true: {expression}; errors {self._errors}; text:\n{self.text()}"
            time.sleep(0.1)
        return value

    def wait_for_text(self, *texts: str, limit_s: float = LIMIT_S) -> None:
        """Wait until a reader sees all of them."""
        self.wait_for(f"{json.dumps(texts)}.every(text => document.body.innerText.includes(text))", limit_s)

    def click(self, x: float, y: float) -> None:
        """Move the mouse there (pixels from the window's upper left corner), press and release it."""
        where: dict[str, Any] = {"x": x, "y": y, "button": "left", "clickCount": 1}
        self.hover(x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, **where)

    def hover(self, x: float, y: float) -> None:
        """Move the mouse there."""
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def screenshot(self, path: Path, whole: bool = True) -> Path:
        """A PNG of the whole page, or of what the window shows of it."""
        taken = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **self._clip(whole))
        path.write_bytes(base64.b64decode(taken["data"]))
        return path

    def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self._call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._calls += 1
        number = self._calls
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        self._connection.send(json.dumps(message))
        give_up = time.monotonic() + LIMIT_S
        while (answer := self._receive(give_up)).get("id") != number:
            pass
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def _receive(self, give_up: float) -> dict[str, Any]:
        """The next answer or event; of an event, keep what it tells."""
        message: dict[str, Any] = json.loads(self._connection.recv(timeout=max(give_up - time.monotonic(), 0.01)))
        told = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Runtime.exceptionThrown":
                self._errors.append(_thrown(told["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if told["type"] in {"error", "assert"}:
                self._errors.append(" ".join(str(x.get("value", x.get("description"))) for x in told["args"]))
            case "Log.entryAdded" if told["entry"]["level"] == "error":
                self._errors.append(f"{told['entry']['text']} {told['entry'].get('url', '')}".strip())
            case "Network.requestWillBeSent" if not told["request"]["url"].startswith(("data:", "blob:")):
                self._requests.append(told["request"]["url"])
            case "Network.webSocketCreated":
                self._requests.append(told["url"])
        return message


@contextmanager
def open_page(url: str, width: int = 1400, scheme: Scheme = "light") -> Iterator[Page]:
    """A page of this machine, `file:` or at 127.0.0.1, in a browser of its own that remembers nothing.

    Skips the test where there is no Chromium, see `system_tools`.
    """
    parts = urlsplit(url)
    assert parts.scheme == "file" or parts.hostname == "127.0.0.1", f"not on this machine: {url}"
    program = system_tool("chromium", map(Path, ("/usr/bin/chromium", "/usr/bin/google-chrome")))
    profile = Path(tempfile.mkdtemp(prefix="evenkeel-browser-"))
    browser = _start([str(program), *OPTIONS, f"--user-data-dir={profile}"], profile)
    try:
        with connect(_address(browser, profile), proxy=None, max_size=None, compression=None) as connection:
            page = Page(connection, url)
            page.load(width, scheme)
            yield page
    finally:
        os.killpg(browser.pid, signal.SIGKILL)
        browser.wait()
        shutil.rmtree(profile, ignore_errors=True)


def _start(command: Sequence[str], profile: Path) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "HOME": str(profile)}
    with (profile / "chromium.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)


def _address(browser: "subprocess.Popen[bytes]", profile: Path) -> str:
    """Where it listens, which it writes into its profile."""
    written = profile / "DevToolsActivePort"
    give_up = time.monotonic() + LIMIT_S
    while not (written.exists() and written.read_text().count("\n")):
        log = (profile / "chromium.log").read_text(errors="replace")
        assert browser.poll() is None and time.monotonic() < give_up, f"Chromium does not start: {log}"
        time.sleep(0.02)
    port, path = written.read_text().split()
    return f"ws://127.0.0.1:{port}{path}"


def _thrown(details: dict[str, Any]) -> str:
    return str(details.get("exception", {}).get("description") or details["text"])
