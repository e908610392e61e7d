"""Costs of the network of a composed config: counted from its shapes, or measured by running it."""

from functools import partial

import hydra
import torch
from omegaconf import DictConfig

from sapnet.configs import compose_network
from sapnet.evaluation.complexity import Cost, count, layer_pattern, module_table, operator_table, path_prefix
from sapnet.evaluation.footprint import Footprint, footprint


def count_config(config: DictConfig) -> Cost:
    """Count parameters and operations of the network of a composed config without allocating its memory."""
    with torch.device("meta"):
        network = hydra.utils.instantiate(compose_network(config))
    return count(network, config.height, config.width)


def measure_config(config: DictConfig) -> Footprint:
    """Measure memory and time of the network of a composed config in a separate process, on a GPU if there is one.

    Raises:
        UserError: There is not enough memory.
    """
    build = partial(hydra.utils.instantiate, compose_network(config))
    return footprint(build, config.height, config.width, measuring_device())


def measuring_device() -> str:
    """Return the device on which costs are measured: a GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def network_prefix(path: str, depth: int) -> str:
    """Return the first `depth` names of a module's path, without the name `generator`."""
    return path_prefix(path.removeprefix("generator."), depth)


def cost_report(cost: Cost, depth: int) -> str:
    """Return the tables of a network's costs as Markdown: by operator, by stage, by module and by layer."""

    def layer(path: str) -> str:
        return layer_pattern(path.removeprefix("generator."))

    tables = [
        operator_table(cost),
        module_table(cost, lambda path: network_prefix(path, 2), "stage, counted from 0"),
        module_table(
            cost, lambda path: network_prefix(path, depth), "place: stage from 0, part, scale (the finest is 0)"
        ),
        module_table(cost, layer, "layer, over all stages and scales"),
    ]
    return "\n\n".join(tables)


def footprint_report(measured: Footprint) -> str:
    """Return measured memory and time as a sentence."""
    unit = "" if measured.peak_bytes is None else " MiB"
    peak = f"peak memory {mebibytes(measured.peak_bytes)}{unit}"
    return (
        f"{measurement_conditions()}: {peak}, and {mebibytes(measured.parameter_bytes)} MiB of parameters; "
        f"{measured.seconds:.3f} s, median of {len(measured.times)}."
    )


def mebibytes(number: int | None) -> str:
    """Return a number of bytes as text in MiB; None reads "not measured here"."""
    return "not measured here" if number is None else f"{number / 2**20:.1f}"


def measurement_conditions() -> str:
    """Return the beginning of a sentence that names the device and the input of a measurement."""
    device, threads = measuring_device(), torch.get_num_threads()
    return f"Measured on {device} with {threads} threads and random weights, one image, no gradients"
