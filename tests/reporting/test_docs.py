"""Values in the documentation agree with the results files."""

import json
import re

import numpy as np
import pytest

from sapnet.data.images import read_image
from sapnet.errors import UserError
from sapnet.reporting.docs import RESULTS, ROOT, build, pages
from sapnet.reporting.docs_charts import CHARTS, draw_chart

#: Pages on which every measured figure has to stand in a mark; on the others figures are counted, or are settings.
MEASURED = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("results", "speed", "method"))]
_MARKED = re.compile(r"<!-- (?:from:|python).*?<!-- end -->|<!--= .*?<!--/-->|```.*?```|`[^`]*`", re.S)
#: A number with a decimal point, or one of a measured unit.
_FIGURE = re.compile(r"[+-]?\d+\.\d+|\d[\d,]* ?(?:%|dB|MiB|GiB|ms|GMACs?|min\b)")
#: What looks like one and is a setting, or the number of something.
_SETTING = re.compile(
    r"Python 3\.\d+ or 3\.\d+|Apache-2\.0|Sec\. [\d.]+|[\d.]+e-?\d+|about 0\.3 dB|95%|NU[+-]\d+%|budget \+0%|"
    # Of the data, and of costs that are counted.
    r"10 to 25%|10% to 25%|within 2%|4% fewer",
)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_page_matches_results_files(page):
    """`make docs` updates the pages. The output of `sapnet count` is tested by tests/cli/test_count.py."""
    assert build(page) == page.read_text(), f"{page.name}: run make docs"


@pytest.mark.parametrize("name", CHARTS)
def test_chart_matches_results_file(name):
    assert np.array_equal(read_image(ROOT / "docs" / name), draw_chart(name, RESULTS)), f"docs/{name}: run make docs"


@pytest.mark.parametrize("page", MEASURED, ids=lambda page: page.name)
def test_measured_values_are_marked(page):
    text = _SETTING.sub("", _MARKED.sub("", page.read_text()))
    result = [text[max(0, m.start() - 40) : m.end() + 20].replace("\n", " ") for m in _FIGURE.finditer(text)]
    assert not result


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_linked_files_exist(page):
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]


def site(tmp_path, text):
    """Create a page and two results files."""
    results = tmp_path / "experiments" / "results"
    results.mkdir(parents=True)
    rows = "row,psnr_db,gain_db,gain_ci95_low_db,gain_ci95_high_db,gain_by_seed_db\nA,30.5,,,,\n"
    (results / "a_rows.csv").write_text(rows + 'B,31,0.5,0.25,0.75,"[0.4, 0.6]"\n')
    (results / "b.json").write_text(json.dumps({"psnr": [20.0, 31.25], "gain_db": 1.0, "ci95": [0.5, 1.5]}))
    page = tmp_path / "page.md"
    page.write_text(text)
    return page


def test_inline_values_are_replaced_and_other_text_is_kept(tmp_path):
    text = (
        "Text of 1.5. B is <!--= value a_rows.csv B psnr_db .1f -->?<!--/--> dB,"
        " by <!--= gain a_rows.csv B -->?<!--/-->\n(seeds <!--= by_seed a_rows.csv B -->0<!--/-->;"
        " the file <!--= entry b.json psnr.1 .2f -->0<!--/-->,"
        " gain <!--= interval b.json . .1f -->x\ny<!--/-->).\n"
    )
    page = site(tmp_path, text)
    built = build(page, tmp_path)
    assert re.sub(r"<!--.*?-->", "", built) == (
        "Text of 1.5. B is 31.0 dB, by +0.50 [+0.25, +0.75]\n"
        "(seeds +0.40, +0.60; the file 31.25, gain +1.0 [+0.5, +1.5]).\n"
    )
    page.write_text(built)
    assert build(page, tmp_path) == built


def test_block_is_rebuilt_from_its_file(tmp_path):
    results = "experiments/results/rates_rows.csv"
    page = site(tmp_path, f"<!-- from: {results}, block rates -->\n\nold\n\n<!-- end -->\nText.\n")
    (tmp_path / results).write_text("row,psnr_db,psnr_seed_sd_db\nU 1e-3,30,0.5\nNU 1e-3,31.25,\n")
    expected = "| peak rate | U | NU |\n| --- | --- | --- |\n| 1e-3 | 30.00 ± 0.50 | 31.25 |"
    assert build(page, tmp_path) == f"<!-- from: {results}, block rates -->\n\n{expected}\n\n<!-- end -->\nText.\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "<!-- from: experiments/results/gone.csv, block rates -->\n<!-- end -->",
            "there is no results file .*gone.csv",
        ),
        ("<!-- from: experiments/results/a_rows.csv, block rate -->\n<!-- end -->", "no block rate; there are study"),
        ("a <!--= gain gone.csv B -->0<!--/-->", "there is no results file .*gone.csv"),
        ("a <!--= gain a_rows.csv C -->0<!--/-->", "there is no row C"),
        ("a <!--= gain a_rows.csv A -->0<!--/-->", "row A has no gain_db"),
        ("a <!--= gains a_rows.csv A -->0<!--/-->", "no value gains; there are value"),
        ("a <!--= value a_rows.csv A -->0<!--/-->", "the arguments of value are wrong: missing"),
        ("a <!--= entry b.json psnr.7 .2f -->0<!--/-->", "there is no entry psnr.7"),
        ("a <!--= gain a_rows.csv B -->0", "0 of 1 marks are complete"),
        ("<!-- from: experiments/results/a_rows.csv, block rates -->\n", "0 of 1 marks are complete"),
        ("a\n  <!--= gain a_rows.csv B -->0<!--/-->", "mark of a value starts a line"),
    ],
)
def test_invalid_mark_raises_an_error_with_its_page(tmp_path, text, sentence):
    with pytest.raises(UserError, match=rf"^page\.md.*{sentence}"):
        build(site(tmp_path, text), tmp_path)


def test_block_of_missing_results_can_be_optional(tmp_path):
    mark = "<!-- from: experiments/results/rates_rows.csv if measured, block rates -->"
    page = site(tmp_path, f"{mark}\n\n<!-- end -->\n")
    assert build(page, tmp_path) == f"{mark}\n\nNot measured yet.\n\n<!-- end -->\n"
    (tmp_path / "experiments" / "results" / "rates_rows.csv").write_text("row,psnr_db\nU 1e-3,30\n")
    assert "| 1e-3 | 30.00 |" in build(page, tmp_path)
