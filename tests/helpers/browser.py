"""A real browser without a window: pages from files, what they log, and what they ask for."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

REQUIRE = "TRITIER_REQUIRE_CHROMIUM"
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run", "--disable-dev-shm-usage",
    "--hide-scrollbars", "--lang=en",
)  # fmt: skip
_OWN_SCHEMES = ("file:", "data:", "blob:", "about:", "chrome:", "chrome-extension:", "devtools:")


def chromium() -> tuple[str, str]:
    """Paths of browser and driver. Skips the test without them, or fails it where they must be
    there."""
    found = shutil.which("chromium"), shutil.which("chromedriver")
    if found[0] is None or found[1] is None:
        reason = "chromium or chromedriver is not installed (Debian: chromium chromium-driver)"
        if os.environ.get(REQUIRE):
            pytest.fail(f"{reason}, and {REQUIRE} is set")
        pytest.skip(reason)
    return found[0], found[1]


class Browser:
    """One browser; `driver` is selenium's."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, page: Path, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load a page of this machine in a window of that size; logs start anew."""
        self.resize(width, height)
        self.emulate(dark=dark)
        self.logs(), self.requests()
        self.driver.get(page.resolve().as_uri())
        self.wait_for("document.readyState === 'complete'")

    def resize(self, width: int, height: int = 900) -> None:
        """Set the size of the window's content."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )

    def emulate(self, dark: bool = False, media: str = "") -> None:
        """Pretend a preference of colours, or paper (`print`)."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"media": media, "features": [scheme]}
        )

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript with `arguments`; its `return` is the result."""
        return self.driver.execute_script(script, *arguments)

    def wait_for(self, condition: str, seconds: float = 20.0) -> None:
        """Until a JavaScript expression is true."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, seconds, 0.05).until(lambda _: self.run(f"return {condition}"))

    def logs(self) -> list[str]:
        """What the console and the browser wrote since the last call, warnings and worse."""
        found = self._log("browser")
        return [x["message"] for x in found if x["level"] in ("WARNING", "SEVERE")]

    def _log(self, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.driver.get_log(kind)  # type: ignore[no-untyped-call]
        return found

    def requests(self) -> list[str]:
        """Addresses outside the page that were asked for since the last call."""
        found = []
        for entry in self._log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.append(message["params"]["request"]["url"])
        return [url for url in found if not url.startswith(_OWN_SCHEMES)]

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """PNG of the whole page, or of what is seen."""
        options = {"format": "png", "captureBeyondViewport": whole}
        if whole:
            size = self.run(
                "return [document.documentElement.clientWidth,"
                " document.documentElement.scrollHeight]"
            )
            options["clip"] = {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}
        found = self.driver.execute_cdp_cmd("Page.captureScreenshot", options)
        path.write_bytes(base64.b64decode(found["data"]))

    def printed(self) -> bytes:
        """The page on A4 paper, as PDF."""
        options = {"printBackground": True, "paperWidth": 8.27, "paperHeight": 11.69}
        found = self.driver.execute_cdp_cmd("Page.printToPDF", options)
        return base64.b64decode(found["data"])


@contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    """A browser with a new profile in that folder; it is ended with the block."""
    binary, driver_path = chromium()
    options = Options()
    options.binary_location = binary
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # Given both paths, selenium looks for nothing by itself.
    driver = webdriver.Chrome(options=options, service=Service(executable_path=driver_path))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
