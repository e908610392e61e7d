"""`python -m sapnet.count model=sapnet sampling=nu`: what a network costs, by operator, by place and by layer."""

from sapnet import interrupts

if __name__ == "__main__":
    interrupts.install()  # before the imports below, which take seconds

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from sapnet.entry import CONFIG_DIR, entry_point
from sapnet.evaluation.complexity import COUNTER, Cost, count, layer, ledger, part, totals
from sapnet.evaluation.footprint import Footprint, footprint
from sapnet.evaluation.runner import environment
from sapnet.provenance import write_json
from sapnet.reporting.rows import read_study

#: Figures of the paper that a count can stand beside: key, heading, what is counted.
PUBLISHED = (
    ("paper_parameters_m", "parameters, M", lambda cost: cost.total_parameters / 1e6),
    ("paper_gmacs", "GMACs", lambda cost: cost.gmacs),
)


def count_config(config: DictConfig) -> Cost:
    """Count the network that a composed config describes; its size costs no memory."""
    with torch.device("meta"):
        network = hydra.utils.instantiate(_description(config))
    return count(network, config.height, config.width)


def measure_config(config: DictConfig) -> Footprint:
    """Run the network that a composed config describes in a process of its own: on a GPU where there is one.

    Raises:
        UserError: The memory does not suffice.
    """
    build = partial(hydra.utils.instantiate, _description(config))
    return footprint(build, config.height, config.width, _device())


def _description(config: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(config.sampling.network, resolve=True)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


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


def report_footprint(found: Footprint) -> str:
    """Return what was measured as a sentence."""
    unit = "" if found.peak_bytes is None else " MiB"
    peak = f"peak memory {mebibytes(found.peak_bytes)}{unit}"
    return (
        f"{_circumstances()}: {peak}, and {mebibytes(found.parameter_bytes)} MiB of parameters; {found.seconds:.3f} s, "
        f"median of {len(found.times)}."
    )


def mebibytes(number: int | None) -> str:
    """Return a number of bytes in MiB as text, or that there is none."""
    return "not measured here" if number is None else f"{number / 2**20:.1f}"


def _circumstances() -> str:
    return f"Measured on {_device()} with {torch.get_num_threads()} threads and random weights, one image, no gradients"


def report_table(name: str, words: list[str], measured: bool = False) -> str:
    """Count every row of a study and return it beside the paper's figures as Markdown.

    Args:
        name: A file of ``experiments/``, without its ending.
        words: Overrides that go before those of the rows.
        measured: Whether every network is also run here.

    Raises:
        UserError: No such file.
    """
    study = read_study(CONFIG_DIR.parent / "experiments" / f"{name}.yaml")
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
    notes += [f"{_circumstances()}; memory beside the parameters."] if measured else []
    return "\n".join([*lines, "", *notes])


@entry_point("count")
def main(config: DictConfig) -> float:
    """Count and print; the return value is the number of multiply-adds in 1e9."""
    if config.table is not None:
        words = [word for word in HydraConfig.get().overrides.task if not word.startswith("table=")]
        print(report_table(config.table, words, config.measure))
        return float("nan")
    cost = count_config(config)
    print(report(cost, config.depth))
    found: dict[str, Any] = {"parameters": cost.total_parameters, "flops": cost.total_flops}
    found |= {"by_operator": cost.by_operator(), "height": cost.height, "width": cost.width, "counter": COUNTER}
    if config.measure:
        measured = measure_config(config)
        print(f"\n{report_footprint(measured)}")
        found["measured"] = asdict(measured) | {"seconds": measured.seconds} | environment(torch.device(_device()))
    write_json(Path(HydraConfig.get().runtime.output_dir) / "cost.json", found)
    return cost.gmacs


if __name__ == "__main__":
    main()
