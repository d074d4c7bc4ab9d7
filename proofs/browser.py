"""Chromium without a window, driven over the DevTools protocol by a pipe: opens pages, presses keys, takes pictures."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

# `--no-sandbox` because root has no sandbox; pages come from this machine alone.
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
]
WAIT_SECONDS = 60.0
_LEAST_DESCRIPTOR = 10  # so that the pipe's ends are not those that Chromium reads, 3 and 4


def find_chromium() -> str | None:
    """The path of Chromium; None where it is not installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Tab:
    """A page that is open.

    Attributes:
        problems: messages of the console at the level of a warning or above, and exceptions.
        requests: addresses that the page asked for, beside its own.
        address: of the page.
    """

    def __init__(self, browser: "Browser", session: str) -> None:
        self._browser, self._session = browser, session
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.address = ""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol in this page."""
        return self._browser.call(method, parameters, self._session)

    def resize(self, width: int, height: int = 900, dark: bool = False, paper: bool = False) -> None:
        """Choose the size in pixels, the theme, and whether the page is shown as it is printed."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="print" if paper else "", features=[theme])

    def open(self, page: Path) -> None:
        """Open a file, and wait until it is loaded."""
        self.address = page.resolve().as_uri()
        self._browser.loaded.discard(self._session)
        self.call("Page.navigate", url=self.address)
        self.wait_for_load()

    def wait_for_load(self) -> None:
        """Wait until the page says that it is loaded."""
        self._browser.wait(lambda: self._session in self._browser.loaded)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for.

        Raises:
            RuntimeError: for one that throws.
        """
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key."""
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def mouse(self, kind: str, x: float, y: float, **parameters: Any) -> None:
        """Send an event of the mouse: `mouseMoved`, `mousePressed` or `mouseReleased`."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **parameters)

    def settle(self) -> None:
        """Wait until the browser has drawn twice, after which observers have been told of what is visible."""
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def take_picture(self, path: Path, whole: bool = True) -> None:
        """Write a PNG of the page, all of it or the part that is visible."""
        if whole:
            # Charts are drawn when they come near; here all of the page is.
            height = self.evaluate("document.documentElement.scrollHeight")
            width = self.evaluate("innerWidth")
            self.call(
                "Emulation.setDeviceMetricsOverride",
                width=width,
                height=min(height, 15000),
                deviceScaleFactor=1,
                mobile=width < 600,
            )
            self.settle()
        self.settle()
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def note(self, method: str, event: dict[str, Any]) -> None:
        """Take down an event of the protocol."""
        if method == "Runtime.exceptionThrown":
            details = event["exceptionDetails"]
            self.problems.append(str(details.get("exception", {}).get("description", details["text"])))
        elif method == "Runtime.consoleAPICalled" and event["type"] in ("error", "warning", "assert"):
            self.problems.append(str([argument.get("value") for argument in event["args"]]))
        elif method == "Log.entryAdded" and event["entry"]["level"] in ("error", "warning"):
            self.problems.append(str(event["entry"]["text"]))
        elif method == "Network.requestWillBeSent":
            address = event["request"]["url"]
            if address.split("#")[0] != self.address and not address.startswith("data:"):
                self.requests.append(address)


class Browser:
    """A Chromium of its own, with an empty profile, that ends with the `with` block."""

    def __init__(self, program: str) -> None:
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        profile = f"--user-data-dir={self._profile.name}"
        read_end, self._write = _pipe()
        self._read, write_end = _pipe()
        self._process = subprocess.Popen(
            ["bash", "-c", 'exec "$@" 3<&"$IN" 4>&"$OUT"', "bash", program, *OPTIONS, profile, "about:blank"],
            env=os.environ | {"IN": str(read_end), "OUT": str(write_end)},
            pass_fds=(read_end, write_end),
            stderr=subprocess.DEVNULL,
        )
        os.close(read_end)
        os.close(write_end)
        self._buffer, self._number = b"", 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._tabs: dict[str, Tab] = {}
        self.loaded: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        os.close(self._read)
        os.close(self._write)
        self._profile.cleanup()

    @contextmanager
    def tab(self) -> Iterator[Tab]:
        """Open an empty tab, and close it at the end."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        self._tabs[session] = tab = Tab(self, session)
        try:
            yield tab
        finally:
            del self._tabs[session]
            self.call("Target.closeTarget", {"targetId": target})

    def call(self, method: str, parameters: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        """Call a method of the protocol, and wait for its answer.

        Raises:
            RuntimeError: for a call that Chromium refuses.
        """
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        self.wait(lambda: number in self._answers)
        answer = self._answers.pop(number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def wait(self, reached: Any) -> None:
        """Read what Chromium says until a condition holds.

        Raises:
            TimeoutError: if it does not within `WAIT_SECONDS`.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while not reached():
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError("Chromium does not answer")
            data = os.read(self._read, 1 << 20)
            if not data:
                raise TimeoutError("Chromium has ended")
            *messages, self._buffer = (self._buffer + data).split(b"\0")
            for message in messages:
                self._take(json.loads(message))

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._answers[message["id"]] = message
            return
        session, method = message.get("sessionId", ""), message["method"]
        if method == "Page.loadEventFired":
            self.loaded.add(session)
        elif session in self._tabs:
            self._tabs[session].note(method, message["params"])


def _pipe() -> tuple[int, int]:
    """Two ends of a pipe with numbers that are free in Chromium too."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _LEAST_DESCRIPTOR) for end in ends]
    for end in ends:
        os.close(end)
    return high[0], high[1]
