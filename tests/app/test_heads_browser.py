"""The Heads page in a real browser: a click on a cell picks its head, the URL shares it; nothing leaves the machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import synthetic_circuits
import synthetic_heads
from browsing_guard import settle

pytestmark = pytest.mark.browser

# Where on the screen a cell of the map is.
CELL = """([block, head]) => {
  const plot = document.querySelector('.js-plotly-plot'), full = plot._fullLayout;
  const box = plot.getBoundingClientRect();
  return [box.left + full.xaxis._offset + full.xaxis.d2p(block), box.top + full.yaxis._offset + full.yaxis.d2p(head)];
}"""


@pytest.fixture(scope="module")
def server(browsing: Any, serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    browsing.need_chromium()
    runs = tmp_path_factory.mktemp("runs")
    synthetic_heads.write_heads_run(runs, "hostile-heads", hostile=True)
    synthetic_circuits.write_circuits_run(runs, "hostile-circuits", hostile=True)
    synthetic_circuits.write_circuits_run(runs)
    synthetic_heads.write_heads_run(runs)
    with serve(runs, tmp_path_factory.mktemp("home")) as running:
        yield running
        assert "Traceback" not in running.log.read_text()


def hovered(page: Any, block: int, head: int) -> tuple[float, float]:
    """A cell that answers the mouse with its head; figures may still be moving on a busy machine."""
    for _ in range(40):
        x, y = page.evaluate(CELL, [block, head])
        page.mouse.move(x + 60, y + 60)
        page.mouse.move(x, y)
        page.wait_for_timeout(300)
        told = page.locator(".hoverlayer .hovertext")
        if told.count() and f"head {block}.{head}" in told.first.text_content():
            return x, y
    raise AssertionError(f"{block}.{head} never answered the mouse")


@pytest.mark.parametrize(
    ("path", "block", "head"),
    [
        ("heads?run=smollm2-heads", 20, 7),
        ("circuits?run=smollm2-circuits&circuit=Attribution", 9, 2),
    ],
)
def test_a_click_on_a_cell_picks_its_head(
    browsing: Any, chrome: Any, server: Any, path: str, block: int, head: int
) -> None:
    guard = browsing.Guard(server.url)
    with browsing.page_of(chrome, guard) as page:
        page.goto(f"{server.url}/{path}")
        page.wait_for_selector(".js-plotly-plot .scatterlayer path", state="attached")
        settle(page)
        page.locator(".js-plotly-plot").first.scroll_into_view_if_needed()
        page.mouse.click(*hovered(page, block, head))
        page.wait_for_function(f"location.search.includes('head={block}.{head}')")
        page.wait_for_function(
            "document.querySelector('.js-plotly-plot')?._fullLayout?.shapes?.length === 2"
        )
        settle(page)
        shared = page.url
    with browsing.page_of(chrome, guard) as page:
        page.goto(shared)
        page.wait_for_function(
            "document.querySelector('.js-plotly-plot')?._fullLayout?.shapes?.length === 2"
        )
        settle(page)
        if path.startswith("heads"):
            strip = page.locator("[aria-label^='Attention of head 20.7 over']")
            assert strip.locator("span[title^=needle]:not([title^='needle sentence'])").count() == 2
        page.locator("[data-testid=stBaseButton-secondary]", has_text="Clear selection").click()
        page.wait_for_function("!location.search.includes('head=')")
        settle(page)
    assert guard.found == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "path",
    [
        "heads?run=hostile-heads",
        "circuits?run=hostile-circuits",
        "circuits?run=hostile-circuits&circuit=Graph+of+words",
    ],
)
def test_it_stays_on_this_machine(
    browsing: Any, chrome: Any, server: Any, scheme: str, path: str
) -> None:
    guard = browsing.Guard(server.url)
    with browsing.page_of(chrome, guard, color_scheme=scheme) as page:
        page.goto(f"{server.url}/{path}")
        page.wait_for_selector(".js-plotly-plot")
        settle(page)
        assert page.locator("img[src*=evil]").count() == 0
    assert guard.found == []


@pytest.mark.parametrize("path", ["heads?run=smollm2-heads", "circuits?run=hostile-circuits"])
def test_no_page_is_wider_than_a_phone(browsing: Any, chrome: Any, server: Any, path: str) -> None:
    guard = browsing.Guard(server.url)
    with browsing.page_of(chrome, guard, viewport={"width": 390, "height": 900}) as page:
        page.goto(f"{server.url}/{path}")
        page.wait_for_selector(".js-plotly-plot .main-svg", state="attached")
        settle(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert guard.found == []
