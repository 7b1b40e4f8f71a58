"""A real Chromium that notices everything a page must not do: console errors, page errors, requests elsewhere."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path(os.environ.get("FATHOMETER_CHROMIUM", "/usr/bin/chromium"))
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Deep links probe these below the page's own path and get a harmless 404.
_PROBE = re.compile(r"/[a-z]+/_stcore/(health|host-config)$")

SETTLED = (
    "[data-testid=stApp][data-test-script-state=notRunning][data-test-connection-state=CONNECTED]"
)


def settle(page: Any) -> None:
    """Waits until the dashboard has nothing more to draw; fails where it shows an exception."""
    page.wait_for_selector(SETTLED)
    page.wait_for_function("document.querySelectorAll('[data-testid=stSkeleton]').length === 0")
    assert page.locator("[data-testid=stException]").count() == 0


@dataclass
class Guard:
    """What a page did wrong. `home` is the only origin it may talk to (none: no network at all)."""

    home: str | None = None
    found: list[str] = field(default_factory=list)

    def watch(self, page: Any) -> None:
        page.on("console", lambda m: self._console(m))
        page.on("pageerror", lambda error: self.found.append(f"page error: {error}"))
        page.on(
            "dialog",
            lambda dialog: (self.found.append(f"dialog: {dialog.message}"), dialog.dismiss()),
        )
        page.on("requestfailed", lambda r: self._failed(r))
        page.route(re.compile("^(http|ws)"), self._route)

    def _console(self, message: Any) -> None:
        if message.type == "error" and not _PROBE.search(message.location.get("url", "")):
            self.found.append(f"console: {message.text} {message.location.get('url')}")

    def _failed(self, request: Any) -> None:
        if not (request.failure and "ERR_ABORTED" in request.failure):  # a page that is left aborts
            self.found.append(f"failed: {request.url[:200]} {request.failure}")

    def _route(self, route: Any) -> None:
        url = route.request.url
        if self.home is not None and url.startswith(self.home):
            route.continue_()
        else:
            self.found.append(f"request: {url[:200]}")
            route.abort()


def need_chromium() -> None:
    """Skip with a reason where there is no Chromium; fail in CI."""
    reason = None
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        reason = "playwright is not installed"
    if not CHROMIUM.is_file():
        reason = f"{CHROMIUM} is missing: apt-get install chromium"
    if reason and (os.environ.get("CI") or os.environ.get("FATHOMETER_CI")):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser."""
    need_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def page_of(browser: Any, guard: Guard, **options: Any) -> Iterator[Any]:
    """A guarded page in a context of its own."""
    context = browser.new_context(**{"viewport": {"width": 1400, "height": 1000}, **options})
    try:
        page = context.new_page()
        page.set_default_timeout(60_000)
        guard.watch(page)
        yield page
    finally:
        context.close()
