"""Results as JSON lines, one per image, appended and read by several processes, also after a crash."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sapnet.errors import UserError
from sapnet.evaluation.claims import lock_file


def append_result(path: str | Path, line: Mapping[str, Any]) -> None:
    """Append one result and flush it to disk, after removing an incomplete last line that a crash has left.

    Processes that append at the same time wait for each other.

    Args:
        path: The results file, created if it does not exist.
        line: Plain values and lists and dicts of them. Infinity and NaN are written as Python's `json` writes them.

    Raises:
        UserError: The file cannot be written (full disk, no permission).
        TypeError: A value cannot be represented in JSON. Nothing is written.
    """
    path = Path(path)
    data = json.dumps(dict(line)).encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b") as file:
            lock_file(file)
            _remove_incomplete_line(file)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(f"{path}: the results cannot be written ({error.strerror or error}).") from error


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """Return all results of a file, oldest first; none if the file does not exist.

    An incomplete last line, left by a crash or still being written, is ignored.

    Raises:
        UserError: The file cannot be read, or a complete line is not a JSON object.
    """
    return ResultReader(path).read_new()


class ResultReader:
    """Incremental reader of a results file that other processes append to."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._offset = self._lines = 0

    def read_new(self) -> list[dict[str, Any]]:
        """Return the results appended since the last call, oldest first.

        Raises:
            UserError: As `read_results`.
        """
        try:
            with open(self.path, "rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"{self.path}: the results cannot be read ({error.strerror or error}).") from error
        # A non-empty rest after the last newline is an incomplete line.
        *lines, rest = data.split(b"\n")
        first = self._lines + 1
        self._offset += len(data) - len(rest)
        self._lines += len(lines)
        return [_parse(self.path, number, line) for number, line in enumerate(lines, start=first) if line.strip()]


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        result = json.loads(line)
    except ValueError:
        result = None
    if not isinstance(result, dict):
        raise UserError(f"{path}, line {number}: not a result (a JSON object); delete the line and repeat the command.")
    return result


def _remove_incomplete_line(file: Any) -> None:
    end = file.seek(0, os.SEEK_END)
    kept = end
    while kept > 0:
        start = max(0, kept - 4096)
        file.seek(start)
        newline = file.read(kept - start).rfind(b"\n")
        if newline >= 0:
            kept = start + newline + 1
            break
        kept = start
    if kept < end:
        file.truncate(kept)
