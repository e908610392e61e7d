"""The command line: `sapnet COMMAND ...`, or `python -m sapnet COMMAND ...`.

Each command is a module of this package with a function `main`. It is imported after the signal handlers are installed,
and only when it is called, so that the list of commands appears at once. Only the standard library is imported here.
"""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

from sapnet import interrupts

#: The commands, in the order in which they are listed, and what each does.
COMMANDS = {
    "train": "train a network, then evaluate it on the test images",
    "evaluate": "measure a checkpoint, or published weights, on the test images of a data set",
    "deblur": "restore photos with a trained checkpoint",
    "demo": "train a small network on the embedded data, evaluate it, draw a picture (8 minutes)",
    "reproduce": "train the missing rows of a table or study, and render it",
    "compare": "evaluate the available networks on whole test images and render Table 1 or 2",
    "report": "write the results of runs and studies as one HTML file",
    "count": "count parameters and multiply-adds of a network",
    "check-data": "decode every file of a data set and count its pairs",
    "tiles": "cut the training images of a data set into tiles, which are faster to read",
}
#: Environment variable that names the command to the processes that Lightning starts for a training on several devices.
_COMMAND = "SAPNET_COMMAND"


def main() -> None:
    """Run the command that the command line names, or list all commands."""
    interrupts.install()  # before a command is imported, which takes seconds
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        return
    if arguments[0] in ("-sc", "--shell-completion"):
        from sapnet.cli import completion

        completion.main({name: module_name(name) for name in COMMANDS})
        return
    command, sys.argv[1:] = _split(arguments)
    if command not in COMMANDS:
        print(unknown_command_message(command), file=sys.stderr)
        raise SystemExit(2)
    os.environ[_COMMAND] = command
    importlib.import_module(f"sapnet.cli.{module_name(command)}").main()


def module_name(command: str) -> str:
    """Return the name of a command's module, which is also the name of its config."""
    return command.replace("-", "_")


def overview() -> str:
    """Return the list of commands, one line each."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{summary}" for name, summary in COMMANDS.items()]
    return "\n".join(["usage: sapnet COMMAND ...", "", *lines, "", "sapnet COMMAND --help describes a command."])


def unknown_command_message(command: str) -> str:
    """Return the error message for an unknown command, with the most similar known one."""
    similar = difflib.get_close_matches(command, COMMANDS, n=1)
    hint = f"did you mean {similar[0]}? " if similar else ""
    return f"{command}: there is no such command; {hint}sapnet --help lists them all."


def _split(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    # Lightning starts further processes with `sys.argv`, from which the command has been removed.
    if arguments[0] not in COMMANDS and "LOCAL_RANK" in os.environ and _COMMAND in os.environ:
        return os.environ[_COMMAND], arguments
    return arguments[0], arguments[1:]
