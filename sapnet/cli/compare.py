"""`sapnet compare`: evaluate the available networks on the available test images for Table 1 or 2."""

from pathlib import Path

from omegaconf import DictConfig

from sapnet.cli.hydra_command import hydra_command
from sapnet.configs import EXPERIMENTS
from sapnet.errors import UserError
from sapnet.reporting.benchmark_evaluation import evaluate_all, write_tables
from sapnet.reporting.benchmark_tables import read_benchmark
from sapnet.reporting.candidates import given_weights, published_networks, selected_checkpoints, trained_networks


@hydra_command("compare")
def main(config: DictConfig) -> None:
    """Evaluate, render and print a table, which also lists missing data; a failed evaluation sets exit code 1."""
    name = f"table{config.table}" if str(config.table).isdigit() else str(config.table)
    path = EXPERIMENTS / f"{name}.yaml"
    benchmark = read_benchmark(path)
    networks = [*trained_networks(path, Path(config.runs)), *selected_checkpoints(config.checkpoints)]
    data_root = None if config.data_root is None else Path(config.data_root)
    networks += [] if data_root is None else published_networks(data_root)
    networks += given_weights(config.weights)
    command = f"python -m sapnet compare table={config.table} data_root={config.data_root}"
    command += f" checkpoints=[{','.join(config.checkpoints)}]" if config.checkpoints else ""
    weights = ",".join(f"{network}: {path}" for network, path in (config.weights or {}).items())
    command += f" 'weights={{{weights}}}'" if weights else ""
    lines, failures = evaluate_all(benchmark, data_root, Path(config.root), networks, command)
    print(write_tables(benchmark, lines, Path(config.root) / name, command))
    if failures:
        raise UserError(f"{len(failures)} evaluations failed; the first: {failures[0]}")
