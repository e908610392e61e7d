"""`python -m sapnet.check_data data=gopro data.root=GOPRO_Large`: whether a data set is whole and readable."""

from sapnet import interrupts

if __name__ == "__main__":
    interrupts.install()  # before the imports below, which take seconds

import hydra
from omegaconf import DictConfig

from sapnet.data.check import as_text, check
from sapnet.data.folder import FolderData
from sapnet.entry import entry_point
from sapnet.errors import UserError


@entry_point("check_data")
def main(config: DictConfig) -> None:
    """Decode every file, count every sequence, print the report; problems end with exit code 1."""
    data = hydra.utils.instantiate(config.data)
    if not isinstance(data, FolderData):
        raise UserError(f"data={data.name} is made, not read from files: there is nothing to check.")
    reports = check(data)
    print(as_text(data.name, reports))
    problems = sum(len(report.problems) for report in reports)
    if problems:
        raise UserError(f"{data.name}: the report above names {problems} problem{'s' if problems > 1 else ''}.")


if __name__ == "__main__":
    main()
