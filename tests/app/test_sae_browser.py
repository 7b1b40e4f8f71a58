"""The Features page in a real browser: a click on a dot picks its feature, the URL shares it; nothing leaves the
machine, and it fits on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import synthetic_sae
from browsing_guard import settle

pytestmark = pytest.mark.browser

# Where on the screen the dot of a feature is, in the last figure on the page.
DOT = """(feature) => {
  const plot = document.querySelector('.js-plotly-plot'), full = plot._fullLayout;
  for (const trace of plot._fullData) {
    const at = (trace.meta?.features || []).indexOf(feature);
    if (at < 0) continue;
    const box = plot.getBoundingClientRect(), x = full.xaxis, y = full.yaxis;
    return [box.left + x._offset + x.d2p(trace.x[at]), box.top + y._offset + y.d2p(trace.y[at])];
  }
}"""


@pytest.fixture(scope="module")
def server(browsing: Any, serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    browsing.need_chromium()
    runs = tmp_path_factory.mktemp("runs")
    synthetic_sae.write_sae_run(runs, "hostile-sae", hostile=True)
    synthetic_sae.write_sae_run(runs)
    with serve(runs, tmp_path_factory.mktemp("home")) as running:
        yield running
        assert "Traceback" not in running.log.read_text()


def hovered(page: Any, feature: int) -> tuple[float, float]:
    """A dot that answers the mouse with its feature; figures may still be moving on a busy machine."""
    for _ in range(40):
        x, y = page.evaluate(DOT, feature)
        page.mouse.move(x + 60, y + 60)
        page.mouse.move(x, y)
        page.wait_for_timeout(300)
        told = page.locator(".hoverlayer .hovertext")
        if told.count() and f"feature {feature}" in told.first.text_content():
            return x, y
    raise AssertionError(f"feature {feature} never answered the mouse")


def test_a_click_on_a_dot_picks_its_feature(browsing: Any, chrome: Any, server: Any) -> None:
    guard = browsing.Guard(server.url)
    with browsing.page_of(chrome, guard) as page:
        page.goto(f"{server.url}/sae?run=smollm2-sae&view=Effects")
        page.wait_for_selector(".js-plotly-plot .scatterlayer path", state="attached")
        settle(page)
        page.locator(".js-plotly-plot").first.scroll_into_view_if_needed()
        page.mouse.click(*hovered(page, 95))
        page.wait_for_function("location.search.includes('feature=95')")
        settle(page)
        page.locator("[data-testid=stButtonGroup] button", has_text="Features").click()
        strip = page.locator("[aria-label='Examples of feature 95']")
        strip.wait_for()
        settle(page)
        assert strip.locator("span[title='6.00']", has_text="blue").count() == 1
        shared = page.url
    with browsing.page_of(chrome, guard) as page:
        page.goto(shared)
        page.locator("[aria-label='Examples of feature 95']").wait_for()
        settle(page)
        page.get_by_role("button", name="96 (0.41)").first.click()
        page.wait_for_function("location.search.includes('feature=96')")
        page.locator("[aria-label='Examples of feature 96']").wait_for()
        page.locator("[data-testid=stBaseButton-secondary]", has_text="Clear selection").click()
        page.wait_for_function("!location.search.includes('feature=')")
        settle(page)
        page.get_by_label("Search features").fill("france")
        page.get_by_label("Search features").press("Enter")
        page.get_by_text("1 feature with this word").wait_for()
        settle(page)
    assert guard.found == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", ["Features", "Circuits"])
def test_it_stays_on_this_machine_and_fits_a_phone(
    browsing: Any, chrome: Any, server: Any, scheme: str, view: str
) -> None:
    guard = browsing.Guard(server.url)
    size = {"width": 390, "height": 900}
    with browsing.page_of(chrome, guard, color_scheme=scheme, viewport=size) as page:
        page.goto(f"{server.url}/sae?run=hostile-sae&view={view}&find=paris")
        page.wait_for_selector(".js-plotly-plot .main-svg", state="attached")
        settle(page)
        assert page.locator("img[src*=evil]").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert guard.found == []
