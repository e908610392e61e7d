"""`sapnet report`: what the page holds, that nothing breaks out of it, its size, and refused folders."""

import base64
import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sapnet.cli.report import main
from sapnet.errors import UserError
from sapnet.reporting.html_report.comparison import data_uri, points_uri
from sapnet.reporting.html_report.report import LARGEST, report_page, write_report
from sapnet.reporting.html_report.restored_pictures import chosen_images, restored_pictures
from sapnet.reporting.html_report.run_results import read_run_results
from sapnet.reporting.html_report.svg_charts import Curve, Gain, gains_chart, line_chart
from tests.reporting.html_pages import Page, assert_self_contained, pixels
from tests.reporting.report_folders import write_run, write_study


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return shutil.copytree(folder, tmp_path / "copy")


# --- a run


def test_a_run_has_its_summary_images_stages_curves_and_config(folder):
    page, run = Page(text := report_page([folder], 0)), read_run_results(folder)
    assert_self_contained(page)
    assert page.values("img", "src") == []
    for line in run.lines:
        psnr = [line["input_psnr"], *line["stage_psnr"], line["stage_psnr"][-1] - line["input_psnr"]]
        row = next(row for row in page.rows if row[0] == line["name"])
        assert row[1:5] == [f"{value:.3f}" for value in psnr[:3]] + [f"{psnr[3]:+.3f}"]
    assert ["stage 2", f"{run.summary['stage_psnr'][1]:.3f}"] == next(r for r in page.rows if r[0] == "stage 2")[:2]
    low, high = run.summary["gain_ci95"]
    facts = dict(row for row in page.rows if len(row) == 2)
    assert facts["Gain over the input"] == (
        f"{run.summary['gain_db']:+.3f} dB, 95% interval [{low:+.3f}, {high:+.3f}] over images"
    )
    assert facts["Best validation PSNR"] == "27.750 dB at step 3" and facts["Commit"]
    assert page.values("svg", "aria-label") == [
        "PSNR by stage; 0 is the blurred input",
        "Training loss",
        "Validation PSNR",
    ]
    assert "distribution: synthetic" in text and "generator step" in text and "PSNR (dB)" in text


def test_pictures_are_restored_anew_and_the_points_lie_over_them(folder):
    page, run = Page(report_page([folder], 3)), read_run_results(folder)
    assert_self_contained(page)
    names = list(chosen_images(run.lines, 3))
    restored = {each.name: each for each in restored_pictures(run, names)}
    assert list(restored) == names
    shown = [attributes for tag, attributes in page.elements if tag == "img" and "data-key" in attributes]
    keys = ["blurred", "stage 1", "stage 2", "sharp", "points stage 2"]
    assert [image["data-key"] for image in shown] == keys * 3
    assert [image["alt"] for image in shown[:1]] == [f"blurred, {min(line_psnr(run))[1]:.2f} dB"]
    worst = restored[min(line_psnr(run))[2]]
    for image in shown[:4]:
        assert np.array_equal(pixels(image["src"]), worst.pictures[image["data-key"]])
    assert worst.points["stage 2"].any() and worst.points["stage 2"].shape == (48, 48)
    assert len(page.values("input", "aria-label")) == 3
    assert sorted(page.values("input", "type")) == ["checkbox"] * 3 + ["range"] * 3


def line_psnr(run) -> list[tuple[float, float, str]]:
    return [(line["stage_psnr"][-1], line["input_psnr"], line["name"]) for line in run.lines]


@pytest.mark.parametrize(
    ("count", "chosen"),
    [
        (0, {}),
        (1, {0: "worst"}),
        (3, {0: "worst", 4: "median", 8: "best"}),
        (6, {0: "worst", 3: "median", 8: "best", 1: "worst", 4: "median", 7: "best"}),
        (
            20,
            {
                0: "worst",
                3: "median",
                8: "best",
                1: "worst",
                4: "median",
                7: "best",
                2: "worst",
                5: "median",
                6: "best",
            },
        ),
    ],
)
def test_the_worst_the_median_and_the_best_images_are_chosen_in_turn(count, chosen):
    lines = [{"name": str(k), "stage_psnr": [50.0, 20.0 + k]} for k in (3, 1, 4, 8, 5, 2, 6, 7, 0)]
    lines.append({"name": "equal", "stage_psnr": [50.0, float("inf")]})
    assert list(chosen_images(lines, count).items()) == [(str(key), kind) for key, kind in chosen.items()]


def test_data_uris_hold_the_picture_and_the_points():
    rng = np.random.default_rng(0)
    small, large = (rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in (40, 400))
    assert np.array_equal(pixels(data_uri(small)), small)
    assert data_uri(large).startswith("data:image/webp;base64,") and pixels(data_uri(large)).shape == large.shape
    mask = rng.random((30, 20)) < 0.2
    with Image.open(io.BytesIO(base64.b64decode(points_uri(mask).partition(",")[2]))) as image:
        drawn = np.asarray(image.convert("RGBA"))
    assert np.array_equal(drawn[..., 3], np.where(mask, 166, 0))
    assert (drawn[mask][:, :3] == (255, 0, 0)).all()


def test_pictures_that_exceed_the_bound_are_left_out_with_a_sentence(folder):
    without = len(report_page([folder], 0).encode())
    full = len(report_page([folder], 4).encode())
    bound = without + 4096 + (full - without) // 2
    page = report_page([folder], 4, bound)
    assert "Left out, because the file would become too large: test/" in page
    assert 0 < page.count('class="comparison small"') < 4
    assert len(page.encode()) <= bound


@pytest.mark.parametrize("missing", ["config.yaml", "checkpoints/best.ckpt", "data", "changed"])
def test_without_data_or_checkpoint_a_sentence_says_so(copy, missing):
    if missing == "data":
        config = "data: {_target_: sapnet.data.folder.FolderData, name: gone, root: /gone, crop: 32, batch: 1}\n"
        (copy / "config.yaml").write_text(config)
    elif missing == "changed":
        lines = [json.loads(line) for line in (copy / "results.jsonl").read_text().splitlines()]
        text = "".join(json.dumps(line | {"checkpoint": "0" * 12}) + "\n" for line in lines)
        (copy / "results.jsonl").write_text(text)
    else:
        (copy / missing).unlink()
    page = report_page([copy], 3)
    assert "There are no pictures, because the images cannot be restored anew: " in page
    assert "<img data-key" not in page and "Test images" in page


@pytest.mark.parametrize("key", ["data", "network"])
def test_a_config_cannot_run_other_code(copy, key):
    (copy / "config.yaml").write_text(
        "data: {_target_: sapnet.data.folder.FolderData}\n"
        f"{key}: {{_target_: sapnet.models.srn.SRN, depth: {{_target_: os.mkdir, path: {copy}/made}}}}\n"
        if key == "network"
        else f"data: {{_target_: os.mkdir, path: {copy}/made}}\n"
    )
    page = report_page([copy], 3)
    assert f"{key} is built by os.mkdir, which is not of sapnet" in page
    assert not (copy / "made").exists()


def test_text_does_not_break_out(copy):
    evil = "<script>alert('1')</script>\"><b>"
    lines = [json.loads(line) for line in (copy / "results.jsonl").read_text().splitlines()]
    lines[0]["name"] = evil
    (copy / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = json.loads((copy / "summary.json").read_text())
    (copy / "summary.json").write_text(json.dumps(summary | {"model": evil}))
    (copy / "config.yaml").write_text((copy / "config.yaml").read_text() + f"note: |\n  </pre>{evil}\n")
    named = copy.rename(copy.with_name("<i onclick='x'>&amp;"))
    text = report_page([named], 6)
    page = Page(text)
    assert_self_contained(page)
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 1 and not {"b", "i"} & set(tags)
    assert [row for row in page.rows if row[0] == evil] and dict(r for r in page.rows if len(r) == 2)["Network"] == evil


def test_a_training_without_a_test_has_its_curves(copy):
    (copy / "results.jsonl").unlink()
    (copy / "summary.json").write_text('{"checkpoint": "checkpoints/best.ckpt", "validation": null}')
    text = report_page([copy], 6)
    assert "The run has no results on test images." in text and 'aria-label="Training loss"' in text


def test_results_without_a_summary_are_summarised(folder, copy):
    (copy / "summary.json").unlink()
    stages = [[row for row in Page(report_page([each], 0)).rows if row[0] == "stage 2"] for each in (folder, copy)]
    assert stages[0] == stages[1] and len(stages[0]) == 1


def test_equal_images_are_shown_as_infinite_and_not_chosen(copy):
    lines = [json.loads(line) for line in (copy / "results.jsonl").read_text().splitlines()]
    lines[0] |= {"stage_psnr": [float("inf")] * 2, "input_psnr": float("inf")}
    (copy / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = report_page([copy], 0)
    row = next(row for row in Page(text).rows if row[0] == lines[0]["name"])
    assert row[1:5] == ["∞", "∞", "∞", ""] and 'data-value="Infinity"' in text


# --- studies and several runs


def test_a_study_has_its_table_its_gains_and_its_runs(tmp_path):
    page = Page(text := report_page([write_study(tmp_path / "study")], 6))
    assert_self_contained(page)
    rows = {row[0]: row for row in page.rows}
    assert rows["NU"][-2:] == ["+0.250", "[+0.125, +0.500]"] and rows["one"][-2:] == ["-0.500", ""]
    assert rows["open"][1:] == [""] * (len(rows["NU"]) - 1)
    assert ["U", "0", "30.000", "0.100", "+0.500", "0123456"] in page.rows
    assert page.values("svg", "aria-label") == ["PSNR gain over the reference, with intervals of 95%"]
    assert [tag for tag, attributes in page.elements if attributes.get("class") == "dot"] == ["circle"] * 2
    assert "`a &amp; b`" in text and "nan" not in text.partition("<main>")[2] and "inf" not in text.partition("<svg")[2]


def test_several_runs_are_compared_on_the_same_images(folder, copy, tmp_path):
    lines = [json.loads(line) for line in (copy / "results.jsonl").read_text().splitlines()]
    better = [line | {"stage_psnr": [psnr + 0.5 for psnr in line["stage_psnr"]]} for line in lines]
    (copy / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in better))
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "results.jsonl").write_text(json.dumps(lines[0]) + "\n")
    page = Page(text := report_page([folder, copy, other], 0))
    assert_self_contained(page)
    rows = {row[0]: row for row in page.rows if len(row) == 10}
    assert rows[str(copy)][6:8] == ["+0.500", "[+0.500, +0.500]"]
    assert rows[str(folder)][6:8] == rows[str(other)][6:8] == ["", ""]
    assert "Runs without a gain over the first one" in text
    assert len(page.values("a", "href")) == 4 + 3


def test_all_pictures_of_several_runs_keep_to_one_bound(folder, copy):
    bound = len(report_page([folder, copy], 0).encode()) + 2 * 4096 + 60_000
    page = report_page([folder, copy], 4, bound)
    assert len(page.encode()) <= bound and page.count('class="comparison small"') >= 2


# --- charts


def test_a_chart_places_its_points_and_labels_its_axes():
    chart = line_chart("a <title>", "step", "dB", [Curve("one", [0, 10, 20], [1.0, float("nan"), 2.0])])
    page = Page(chart)
    dots = [(float(a["cx"]), float(a["cy"])) for tag, a in page.elements if tag == "circle"]
    assert len(dots) == 2 and dots[0][0] < dots[1][0] and dots[0][1] > dots[1][1]
    assert "a &lt;title&gt;" in chart and ">step<" in chart and ">dB<" in chart
    assert line_chart("", "", "", [Curve("", [1], [float("nan")])]) == gains_chart("", "", []) == ""
    constant = Page(line_chart("", "", "", [Curve("", [3, 3], [1.0, 1.0])]))
    assert len({a["cx"] for tag, a in constant.elements if tag == "circle"}) == 1
    assert "<circle" in gains_chart("", "", [Gain("x" * 90, 0.0, None, None)])


# --- refused


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        (None, None, "there is no such folder"),
        ("other.txt", "", "there are no results in it"),
        ("summary.json", "{", "summary.json: not JSON"),
        ("summary.json", "[]", "summary.json: not a JSON object"),
        ("summary.json", '{"stage_psnr": [1]}', "summary.json: it lacks PSNR"),
        ("results.jsonl", '{"name": "a", "seconds": 1}\n', "results.jsonl: the line of a lacks PSNR"),
        ("results.jsonl", "nonsense\n", "results.jsonl, line 1: not a result"),
        ("metrics.csv", "generator_steps\nword\n", "metrics.csv: not the table of a run"),
        ("table.json", '{"lines": 3}', "table.json: it holds no lines of a table"),
        ("table.json", '{"lines": [{"gain_db": "a", "gain_ci95_low_db": 1}]}', "table.json: a gain is not a number"),
        ("table.json", '{"lines": [{"row": "a", "psnr_db": [1]}]}', "a value is not of the kind"),
    ],
)
def test_a_folder_without_readable_results_is_refused_in_a_sentence(
    file, content, sentence, tmp_path, monkeypatch, capsys
):
    if file:
        (tmp_path / "given").mkdir()
        (tmp_path / "given" / file).write_text(content)
    monkeypatch.setattr(sys, "argv", ["sapnet", str(tmp_path / "given"), "-o", str(tmp_path / "out.html")])
    with pytest.raises(SystemExit) as stop:
        main()
    out, error = capsys.readouterr()
    assert (stop.value.code, out, error.count("\n")) == (1, "", 1) and sentence in error
    assert not (tmp_path / "out.html").exists()


def test_the_file_is_written_where_asked_and_refused_elsewhere(folder, copy, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sapnet", str(copy), "--no-images"])
    main()
    assert capsys.readouterr().out == f"{copy / 'report.html'}\n"
    assert 0 < (copy / "report.html").stat().st_size < LARGEST
    with pytest.raises(UserError, match=r"ends in \.html"):
        write_report([copy], copy / "results.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_report([copy], tmp_path / "file" / "report.html", images=0)
    monkeypatch.setattr("sapnet.reporting.html_report.report.LARGEST", 1000)
    with pytest.raises(UserError, match="at most 15"):
        write_report([copy], images=0)
