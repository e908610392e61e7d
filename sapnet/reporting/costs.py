"""Parameters and multiply-adds of the networks of a study."""

import json

import hydra

from sapnet.configs import EXPERIMENTS, compose_network
from sapnet.evaluation.complexity import COUNTER, Cost
from sapnet.evaluation.network_costs import count_config, measure_config, measurement_conditions, mebibytes
from sapnet.markdown import markdown_table
from sapnet.reporting.study import Study, read_study

#: Values of the paper that are compared with counts: key, heading, counted value.
PUBLISHED = (
    ("paper_parameters_m", "parameters, M", lambda cost: cost.total_parameters / 1e6),
    ("paper_gmacs", "GMACs", lambda cost: cost.gmacs),
)
#: Prefixes of the overrides of a recipe that change the size of a network.
_SIZE = ("network=", "network.")


def study_costs(study: Study) -> dict[str, dict[str, float]]:
    """Count parameters and multiply-adds of the network of each row for 3x256x256.

    The network is counted at full size and at the widths of its runs. A study without a scale `paper` has no full size.
    """
    counted: dict[str, Cost] = {}

    def cost(*overrides: str) -> Cost:
        config = hydra.compose("count", list(overrides))
        # Rows may differ in their training alone, and a run may have the full size.
        network = json.dumps(compose_network(config), sort_keys=True)
        if network not in counted:
            counted[network] = count_config(config)
        return counted[network]

    costs = {}
    for row, overrides in study.rows.items():
        network = [each for each in overrides if not each.startswith("data")]
        widths = [each for each in study.recipe.get(row, []) if each.startswith(_SIZE)]
        costs[row] = {}
        if "paper" in study.scales:
            full = cost(*network)
            costs[row] = {"parameters_m": full.total_parameters / 1e6, "gmacs": full.gmacs}
        if widths:
            run = cost(*widths, *network)
            costs[row] |= {"run_parameters_m": run.total_parameters / 1e6, "run_gmacs": run.gmacs}
    return costs


def report_table(name: str, overrides: list[str], measured: bool = False) -> str:
    """Count the networks of all rows of a study and return them with the paper's values as Markdown.

    Args:
        name: A file of `experiments/`, without its ending.
        overrides: Overrides for all rows.
        measured: Whether to run every network and report its memory and time.

    Raises:
        UserError: The study does not exist.
    """
    study = read_study(EXPERIMENTS / f"{name}.yaml")
    published = {key for values in study.paper.values() for key in values}
    head = ["row"]
    for key, heading, _ in PUBLISHED:
        head += [heading, "paper", "off by"] if key in published else [heading]
    head += ["peak memory, MiB", "seconds"] if measured else []
    rows = []
    for row, own in study.rows.items():
        config = hydra.compose("count", [*own, *overrides])
        cost = count_config(config)
        cells = [row]
        for key, _, count in PUBLISHED:
            paper, counted = study.paper.get(row, {}).get(key), count(cost)
            cells.append(f"{counted:.2f}")
            if key in published:
                cells += ["", ""] if paper is None else [f"{paper:g}", f"{counted / paper - 1:+.1%}"]
        if measured:
            footprint = measure_config(config)
            cells += [mebibytes(footprint.peak_bytes), f"{footprint.seconds:.3f}"]
        rows.append(cells)
    notes = [f"For 3x{cost.height}x{cost.width}. Counter: {COUNTER}."]
    notes += [f"{measurement_conditions()}; memory beside the parameters."] if measured else []
    # The notes of a study that is trained are about its results.
    remarks = [] if study.scales else ["", *(f"- {note}" for note in study.notes)]
    return "\n".join([f"**{study.title}**", "", markdown_table(head, rows, 1), "", *notes, *remarks])
