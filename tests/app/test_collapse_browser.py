"""The Collapse page in a real browser: a click picks a layer, the URL shares it; nothing leaves the machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import synthetic_collapse
import synthetic_quality
from browsing_guard import settle

pytestmark = pytest.mark.browser

# Where on the screen the line of a layer is at its last point, in the first panel.
POINT = """(name) => {
  const plot = document.querySelector('.js-plotly-plot'), full = plot._fullLayout;
  const line = plot._fullData.find(t => t.name === name && t.customdata && t.xaxis === 'x');
  const box = plot.getBoundingClientRect(), at = line.x.length - 1;
  return [box.left + full.xaxis._offset + full.xaxis.d2p(line.x[at]),
          box.top + full.yaxis._offset + full.yaxis.d2p(line.y[at])];
}"""


@pytest.fixture(scope="module")
def server(browsing: Any, serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    browsing.need_chromium()
    runs = tmp_path_factory.mktemp("runs")
    synthetic_quality.write_quality_run(runs, "hostile-quality", hostile=True)
    synthetic_collapse.write_collapse_run(runs, "hostile", hostile=True)
    synthetic_collapse.write_collapse_run(runs)
    with serve(runs, tmp_path_factory.mktemp("home")) as running:
        yield running
        assert "Traceback" not in running.log.read_text()


def hovered(page: Any, line: str) -> tuple[float, float]:
    """A point of a line that answers the mouse; figures may still be moving on a busy machine."""
    for _ in range(40):
        x, y = page.evaluate(POINT, line)
        page.mouse.move(x + 40, y + 40)
        page.mouse.move(x, y)
        page.wait_for_timeout(300)
        if page.locator(".hoverlayer .hovertext").count():
            return x, y
    raise AssertionError(f"{line} never answered the mouse")


def test_a_click_on_a_line_picks_its_layer(browsing: Any, chrome: Any, server: Any) -> None:
    guard = browsing.Guard(server.url)
    with browsing.page_of(chrome, guard) as page:
        page.goto(f"{server.url}/collapse?run=minilm-collapse")
        page.wait_for_selector(".js-plotly-plot .scatterlayer path")
        settle(page)
        page.locator(".js-plotly-plot").first.scroll_into_view_if_needed()
        page.mouse.click(*hovered(page, "layer 5"))  # a thin line, without markers to be seen
        page.wait_for_function("location.search.includes('at=5')")
        page.wait_for_function(
            "document.querySelector('.js-plotly-plot')?._fullData?.some(t => t.name === 'layer 5, median')"
        )
        settle(page)
        shared = page.url
    with browsing.page_of(chrome, guard) as page:
        page.goto(shared)
        page.wait_for_function(
            "document.querySelector('.js-plotly-plot')?._fullData?.some(t => t.name === 'layer 5, median')"
        )
        page.locator("[data-testid=stBaseButton-secondary]", has_text="Clear selection").click()
        page.wait_for_function("!location.search.includes('at=')")
        settle(page)
    assert guard.found == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "path",
    [
        "collapse?run=hostile&part=Temperature+and+remedies",
        "?run=hostile-quality",
        "?run=hostile-quality&view=Layers+side+by+side&at=2",
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


@pytest.mark.parametrize("path", ["collapse?run=minilm-collapse", "?run=hostile-quality"])
def test_no_page_is_wider_than_a_phone(browsing: Any, chrome: Any, server: Any, path: str) -> None:
    guard = browsing.Guard(server.url)
    with browsing.page_of(chrome, guard, viewport={"width": 390, "height": 900}) as page:
        page.goto(f"{server.url}/{path}")
        page.wait_for_selector(".js-plotly-plot .main-svg", state="attached")
        settle(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert guard.found == []
