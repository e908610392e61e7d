"""The part of a report about one run."""

from collections.abc import Mapping
from typing import Any

from sapnet.reporting.html_report.comparison import comparisons
from sapnet.reporting.html_report.elements import folded, interval, number, remark, section, table, text
from sapnet.reporting.html_report.run_results import RunResults
from sapnet.reporting.html_report.svg_charts import Curve, line_chart


def run_section(run: RunResults, images: int, room: int) -> str:
    """Return the part of the page about a run.

    Args:
        run: The run.
        images: Number of images with pictures.
        room: Largest number of bytes of all pictures.
    """
    tested = "stage_psnr" in run.summary
    return section(
        run.name,
        _facts(run),
        _stages(run.summary) if tested else remark("The run has no results on test images."),
        _curves(run),
        ("<h3>Pictures</h3>\n" + comparisons(run, images, room)) if run.lines and images else "",
        _images(run) if run.lines else "",
        folded("Config", run.config) if run.config else remark("The folder holds no config."),
    )


def _facts(run: RunResults) -> str:
    summary = run.summary
    origin = summary.get("provenance") or {}
    versions = origin.get("versions")
    facts = {
        "Network": summary.get("model"),
        "Parameters": summary.get("parameters"),
        "Checkpoint": _checkpoint(summary),
        "Best validation PSNR": _best_validation(summary.get("validation")),
        "Gain over the input": _gain(summary),
        "Time per image": _time(summary),
        "Protocol": summary.get("protocol"),
        "Command": origin.get("command"),
        "Commit": origin.get("commit"),
        "Config hash": origin.get("config_hash"),
        "Versions": ", ".join(f"{k} {v}" for k, v in versions.items()) if isinstance(versions, Mapping) else versions,
    }
    rows = [
        f'<tr><th scope="row">{text(key)}</th><td>{text(value)}</td></tr>'
        for key, value in facts.items()
        if value not in (None, "")
    ]
    return f'<div class="scroll"><table><caption>Summary</caption><tbody>{"".join(rows)}</tbody></table></div>'


def _checkpoint(summary: Mapping[str, Any]) -> str:
    kind = summary.get("checkpoint_kind")
    return str(summary.get("checkpoint") or "") + (f" ({kind}, step {summary.get('generator_steps')})" if kind else "")


def _best_validation(scores: Any) -> str:
    if not isinstance(scores, Mapping) or not isinstance(scores.get("psnr_best"), int | float):
        return ""
    return f"{number(scores['psnr_best'])} dB at step {scores.get('step_best')}"


def _gain(summary: Mapping[str, Any]) -> str:
    if "gain_db" not in summary:
        return ""
    bounds = interval(*summary["gain_ci95"])
    return f"{number(summary['gain_db'], '+.3f')} dB" + (f", 95% interval {bounds} over images" if bounds else "")


def _time(summary: Mapping[str, Any]) -> str:
    seconds = summary.get("seconds")
    return f"{number(seconds)} s, median ({summary.get('of')})" if isinstance(seconds, int | float) else ""


def _stages(summary: Mapping[str, Any]) -> str:
    rows = [["blurred input", summary["input_psnr"], summary["input_ssim"], None]]
    before = summary["input_psnr"]
    for k, (psnr, ssim) in enumerate(zip(summary["stage_psnr"], summary["stage_ssim"], strict=False), 1):
        rows.append([f"stage {k}", psnr, ssim, psnr - before])
        before = psnr
    columns = {"image": "", "PSNR dB": ".3f", "SSIM": ".4f", "gain of the stage, dB": "+.3f"}
    caption = f"Mean of {summary['images']} test images by stage"
    stages = [0, *range(1, len(summary["stage_psnr"]) + 1)]
    curve = Curve("mean", stages, [summary["input_psnr"], *summary["stage_psnr"]])
    chart = line_chart("PSNR by stage; 0 is the blurred input", "stage", "PSNR (dB)", [curve])
    return table(columns, rows, caption, sortable=False) + f'<div class="charts">{chart}</div>'


def _curves(run: RunResults) -> str:
    charts = [
        line_chart("Training loss", "generator step", "loss", [_curve(run, "train/loss", "loss of a batch")]),
        line_chart(
            "Validation PSNR",
            "generator step",
            "PSNR (dB)",
            [_curve(run, "val/psnr", "last stage"), _curve(run, "val/psnr_input", "blurred input")],
        ),
    ]
    return f'<h3>Curves</h3><div class="charts">{"".join(charts)}</div>' if any(charts) else ""


def _curve(run: RunResults, metric: str, label: str) -> Curve:
    points = [
        (line["generator_steps"], line[metric]) for line in run.metrics if {metric, "generator_steps"} <= line.keys()
    ]
    return Curve(label, [step for step, _ in points], [float(value) for _, value in points])


def _images(run: RunResults) -> str:
    stages = max(len(line["stage_psnr"]) for line in run.lines)
    columns = {"test image": "", "blurred, PSNR dB": ".3f"}
    columns |= {f"stage {k}, PSNR dB": ".3f" for k in range(1, stages + 1)}
    columns |= {"gain dB": "+.3f", "blurred, SSIM": ".4f", "last stage, SSIM": ".4f", "time s": ".3f"}
    rows = []
    for line in run.lines:
        psnr = [*line["stage_psnr"], *[None] * (stages - len(line["stage_psnr"]))]
        gain = line["stage_psnr"][-1] - line["input_psnr"]
        ssims = [line["input_ssim"], line["stage_ssim"][-1]]
        rows.append([line["name"], line["input_psnr"], *psnr, gain if gain == gain else None, *ssims, line["seconds"]])
    return "<h3>Test images</h3>\n" + table(columns, rows, f"{len(rows)} test images; a click on a head sorts")
