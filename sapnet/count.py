"""`python -m sapnet.count model=sapnet sampling=nu`: what a network costs, by operator, by place and by layer."""

import json
from pathlib import Path

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from sapnet.entry import CONFIG_DIR, entry_point
from sapnet.evaluation.complexity import COUNTER, Cost, count, layer, ledger, part, totals
from sapnet.files import write_atomically
from sapnet.reporting.rows import read_study

#: Figures of the paper that a count can stand beside: key, heading, what is counted.
PUBLISHED = (
    ("paper_parameters_m", "parameters, M", lambda cost: cost.total_parameters / 1e6),
    ("paper_gmacs", "GMACs", lambda cost: cost.gmacs),
)


def count_config(config: DictConfig) -> Cost:
    """Count the network that a composed config describes; its size costs no memory."""
    with torch.device("meta"):
        network = hydra.utils.instantiate(OmegaConf.to_container(config.sampling.network, resolve=True))
    return count(network, config.height, config.width)


def place(path: str, depth: int) -> str:
    """Return the beginning of a module's path, with the generator's modules beside those of the samplers."""
    return part(path.removeprefix("generator."), depth)


def report(cost: Cost, depth: int) -> str:
    """Return the whole ledger of a network as Markdown."""
    tables = [
        totals(cost),
        ledger(cost, lambda path: place(path, 2), "stage, counted from 0"),
        ledger(cost, lambda path: place(path, depth), "place: stage from 0, part, scale (the finest is 0)"),
        ledger(cost, lambda path: layer(path.removeprefix("generator.")), "layer, over all stages and scales"),
    ]
    return "\n\n".join(tables)


def report_table(name: str, words: list[str]) -> str:
    """Count every row of a study and return it beside the paper's figures as Markdown.

    Args:
        name: A file of ``experiments/``, without its ending.
        words: Overrides that go before those of the rows.

    Raises:
        UserError: No such file.
    """
    study = read_study(CONFIG_DIR.parent / "experiments" / f"{name}.yaml")
    published = {key for figures in study.paper.values() for key in figures}
    head = ["row"]
    for key, heading, _ in PUBLISHED:
        head += [heading, "paper", "off by"] if key in published else [heading]
    lines = [f"**{study.title}**", "", f"| {' | '.join(head)} |", "| --- |" + " ---: |" * (len(head) - 1)]
    for row, overrides in study.rows.items():
        cost = count_config(hydra.compose("count", [*overrides, *words]))
        cells = [row]
        for key, _, counted in PUBLISHED:
            paper, ours = study.paper.get(row, {}).get(key), counted(cost)
            cells.append(f"{ours:.2f}")
            if key in published:
                cells += ["", ""] if paper is None else [f"{paper:g}", f"{ours / paper - 1:+.1%}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"For 3x{cost.height}x{cost.width}. Counter: {COUNTER}."])


@entry_point("count")
def main(config: DictConfig) -> float:
    """Count and print; the return value is the number of multiply-adds in 1e9."""
    if config.table is not None:
        words = [word for word in HydraConfig.get().overrides.task if not word.startswith("table=")]
        print(report_table(config.table, words))
        return float("nan")
    cost = count_config(config)
    print(report(cost, config.depth))
    found = {"parameters": cost.total_parameters, "flops": cost.total_flops, "by_operator": cost.by_operator()}
    found |= {"height": cost.height, "width": cost.width, "counter": COUNTER}
    folder = Path(HydraConfig.get().runtime.output_dir)
    write_atomically(folder / "cost.json", (json.dumps(found, indent=2) + "\n").encode())
    return cost.gmacs


if __name__ == "__main__":
    main()
