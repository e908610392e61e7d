"""Costs of the network that a composed config describes: counted from its shapes, or measured by running it."""

from functools import partial

import hydra
import torch
from omegaconf import DictConfig

from sapnet.configs import network_config
from sapnet.evaluation.complexity import Cost, count, layer, ledger, part, totals
from sapnet.evaluation.footprint import Footprint, footprint


def count_config(config: DictConfig) -> Cost:
    """Count the network that a composed config describes; its size costs no memory."""
    with torch.device("meta"):
        network = hydra.utils.instantiate(network_config(config))
    return count(network, config.height, config.width)


def measure_config(config: DictConfig) -> Footprint:
    """Run the network that a composed config describes in a process of its own: on a GPU where there is one.

    Raises:
        UserError: The memory does not suffice.
    """
    build = partial(hydra.utils.instantiate, network_config(config))
    return footprint(build, config.height, config.width, measuring_device())


def measuring_device() -> str:
    """Return the device that costs are measured on: a GPU where there is one."""
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
        f"{circumstances()}: {peak}, and {mebibytes(found.parameter_bytes)} MiB of parameters; {found.seconds:.3f} s, "
        f"median of {len(found.times)}."
    )


def mebibytes(number: int | None) -> str:
    """Return a number of bytes in MiB as text, or that there is none."""
    return "not measured here" if number is None else f"{number / 2**20:.1f}"


def circumstances() -> str:
    """Return the beginning of a sentence that says where and how costs are measured."""
    device, threads = measuring_device(), torch.get_num_threads()
    return f"Measured on {device} with {threads} threads and random weights, one image, no gradients"
