"""A report in a browser: the border moves, points are switched on, tables sort, nothing is reported on the console."""

import os
import shutil

import pytest

from sapnet.reporting.html_report.report import write_report
from tests.reporting.report_folders import write_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_controls_work_in_a_browser(tmp_path):
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
    path = write_report([write_run(tmp_path / "run")], images=3)
    messages, requests = [], []
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        figure = page.locator(".comparison").first
        _move_border(figure)
        _switch_points(figure)
        _sort(page)
        if "SAPNET_SCREENSHOT" in os.environ:
            figure.scroll_into_view_if_needed()
            page.screenshot(path=os.environ["SAPNET_SCREENSHOT"], full_page=True)
        browser.close()
    assert messages == []
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]


def _move_border(figure) -> None:
    border, slider = figure.locator(".border"), figure.locator("input[type=range]")
    before = border.bounding_box()["x"]
    slider.focus()
    for _ in range(20):
        slider.press("ArrowRight")
    assert slider.input_value() == "70" and border.bounding_box()["x"] > before + 20
    clip = figure.locator(".frame .before").evaluate("image => getComputedStyle(image).clipPath")
    assert "30%" in clip
    source = figure.locator(".frame .after").get_attribute("src")
    figure.locator(".right").select_option("sharp")
    assert figure.locator(".frame .after").get_attribute("src") != source


def _switch_points(figure) -> None:
    points = figure.locator(".frame .points")
    assert not points.is_visible()
    figure.locator(".toggle").check()
    assert points.is_visible()
    assert points.bounding_box() == figure.locator(".frame .after").bounding_box()


def _sort(page) -> None:
    table = page.locator("table.sortable").last
    head = table.get_by_role("button", name="gain dB")
    for direction in ("ascending", "descending"):
        head.focus()
        head.press("Enter")
        values = table.locator("tbody tr td:nth-child(5)").evaluate_all(
            "cells => cells.map(cell => Number(cell.dataset.value))"
        )
        assert values == sorted(values, reverse=direction == "descending") and len(set(values)) == 4
        assert table.locator("th").nth(4).get_attribute("aria-sort") == direction
