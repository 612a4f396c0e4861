"""The page of a run full of hostile texts, in a browser: nothing of them runs, nothing is fetched."""

from __future__ import annotations

import functools
import http.server
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from textune.report.write import write_report

from .hostile import HOSTILE, write_hostile_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr", "--v=0"),
    "--virtual-time-budget=3000",
)


class Handler(http.server.SimpleHTTPRequestHandler):
    requested: list[str]

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        self.requested.append(self.path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A server of the test's folder: its address, and what it was asked for."""
    requested: list[str] = []
    handler = functools.partial(type("Listening", (Handler,), {"requested": requested}), directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}", requested
        listening.shutdown()
        thread.join()


def test_hostile_texts(tmp_path: Path, server: tuple[str, list[str]]) -> None:
    assert CHROMIUM is not None
    address, requested = server
    write_report([write_hostile_run(tmp_path)], output=tmp_path / "page.html")
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"{address}/page.html"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert requested == ["/page.html"]
    assert "CONSOLE" not in done.stderr  # neither errors nor what the policy has kept from running
    page = done.stdout
    assert len(re.findall("<script", page)) == 1
    # The page's own script has run: the table of mistakes can be searched and sorted.
    assert page.count('<input type="search">') == 1 and page.count('<button type="button">') == 5
    for text in (HOSTILE[0], HOSTILE[6], HOSTILE[33]):
        assert text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in page
