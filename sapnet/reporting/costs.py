"""Costs of all networks of a study."""

import hydra

from sapnet.configs import EXPERIMENTS
from sapnet.evaluation.complexity import COUNTER
from sapnet.evaluation.network_costs import count_config, measure_config, measurement_conditions, mebibytes
from sapnet.reporting.rows import Study, read_study

#: Figures of the paper that a count can stand beside: key, heading, what is counted.
PUBLISHED = (
    ("paper_parameters_m", "parameters, M", lambda cost: cost.total_parameters / 1e6),
    ("paper_gmacs", "GMACs", lambda cost: cost.gmacs),
)
#: Overrides of a recipe that change a network's size.
_SIZE = ("network=", "network.")


def study_costs(study: Study) -> dict[str, dict[str, float]]:
    """Count parameters and multiply-adds of every row's network for 3x256x256, at full size and at its runs' widths.

    A study without a scale `paper` has no full size.
    """
    counted = {}
    for name, overrides in study.rows.items():
        words = [word for word in overrides if not word.startswith("data")]
        widths = [word for word in study.recipe.get(name, []) if word.startswith(_SIZE)]
        counted[name] = {}
        if "paper" in study.scales:
            full = count_config(hydra.compose("count", words))
            counted[name] = {"parameters_m": full.total_parameters / 1e6, "gmacs": full.gmacs}
        if widths:
            run = count_config(hydra.compose("count", [*widths, *words]))
            counted[name] |= {"run_parameters_m": run.total_parameters / 1e6, "run_gmacs": run.gmacs}
    return counted


def report_table(name: str, words: list[str], measured: bool = False) -> str:
    """Count every row of a study and return it beside the paper's figures as Markdown.

    Args:
        name: A file of ``experiments/``, without its ending.
        words: Overrides that go before those of the rows.
        measured: Whether every network is also run here.

    Raises:
        UserError: No such file.
    """
    study = read_study(EXPERIMENTS / f"{name}.yaml")
    published = {key for figures in study.paper.values() for key in figures}
    head = ["row"]
    for key, heading, _ in PUBLISHED:
        head += [heading, "paper", "off by"] if key in published else [heading]
    head += ["peak memory, MiB", "seconds"] if measured else []
    lines = [f"**{study.title}**", "", f"| {' | '.join(head)} |", "| --- |" + " ---: |" * (len(head) - 1)]
    for row, overrides in study.rows.items():
        config = hydra.compose("count", [*overrides, *words])
        cost = count_config(config)
        cells = [row]
        for key, _, counted in PUBLISHED:
            paper, ours = study.paper.get(row, {}).get(key), counted(cost)
            cells.append(f"{ours:.2f}")
            if key in published:
                cells += ["", ""] if paper is None else [f"{paper:g}", f"{ours / paper - 1:+.1%}"]
        if measured:
            found = measure_config(config)
            cells += [mebibytes(found.peak_bytes), f"{found.seconds:.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    notes = [f"For 3x{cost.height}x{cost.width}. Counter: {COUNTER}."]
    notes += [f"{measurement_conditions()}; memory beside the parameters."] if measured else []
    return "\n".join([*lines, "", *notes])
