"""Headless Chromium, driven by its DevTools protocol through a pipe: no driver and no Python package is needed."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from base64 import b64decode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-extensions --remote-debugging-pipe --hide-scrollbars"
).split()


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Start a browser; skips the test where there is none."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"there is no browser: none of {', '.join(NAMES)} is installed")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        (told, write), (read, tell) = os.pipe(), os.pipe()
        command = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{told} 4>&{tell}', "bash", *command],
            pass_fds=(told, tell),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        os.close(told)
        os.close(tell)
        running = Browser(write, read)
        try:
            yield running
            running.send("Browser.close")
            process.wait(20)
        finally:
            process.kill()
            process.wait()
            os.close(write)
            os.close(read)


class Browser:
    """A running browser. Every page is a window of its own (`page`)."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._rest = write, read, b""
        self._numbers = itertools.count(1)
        self.events: list[dict[str, Any]] = []

    def send(self, method: str, session: str = "", **values: Any) -> dict[str, Any]:
        """Send a command of the protocol and return its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": values, **({"sessionId": session} if session else {})}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive(30)
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def _receive(self, seconds: float) -> dict[str, Any]:
        ends = time.monotonic() + seconds
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0.0, ends - time.monotonic()))
            assert ready, "the browser did not answer"
            content = os.read(self._read, 2**20)
            assert content, "the browser ended"
            self._rest += content
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def page(self, url: str | Path, *, width: int = 1400, height: int = 900, dark: bool = False) -> Page:
        """Open a page in a new window, wait until it has loaded, and return it."""
        target = self.send("Target.createTarget", url="about:blank", newWindow=True)["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, target)
        for domain in ("Page", "Runtime", "Network", "DOM", "Log"):
            page.send(f"{domain}.enable")
        page.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        page.send("Emulation.setEmulatedMedia", features=scheme)
        page.send("Page.navigate", url=url.resolve().as_uri() if isinstance(url, Path) else url)
        page.wait("document.readyState === 'complete' && location.href !== 'about:blank'")
        return page


class Page:
    """An open page."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self._browser, self._session, self._target = browser, session, target

    def send(self, method: str, **values: Any) -> dict[str, Any]:
        return self._browser.send(method, self._session, **values)

    def run(self, script: str) -> Any:
        """Return the value of an expression of JavaScript; promises are awaited."""
        result = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, json.dumps(result["exceptionDetails"])[:2000]
        return result["result"].get("value")

    def wait(self, condition: str, seconds: float = 30) -> Any:
        """Return the value of an expression as soon as it is true."""
        ends = time.monotonic() + seconds
        while not (value := self.run(condition)):
            assert time.monotonic() < ends, f"never true: {condition}"
            time.sleep(0.05)
        return value

    def text(self, selector: str) -> str:
        """Return the visible text of an element."""
        return self.run(f"document.querySelector({json.dumps(selector)}).innerText")

    def middle(self, selector: str) -> tuple[float, float]:
        """Scroll to an element and return its middle in the window."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.run(f"{element}.scrollIntoView({{behavior: 'instant', block: 'center'}})")
        left, top, width, height = self.run(f"Object.values({element}.getBoundingClientRect().toJSON()).slice(0, 4)")
        return left + width / 2, top + height / 2

    def choose(self, selector: str, files: Sequence[Path]) -> None:
        """Choose files, or one folder, in a file input."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def mouse(self, *points: tuple[float, float]) -> None:
        """Draw a line through points of the window, with the button held down."""
        kinds = ["mousePressed", *["mouseMoved"] * (len(points) - 2), "mouseReleased"]
        for kind, (x, y) in zip(kinds, points, strict=True):
            held = 0 if kind == "mouseReleased" else 1
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=held, clickCount=1)

    def key(self, key: str, code: int, text: str = "") -> None:
        """Press and release a key; code: its Windows virtual key code."""
        values = {"key": key, "windowsVirtualKeyCode": code}
        self.send("Input.dispatchKeyEvent", type="keyDown", **values, **({"text": text} if text else {}))
        self.send("Input.dispatchKeyEvent", type="keyUp", **values)

    def picture(self, file: Path) -> None:
        """Write a picture of the whole page (PNG)."""
        answer = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file.write_bytes(b64decode(answer["data"]))

    def close(self) -> None:
        """Close the window."""
        self._browser.send("Target.closeTarget", targetId=self._target)

    def _events(self, method: str) -> list[dict[str, Any]]:
        mine = (one for one in self._browser.events if one.get("sessionId") == self._session)
        return [one["params"] for one in mine if one["method"] == method]

    @property
    def requests(self) -> list[str]:
        """The addresses requested so far, but for the page itself and for what is inside it (data:, blob:)."""
        urls = [one["request"]["url"] for one in self._events("Network.requestWillBeSent")]
        return [url for url in urls[1:] if not url.startswith(("data:", "blob:"))]

    @property
    def errors(self) -> list[str]:
        """Exceptions and errors of the console so far."""
        thrown = [json.dumps(one["exceptionDetails"])[:500] for one in self._events("Runtime.exceptionThrown")]
        logged = [one["entry"]["text"] for one in self._events("Log.entryAdded") if one["entry"]["level"] == "error"]
        called = [
            json.dumps(one["args"])[:500]
            for one in self._events("Runtime.consoleAPICalled")
            if one["type"] in ("error", "assert")
        ]
        return thrown + logged + called
