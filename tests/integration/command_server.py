"""Runs commands in forks of one process that has imported what they need, which takes seconds.

`python -m tests.integration.command_server` reads one request per line from its standard input and answers with the
exit code. A fork behaves as a new process of `python -m sapnet`, with its own folder, environment and output files.
"""

import importlib
import importlib.util
import json
import os
import pkgutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
#: Longest duration of a command in seconds.
TIMEOUT = 600


def main() -> None:
    """Import the commands, answer requests; return only in a fork, after which the command runs."""
    answers = os.dup(1)
    os.dup2(2, 1)
    import sapnet.cli

    for module in pkgutil.iter_modules(sapnet.cli.__path__):
        importlib.import_module(f"sapnet.cli.{module.name}")
    for name in ("albumentations", "sapnet.training.fitting", "sapnet.data.generated", "sapnet.models.sapnet"):
        importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os.close(answers)
            become(json.loads(line))
            sapnet.cli.main()
            return
        _, status = os.waitpid(child, 0)
        os.write(answers, f"{os.waitstatus_to_exitcode(status)}\n".encode())


def become(request: dict[str, Any]) -> None:
    """Take over the arguments, folder, environment and output files of a request."""
    for descriptor, path in ((0, os.devnull), (1, request["stdout"]), (2, request["stderr"])):
        file = os.open(path, os.O_RDONLY if descriptor == 0 else os.O_WRONLY)
        os.dup2(file, descriptor)
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = [str(ROOT / "sapnet" / "__main__.py"), *request["arguments"]]
    sys.orig_argv = [sys.executable, "-m", "sapnet", *request["arguments"]]
    sys.modules["__main__"].__spec__ = importlib.util.find_spec("sapnet.__main__")


class CommandServer:
    """Server process of a test process, started at the first command."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None

    def run(self, arguments: list[str], cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess:
        """Run `sapnet ARGUMENTS` to its end."""
        process = self._process or self._start(environment)
        assert process.stdin and process.stdout
        with tempfile.TemporaryDirectory() as folder:
            files = {name: Path(folder) / name for name in ("stdout", "stderr")}
            for file in files.values():
                file.touch()
            request = {"arguments": arguments, "cwd": str(cwd), "environment": environment}
            request |= {name: str(file) for name, file in files.items()}
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            timer = threading.Timer(TIMEOUT, process.kill)
            timer.start()
            answer = process.stdout.readline()
            timer.cancel()
            if not answer:
                raise RuntimeError(f"{arguments}: no answer within {TIMEOUT} s, or the command server has ended")
            out, error = (file.read_text() for file in files.values())
        return subprocess.CompletedProcess(["sapnet", *arguments], int(answer), out, error)

    def _start(self, environment: dict[str, str]) -> subprocess.Popen:
        command = [sys.executable, "-m", "tests.integration.command_server"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)
        return self._process


if __name__ == "__main__":
    main()
