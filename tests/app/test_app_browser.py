"""The dashboard in a real browser: a click and the slider change what is said, and nothing leaves the machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing_guard import settle

pytestmark = pytest.mark.browser

CELL = """([layer, row]) => {
  const plot = document.querySelector('.js-plotly-plot');
  const { xaxis, yaxis } = plot._fullLayout;
  const box = plot.getBoundingClientRect();
  return [box.left + xaxis._offset + xaxis.c2p(xaxis.d2c(layer)), box.top + yaxis._offset + yaxis.c2p(yaxis.d2c(row))];
}"""


@pytest.fixture(scope="module")
def server(
    synthetic: Any, browsing: Any, serve: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    browsing.need_chromium()
    runs = tmp_path_factory.mktemp("runs")
    hostile = synthetic.make_run(
        runs, "hostile", dataset=synthetic.HOSTILE, model=synthetic.HOSTILE
    )
    measures = hostile / "measures.json"
    measures.write_text(
        measures.read_text().replace("Spearman correlation", "![x](http://evil.example/m.png)")
    )
    (runs / "![y](http:evil.example)").mkdir()
    synthetic.make_run(runs, "live", status="running", parts=("latency",))
    synthetic.make_run(runs, "minilm-stsb")
    synthetic.make_run(runs, "deep", n_layers=30, d=576)
    with serve(runs, tmp_path_factory.mktemp("home")) as running:
        yield running
        assert "Traceback" not in running.log.read_text()


def said(page: Any, text: str) -> None:
    page.get_by_text(text, exact=False).first.wait_for()


def test_click_clear_and_slider(browsing: Any, chrome: Any, server: Any) -> None:
    guard = browsing.Guard(server.url)
    with browsing.page_of(chrome, guard) as page:
        page.goto(f"{server.url}/?run=minilm-stsb")
        page.wait_for_selector(".js-plotly-plot .heatmaplayer image")
        settle(page)
        said(page, "4 × 256")
        page.locator(".js-plotly-plot").first.scroll_into_view_if_needed()
        x, y = page.evaluate(CELL, [2, 3])
        page.mouse.move(x, y)
        page.wait_for_selector(".hoverlayer .hovertext")
        page.mouse.click(x, y)
        page.wait_for_function("location.search.includes('cell=translated%3A2x64')")
        said(page, "Picked")  # not only the hover label
        said(page, "2 × 64")
        settle(page)
        page.get_by_role("button", name="Clear selection").click()
        page.wait_for_function("!location.search.includes('cell=')")
        settle(page)
        handle = page.get_by_role("slider").first
        handle.focus()
        for _ in range(30):
            handle.press("ArrowLeft")
        page.wait_for_function("location.search.includes('keep=80')")
        said(page, "0 × 64")
        settle(page)
    assert guard.found == []


@pytest.mark.parametrize("width", [1400, 800])
def test_a_click_hits_its_cell_where_cells_are_narrow(
    browsing: Any, chrome: Any, server: Any, width: int
) -> None:
    guard = browsing.Guard(server.url)
    with browsing.page_of(chrome, guard, viewport={"width": width, "height": 1000}) as page:
        page.goto(f"{server.url}/?run=deep")
        page.wait_for_selector(".js-plotly-plot .heatmaplayer image")
        settle(page)
        for layer in (2, 17):
            page.locator(".js-plotly-plot").first.scroll_into_view_if_needed()
            page.mouse.move(*page.evaluate(CELL, [layer, 4]))
            page.get_by_text(f"layer {layer} × 128", exact=False).first.wait_for()
            page.mouse.click(*page.evaluate(CELL, [layer, 4]))
            page.wait_for_function(f"location.search.includes('%3A{layer}x128')")
            settle(page)
    assert guard.found == []


def test_dark_mode_reaches_the_figures(browsing: Any, chrome: Any, server: Any) -> None:
    guard = browsing.Guard(server.url)
    inks = {}
    for scheme in ("light", "dark"):
        with browsing.page_of(chrome, guard, color_scheme=scheme) as page:
            page.goto(f"{server.url}/?run=minilm-stsb")
            page.wait_for_selector(".js-plotly-plot .xtick text")
            settle(page)
            inks[scheme] = page.evaluate(
                "[getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor,"
                " getComputedStyle(document.querySelector('.xtick text')).fill]"
            )
    assert inks["light"][0] != inks["dark"][0]
    assert inks["light"][1] != inks["dark"][1]
    assert guard.found == []


@pytest.mark.parametrize(
    "path", ["/?run=hostile", "/runs", "/?run=live", "/?run=minilm-stsb&with=hostile"]
)
def test_every_page_stays_on_this_machine(
    browsing: Any, chrome: Any, server: Any, path: str
) -> None:
    guard = browsing.Guard(server.url)
    with browsing.page_of(chrome, guard, viewport={"width": 800, "height": 900}) as page:
        page.goto(server.url + path)
        page.wait_for_selector("h1")
        settle(page)
        page.get_by_role("combobox").first.click()  # names of all runs are drawn
        page.wait_for_timeout(500)
        assert page.locator("img[src*=evil]").count() == 0
    assert guard.found == []


def test_keyboard_reaches_the_controls(browsing: Any, chrome: Any, server: Any) -> None:
    guard = browsing.Guard(server.url)
    with browsing.page_of(chrome, guard) as page:
        page.goto(f"{server.url}/?run=minilm-stsb")
        page.wait_for_selector(".js-plotly-plot")
        settle(page)
        reached = set()
        for _ in range(25):
            page.keyboard.press("Tab")
            reached.add(
                page.evaluate(
                    "document.activeElement.getAttribute('aria-label') || document.activeElement.innerText"
                )
            )
        assert any(
            "Budget" in str(r) or "Keep at least" in str(r) or "Run" in str(r) for r in reached
        )
        assert page.locator("[aria-label*='Heatmap of']").count() >= 1
    assert guard.found == []


def test_the_guard_fails_when_telemetry_is_on(
    browsing: Any, chrome: Any, serve: Any, synthetic: Any, tmp_path: Path
) -> None:
    """Break it on purpose: with usage statistics on, the page calls a metrics host and the guard says so."""
    on = (
        "before = dashboard.command\n"
        "def loud(port):\n"
        "    return [f.replace('UsageStats=false', 'UsageStats=true') for f in before(port)]\n"
        "dashboard.command = loud"
    )
    with serve(tmp_path / "runs", tmp_path / "home", on) as running:
        guard = browsing.Guard(running.url)
        with browsing.page_of(chrome, guard) as page:
            page.goto(running.url)
            settle(page)
            page.wait_for_timeout(1500)
    assert any(line.startswith("request: https://") for line in guard.found)
