"""The console in a real browser: every panel, both themes, a phone and a desk, the keyboard.

Needs playwright (`uv sync --group browser`, or pip install playwright) and a Chromium; without them
it is skipped, and says so.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest
import trio

from node.console.server import LINK
from node.local.control import unheard
from tests.console.served import Console, serving

playwright = pytest.importorskip(
    "playwright.sync_api", reason="the console is not looked at in a browser: no playwright here"
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
pytestmark = pytest.mark.skipif(
    not CHROMIUM, reason="the console is not looked at in a browser: no chromium here"
)
PANELS = ("reach", "machine", "tasks", "models", "peers", "earnings", "doctor")


async def test_every_panel_in_both_themes_on_a_phone_and_a_desk(tmp_path: Path) -> None:
    async with serving(tmp_path) as console:
        link = (await console.commands[LINK]({}, unheard))["url"]
        await trio.to_thread.run_sync(_look, console, link, trio.lowlevel.current_trio_token())


def _look(console: Console, link: str, token: Any) -> None:
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        first = browser.new_context()
        page = first.new_page()
        page.goto(link)
        cookies = first.storage_state()
        for theme in ("light", "dark"):
            for width in (390, 1280):
                context = browser.new_context(
                    storage_state=cookies,
                    color_scheme=theme,
                    viewport={"width": width, "height": 900},
                )
                _look_at(context.new_page(), console)
                context.close()
        browser.close()
    assert console.node.leg_server.paused == ""


def _look_at(page: Any, console: Console) -> None:
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda it: said.append(it.text))
    page.on("pageerror", lambda it: said.append(str(it)))
    page.on("request", lambda it: asked.append(it.url))
    page.goto(console.url)
    for name in PANELS:
        assert page.locator(f"#p-{name}").is_visible()
    # Nothing is wider than the screen: what is wide scrolls by itself, and an id breaks.
    page.evaluate("document.getElementById('headline').firstElementChild.append('b'.repeat(60))")
    wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wider) <= 0
    # A table without rows says nothing, so its head is not there.
    assert not page.get_by_role("columnheader", name="receipt").is_visible()
    assert page.get_by_text("no answer is kept yet").is_visible()
    # By keyboard alone: to a panel by its number, to a button by its name, and pressed.
    page.keyboard.press("4")
    assert page.evaluate("document.activeElement.id") == "p-models"
    page.get_by_role("button", name="Pause").focus()
    assert page.get_by_role("button", name="Resume").count() == 0
    page.keyboard.press("Enter")
    page.locator("#controls .warn").wait_for(timeout=60_000)
    # The place is not lost: what had the focus is followed by what undoes it.
    assert page.evaluate("document.activeElement.textContent") == "Resume"
    assert page.get_by_role("button", name="Pause").count() == 0
    page.keyboard.press("Enter")
    page.locator("#controls .ok").wait_for(timeout=60_000)
    assert page.evaluate("document.activeElement.textContent") == "Pause"
    assert said == []
    assert {it.split("/")[2] for it in asked} == {console.host}
