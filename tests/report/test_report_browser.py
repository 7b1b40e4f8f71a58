"""The report in a real browser, opened as a file: it draws, it downloads, and no request leaves it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from probes.report import build_report

pytestmark = pytest.mark.browser

DRAWN = "html[data-drawn=true]"


@pytest.fixture(scope="module")
def hostile_report(synthetic: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("hostile")
    return build_report(
        synthetic.make_run(runs, dataset=synthetic.HOSTILE, model=synthetic.HOSTILE)
    )


def _open(page: Any, path: Path) -> None:
    page.goto(path.as_uri())
    page.wait_for_selector(DRAWN, state="attached")


def test_hostile_report_draws_and_stays_silent(
    browsing: Any, chrome: Any, hostile_report: Path
) -> None:
    guard = browsing.Guard()
    with browsing.page_of(chrome, guard, color_scheme="light") as page:
        _open(page, hostile_report)
        assert page.locator(".plot .main-svg").count() >= 5
        assert "<script>alert(1)</script>" in page.locator("h1").inner_text()
        for plot in page.locator(".plot").all():
            plot.hover()
        page.wait_for_timeout(300)
    assert guard.found == []


def test_svg_and_csv_can_be_downloaded(
    browsing: Any, chrome: Any, hostile_report: Path, tmp_path: Path
) -> None:
    guard = browsing.Guard()
    with browsing.page_of(chrome, guard, accept_downloads=True) as page:
        _open(page, hostile_report)
        with page.expect_download() as waiting:
            page.locator("figure#quality-depth button.svg").click()
        waiting.value.save_as(tmp_path / "depth.svg")
        with page.expect_download() as waiting:
            page.locator("figure#quality-depth a.csv").click()
        waiting.value.save_as(tmp_path / "depth.csv")
    svg = (tmp_path / "depth.svg").read_text(encoding="utf-8")
    assert svg.startswith("<svg")
    assert "Spearman correlation over layers" in svg
    assert (tmp_path / "depth.csv").read_text().startswith("variant,layer,dim,value")
    assert guard.found == []


def test_dark_mode_changes_page_and_figures(
    browsing: Any, chrome: Any, hostile_report: Path
) -> None:
    guard = browsing.Guard()
    ink = "getComputedStyle(document.querySelector('.xtick text')).fill"
    looks = f"[getComputedStyle(document.body).backgroundColor, {ink}]"
    with browsing.page_of(chrome, guard, color_scheme="light") as page:
        _open(page, hostile_report)
        light = page.evaluate(looks)
        page.emulate_media(color_scheme="dark")
        dark = page.evaluate(looks)
        for _ in range(100):  # the page's policy forbids the eval that wait_for_function needs
            if dark[1] != light[1]:
                break
            page.wait_for_timeout(100)
            dark = page.evaluate(looks)
    assert light[0] != dark[0]
    assert light[1] != dark[1]
    assert guard.found == []


def test_the_policy_stops_what_slips_through(
    browsing: Any, chrome: Any, hostile_report: Path, tmp_path: Path
) -> None:
    """Break the report on purpose: the policy blocks script and image, and the guard sees the attempt."""
    text = hostile_report.read_text(encoding="utf-8")
    evil = '<script>window.hit = 1</script><img src="http://evil.example/x.png">'
    broken = tmp_path / "broken.html"
    broken.write_text(text.replace("<main>", f"<main>{evil}", 1), encoding="utf-8")
    guard = browsing.Guard()
    with browsing.page_of(chrome, guard) as page:
        _open(page, broken)
        assert page.evaluate("window.hit") is None
    assert any("Content Security Policy" in line for line in guard.found)
    assert not any(line.startswith("request") for line in guard.found)


def test_the_guard_sees_a_request_when_there_is_no_policy(
    browsing: Any, chrome: Any, hostile_report: Path, tmp_path: Path
) -> None:
    text = hostile_report.read_text(encoding="utf-8").replace(
        "Content-Security-Policy", "x-none", 1
    )
    open_page = tmp_path / "open.html"
    open_page.write_text(
        text.replace("<main>", '<main><img src="http://evil.example/x.png">', 1), encoding="utf-8"
    )
    guard = browsing.Guard()
    with browsing.page_of(chrome, guard) as page:
        _open(page, open_page)
    assert "request: http://evil.example/x.png" in guard.found
