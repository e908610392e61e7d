"""Shell completion of command names, and by Hydra of the groups, options and keys of a command.

The script that Hydra installs calls `sapnet -sc query=SHELL` with the line typed so far in COMP_LINE. Hydra expects the
overrides right after the program's name, so the command is taken out of that line.
"""

import os
import re
import sys
from collections.abc import Mapping

import hydra

from sapnet.configs import CONFIG_DIR


def main(commands: Mapping[str, str]) -> None:
    """Print the script that installs or removes completion, or the candidates for the line typed so far.

    Args:
        commands: The config of each command, by the command's name; argparse's commands have no such file.
    """
    if not sys.argv[-1].startswith("query="):
        _complete("train")  # the script is the same for all commands
        return
    typed = re.match(r"\s*(?P<program>\S+)\s+(?P<command>\S*)(?P<overrides>\s.*)?$", os.environ.get("COMP_LINE", ""))
    if typed is None:
        return
    command, overrides = typed["command"], typed["overrides"]
    if overrides is None:
        print(" ".join(name for name in commands if name.startswith(command)))
    elif command in commands and (CONFIG_DIR / f"{commands[command]}.yaml").is_file():
        os.environ["COMP_LINE"] = f"{typed['program']} {overrides.lstrip()}"
        _complete(commands[command])


def _complete(config_name: str) -> None:
    hydra.main(config_path=str(CONFIG_DIR), config_name=config_name, version_base="1.3")(lambda config: None)()
