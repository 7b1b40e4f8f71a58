"""The Concepts page in a real browser: pick, share, take away, both colours; nothing leaves the machine."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
from browsing_guard import settle

pytestmark = pytest.mark.browser

# Where on the screen the curve of a panel is at a layer: the panel is named by its title.
POINT = """([title, layer]) => {
  for (const plot of document.querySelectorAll('.js-plotly-plot')) {
    const full = plot._fullLayout;
    const note = full.annotations.find(n => n.text.split(' <')[0] === title);
    if (!note) continue;
    for (const trace of plot._fullData) {
      const axis = full[trace.xaxis.replace('x', 'xaxis')], up = full[trace.yaxis.replace('y', 'yaxis')];
      if (trace.name !== 'probe' || trace.x.length < 2) continue;
      if (axis.domain[0] !== note.x || up.domain[1] !== note.y) continue;
      if (trace.mode.includes('markers')) {
        const box = plot.getBoundingClientRect();
        return [box.left + axis._offset + axis.d2p(layer), box.top + up._offset + up.d2p(trace.y[layer])];
      }
    }
  }
}"""


@pytest.fixture(scope="module")
def server(
    studies: Any, browsing: Any, serve: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    browsing.need_chromium()
    runs = tmp_path_factory.mktemp("runs")
    studies.write_small_concept_run(runs, "hostile", hostile=True)
    studies.write_small_concept_run(runs, "live", status="running", parts=("curves",))
    studies.write_small_concept_run(runs)
    with serve(runs, tmp_path_factory.mktemp("home")) as running:
        yield running
        assert "Traceback" not in running.log.read_text()


def said(page: Any, text: str) -> None:
    page.get_by_text(text, exact=False).first.wait_for()


def choose(page: Any, name: str) -> None:
    """Pick a concept in the list by typing, as a reader without a mouse does; the first one where no name is given."""
    box = page.get_by_role("combobox", name="Concept")
    box.focus()
    if name:
        box.fill(name)
    else:
        box.press("ArrowDown")
    page.get_by_role("option", name=name).first.wait_for()
    box.press("Enter")


def test_pick_share_and_take_away(browsing: Any, chrome: Any, server: Any) -> None:
    guard = browsing.Guard(server.url)
    with browsing.page_of(chrome, guard, accept_downloads=True) as page:
        page.goto(f"{server.url}/concepts?run=minilm-concepts")
        page.wait_for_selector(".js-plotly-plot .scatterlayer path")
        settle(page)
        said(page, "Pick a concept to see")
        page.locator(".js-plotly-plot").first.scroll_into_view_if_needed()
        x, y = page.evaluate(POINT, ["sentiment", 5])
        page.mouse.move(x, y)
        page.wait_for_selector(".hoverlayer .hovertext")
        page.mouse.click(x, y)
        page.wait_for_function("location.search.includes('concept=sentiment')")
        said(page, "data: sentiment-set")
        settle(page)
        choose(page, "cities")
        said(page, "data: cities-set")
        settle(page)
        with page.expect_download() as held:
            page.locator("[data-testid=stDownloadButton] button").first.click()
        rows = pd.read_csv(io.BytesIO(held.value.path().read_bytes()))
        assert set(rows["concept"]) == {"cities"}
        assert {"raw", "shuffled", "bag-of-words"} <= set(rows["variant"])
        shared = page.url
    with browsing.page_of(chrome, guard) as page:
        page.goto(shared)
        said(page, "data: cities-set")
        settle(page)
        page.locator("[data-testid=stBaseButton-secondary]", has_text="Clear selection").click()
        page.wait_for_function("!location.search.includes('concept=')")
        said(page, "Pick a concept to see")
        settle(page)
    assert guard.found == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "path", ["run=hostile&figures=Erasure", "run=live", "run=minilm-concepts&with=hostile"]
)
def test_it_stays_on_this_machine(
    browsing: Any, chrome: Any, server: Any, scheme: str, path: str
) -> None:
    guard = browsing.Guard(server.url)
    with browsing.page_of(chrome, guard, color_scheme=scheme) as page:
        page.goto(f"{server.url}/concepts?{path}")
        page.wait_for_selector("h1")
        settle(page)
        choose(page, "")
        page.wait_for_function("location.search.includes('concept=')")
        page.wait_for_selector(".js-plotly-plot")
        settle(page)
        assert page.locator("img[src*=evil]").count() == 0
    assert guard.found == []


def test_many_panels_scroll_on_a_phone(browsing: Any, chrome: Any, server: Any) -> None:
    guard = browsing.Guard(server.url)
    with browsing.page_of(chrome, guard, viewport={"width": 390, "height": 900}) as page:
        page.goto(f"{server.url}/concepts?run=minilm-concepts&figures=Erasure")
        page.wait_for_selector(".js-plotly-plot .scatterlayer path", state="attached")
        settle(page)
        page.wait_for_function(
            "document.querySelector('.js-plotly-plot')?._fullLayout?.width >= 600"
        )
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert guard.found == []
