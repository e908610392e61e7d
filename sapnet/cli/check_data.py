"""`sapnet check-data`: check that a data set is complete and readable."""

import hydra
from omegaconf import DictConfig

from sapnet.cli.hydra_command import hydra_command
from sapnet.data.check import as_text, check
from sapnet.data.folder import FolderData
from sapnet.errors import UserError


@hydra_command("check_data")
def main(config: DictConfig) -> None:
    """Decode every file, count every sequence, print the report; problems end with exit code 1."""
    data = hydra.utils.instantiate(config.data)
    if not isinstance(data, FolderData):
        raise UserError(f"data={data.name} is generated, not read from files: there is nothing to check.")
    reports = check(data)
    print(as_text(data.name, reports))
    problems = sum(len(report.problems) for report in reports)
    if problems:
        raise UserError(f"{data.name}: the report above names {problems} problem{'s' if problems > 1 else ''}.")
