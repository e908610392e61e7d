"""Charts of the documentation, drawn from results files."""

from pathlib import Path

from sapnet.configs import EXPERIMENTS
from sapnet.errors import UserError
from sapnet.evaluation.pictures import Picture
from sapnet.reporting.charts import gains_chart
from sapnet.reporting.docs_values import lines
from sapnet.reporting.learning_curves import curves_chart
from sapnet.reporting.study import read_study

#: Charts of gains in docs/ with their study and results file.
GAINS = {
    "study_local.png": ("study_local", "study_local_rows.csv"),
    "controls.png": ("controls", "earlier/controls_rows.csv"),
    "table4.png": ("table4", "earlier/table4_rows.csv"),
}
#: Charts of learning curves in docs/ with their results file, the reference row and the rows that are drawn.
CURVES = {
    "study_local_curves.png": (
        "study_local_curves.csv",
        "NU-random",
        ("NU-reinforce", "NU-gradient", "NU-gate", "NU-gate-wide", "NU-predicted_error", "NU-extent"),
    ),
}
#: All charts. The other pictures in docs/ show images.
CHARTS = (*GAINS, *CURVES)


def draw_chart(name: str, results: Path) -> Picture:
    """Draw one of `CHARTS`.

    Args:
        name: File name of the chart.
        results: Folder of the results files.

    Raises:
        UserError: The results file has nothing to draw.
    """
    if name in GAINS:
        study, file = GAINS[name]
        chart = gains_chart(read_study(EXPERIMENTS / f"{study}.yaml"), lines(results / file))
    else:
        file, reference, rows = CURVES[name]
        chart = curves_chart(lines(results / file), reference, rows)
    if chart is None:
        raise UserError(f"{results / file}: there is nothing to draw.")
    return chart
