"""`sapnet count`: parameters and multiply-adds of a network, by operator, by place and by layer."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from sapnet.cli.hydra_command import hydra_command
from sapnet.evaluation.complexity import COUNTER
from sapnet.evaluation.network_costs import (
    cost_report,
    count_config,
    footprint_report,
    measure_config,
    measuring_device,
)
from sapnet.evaluation.runner import environment
from sapnet.provenance import write_json
from sapnet.reporting.costs import report_table


@hydra_command("count")
def main(config: DictConfig) -> float:
    """Count and print; the return value is the number of multiply-adds in 1e9."""
    if config.table is not None:
        arguments = [argument for argument in HydraConfig.get().overrides.task if not argument.startswith("table=")]
        print(report_table(config.table, arguments, config.measure))
        return float("nan")
    cost = count_config(config)
    print(cost_report(cost, config.depth))
    result: dict[str, Any] = {"parameters": cost.total_parameters, "flops": cost.total_flops}
    result |= {"by_operator": cost.by_operator(), "height": cost.height, "width": cost.width, "counter": COUNTER}
    if config.measure:
        measured = measure_config(config)
        print(f"\n{footprint_report(measured)}")
        device = environment(torch.device(measuring_device()))
        result["measured"] = asdict(measured) | {"seconds": measured.seconds} | device
    write_json(Path(HydraConfig.get().runtime.output_dir) / "cost.json", result)
    return cost.gmacs
