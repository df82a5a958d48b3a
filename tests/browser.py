"""A headless Chromium, told what to do over a pipe in the DevTools protocol: no port, no driver, no library."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

CHROMIUM = shutil.which("chromium")
"""The browser, where there is one (Debian: `apt-get install chromium`)."""


SECONDS = 300
"""How long a browser may run."""


TEXTS = """
var texts = (query) => [...document.querySelectorAll(query)].filter((one) => one.getClientRects().length &&
  [...one.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim()));
"""
"""The elements below another that have a text of their own."""

COLOURS = (
    TEXTS
    + """
(() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const over = (upper, lower) => lower.map((value, index) => value + (upper[index] - value) * upper[3] / 255);
  const behind = (element) => {
    if (!element) return rgba("white");
    const own = rgba(getComputedStyle(element).backgroundColor);
    return own[3] === 255 ? own : over(own, behind(element.parentElement));
  };
  return texts("body *").map((one) => {
    const style = getComputedStyle(one);
    const ink = rgba(one.ownerSVGElement ? style.fill : style.color);
    return {text: one.textContent.trim().slice(0, 40), behind: behind(one), ink};
  });
})()
"""
)
"""The colour of every text, and of what is behind it."""


class Page:
    """A tab, with all that it asked of a network and all that it complained of."""

    def __init__(self, commands: IO[bytes], answers: IO[bytes]):
        self._commands = commands
        self._answers = answers
        self._read = b""
        self._session: str | None = None
        self._number = 0
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._loaded = False
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command and returns its answer; what happens meanwhile is noted."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            pass
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, path: Path, width: int = 1440, height: int = 900, dark: bool = False) -> None:
        """Opens a file and waits until it is loaded."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", features=scheme)
        self._loaded = False
        self.ask("Page.navigate", url=path.resolve().as_uri())
        while not self._loaded:
            self._next()

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited if it is a promise."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Presses and releases a key."""
        text = {"text": key} if len(key) == 1 else {}
        self.ask("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.ask("Input.dispatchKeyEvent", type="keyUp", key=key)

    def screenshot(self, path: Path) -> None:
        """Writes what is seen as PNG."""
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot")["data"]))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            part = self._answers.read(1 << 16)
            assert part, "the browser has ended"
            self._read += part
        first, _, self._read = self._read.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        parameters = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
            case "Log.entryAdded" if parameters["entry"]["level"] in ("warning", "error"):
                self.complaints.append(parameters["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(parameters["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if parameters["type"] in ("warning", "error", "assert"):
                self.complaints.append(json.dumps(parameters["args"]))
        return message


@contextmanager
def browsing(folder: Path) -> Iterator[Page]:
    """Gives a tab of a browser of its own, whose profile lies in a folder."""
    assert CHROMIUM is not None
    # The browser reads commands from its file descriptor 3 and answers on 4.
    command = [
        *("sh", "-c", 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null', "sh", CHROMIUM, "--headless", "--no-sandbox"),
        *("--remote-debugging-pipe", f"--user-data-dir={folder}", "--disable-gpu", "--no-first-run"),
    ]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
    )
    assert process.stdin is not None
    assert process.stdout is not None
    # A page that hangs ends its browser, and with it the test that waits for an answer.
    limit = threading.Timer(SECONDS, process.kill)
    limit.start()
    try:
        yield Page(process.stdin, process.stdout)
    finally:
        limit.cancel()
        process.terminate()
        process.communicate()


def hard_to_read(page: Page) -> list[tuple[str, float]]:
    """The texts of a page whose contrast with what is behind them is below 4.5 : 1, which WCAG 2 asks for."""
    texts = page.evaluate(COLOURS)
    assert texts
    return [(one["text"], ratio) for one in texts if (ratio := contrast(one["ink"], one["behind"])) < 4.5]


def contrast(one: list[int], other: list[int]) -> float:
    """The ratio of two colours' luminances, as WCAG 2 defines it."""

    def luminance(colour: list[int]) -> float:
        shares = [value / 255 for value in colour[:3]]
        linear = [share / 12.92 if share <= 0.03928 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)
