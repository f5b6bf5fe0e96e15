"""Drive a real headless Chromium over its own protocol, through a pair of pipes: no package, no port.

`Chrome(folder)` is a context; `chrome.page()` is a tab whose requests, console and errors are kept, those of its
workers included. Messages are JSON, ended by a zero byte (`--remote-debugging-pipe`).
"""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.analyzer.figures.browser import browser

SECONDS = 60.0
KEYS = {
    "Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40,
}  # fmt: skip
# The browser reads commands from descriptor 3 and writes answers to 4.
MOVED = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for end, place in zip(ends, (3, 4)):
    os.dup2(end, place)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Chrome:
    """A browser with a profile of its own that reaches no host but 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pages: list[Page] = []
        self._number = 0
        self._received = b""

    def __enter__(self) -> Chrome:
        commands, self._write = os.pipe()
        self._read, answers = os.pipe()
        executable = browser()
        assert executable is not None, "no Chromium is installed: apt-get install chromium"
        options = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--remote-debugging-pipe", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            f"--user-data-dir={self.folder / 'profile'}", "--disable-background-networking", "--hide-scrollbars",
            "about:blank",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-c", MOVED, str(commands), str(answers), executable, *options],
            pass_fds=(commands, answers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.call("Browser.close")
            self._process.wait(10)
        finally:
            self._process.kill()
            os.close(self._write)
            os.close(self._read)

    def page(self, width: int = 1400, height: int = 900, *, dark: bool = False) -> Page:
        """Open an empty tab of a size."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = Page(self, session)
        self.pages.append(page)
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            page.call(f"{domain}.enable")
        page.call(
            "Target.setAutoAttach", {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True}
        )
        page.size(width, height)
        page.scheme(dark=dark)
        return page

    def call(self, method: str, parameters: dict[str, Any] | None = None, session: str | None = None) -> dict:
        """Send a command and return its result; what happens meanwhile goes to the pages."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters or {}}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + SECONDS
        while True:
            answer = self._next(until)
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def pump(self, seconds: float) -> None:
        """Read what happens for some time."""
        until = time.monotonic() + seconds
        try:
            while True:
                self._next(until)
        except TimeoutError:
            return

    def _next(self, until: float) -> dict:
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._read], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise TimeoutError("the browser said nothing")
            read = os.read(self._read, 2**20)
            assert read, "the browser ended"
            self._received += read
        text, _, self._received = self._received.partition(b"\0")
        message = json.loads(text)
        for page in self.pages:
            page.heard(message)
        return message


class Page:
    """A tab."""

    def __init__(self, chrome: Chrome, session: str) -> None:
        self.chrome, self.session = chrome, session
        self.sessions = {session}
        self.requested: list[str] = []
        self.said: list[str] = []
        self._fresh: list[str] = []

    def call(self, method: str, parameters: dict[str, Any] | None = None) -> dict:
        """Send a command of this tab."""
        for worker in self._take_fresh():
            self.chrome.call("Runtime.enable", None, worker)
            self.chrome.call("Network.enable", None, worker)
            self.chrome.call("Runtime.runIfWaitingForDebugger", None, worker)
        return self.chrome.call(method, parameters, self.session)

    def heard(self, message: dict) -> None:
        """Keep what the tab and its workers request and say."""
        if message.get("sessionId") not in self.sessions or "method" not in message:
            return
        method, found = message["method"], message["params"]
        if method == "Target.attachedToTarget":
            self.sessions.add(found["sessionId"])
            self._fresh.append(found["sessionId"])
        elif method == "Network.requestWillBeSent":
            self.requested.append(found["request"]["url"])
        elif method == "Runtime.consoleAPICalled":
            self.said.append(
                f"{found['type']}: {[one.get('value', one.get('description')) for one in found['args']]}"
            )
        elif method == "Runtime.exceptionThrown":
            self.said.append(f"exception: {json.dumps(found['exceptionDetails'])[:600]}")
        elif method == "Log.entryAdded":
            self.said.append(
                f"{found['entry']['level']}: {found['entry']['text']} {found['entry'].get('url', '')}"
            )

    def _take_fresh(self) -> list[str]:
        fresh, self._fresh = self._fresh, []
        return fresh

    def open(self, address: str) -> None:
        """Load a page."""
        self.call("Page.navigate", {"url": address})
        self.until("document.readyState === 'complete'")

    def size(self, width: int, height: int) -> None:
        """Set the size of the window, in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )

    def scheme(self, *, dark: bool) -> None:
        """Prefer dark or light colours."""
        value = "dark" if dark else "light"
        self.call(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": value}]}
        )

    def run(self, expression: str) -> Any:
        """The value of an expression; a promise is awaited."""
        asked = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        found = self.call("Runtime.evaluate", asked)
        assert "exceptionDetails" not in found, f"{expression[:200]}: {found['exceptionDetails']}"
        return found["result"].get("value")

    def until(self, condition: str, seconds: float = SECONDS) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < end, f"never: {condition}; {self.said}; {self.text('#problem')}"
            self.chrome.pump(0.02)

    def text(self, selector: str) -> str:
        """The text that a reader sees in an element."""
        return self.run(f"document.querySelector({selector!r})?.innerText ?? ''")

    def press(self, *keys: str) -> None:
        """Press keys, by their names such as Tab; others are typed."""
        for key in keys:
            event = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS.get(key, 0)}
            if key not in KEYS or key == " ":
                event["text"] = key
            elif key == "Enter":
                event["text"] = "\r"
            self.call("Input.dispatchKeyEvent", {"type": "keyDown", **event})
            self.call("Input.dispatchKeyEvent", {"type": "keyUp", **event})

    def type(self, text: str) -> None:
        """Type a text into what has the focus."""
        self.call("Input.insertText", {"text": text})

    def click(self, selector: str) -> None:
        """Click on the middle of an element, with the mouse."""
        x, y = self._middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1}
            )

    def choose(self, selector: str, path: Path) -> None:
        """Choose a file in an input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", {"nodeId": root, "selector": selector})["nodeId"]
        self.call("DOM.setFileInputFiles", {"files": [str(path)], "nodeId": node})

    def drop(self, selector: str, path: Path) -> None:
        """Drop a file on an element, as from a folder."""
        x, y = self._middle(selector)
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", {"type": kind, "x": x, "y": y, "data": data})

    def screenshot(self, path: Path | None = None, *, whole: bool = True) -> bytes:
        """The page as a PNG. whole: its full length."""
        found = self.call("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": whole})
        png = base64.b64decode(found["data"])
        if path is not None:
            path.write_bytes(png)
        return png

    def _middle(self, selector: str) -> tuple[float, float]:
        place = f"document.querySelector({selector!r})"
        self.run(f"{place}.scrollIntoView({{block: 'center'}})")
        box = self.run(f"{place}.getBoundingClientRect().toJSON()")
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
