"""Results as JSON lines: one line per image, kept through crashes, appended and read by several processes at once."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sapnet.errors import UserError
from sapnet.evaluation.sharing import lock_file


def append_result(path: str | Path, line: Mapping[str, Any]) -> None:
    """Append one result to the file at `path` and flush it to the disk; what a crash tore off before is cut away.

    Processes that append at the same time wait for each other.

    `line` holds plain values (and lists and dicts of them); infinity and NaN are written as Python's `json` does.

    Raises:
        UserError: the file cannot be written (full disk, no permission).
        TypeError: `line` holds something that JSON has no word for; nothing is written.
    """
    path = Path(path)
    data = json.dumps(dict(line)).encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b") as file:
            lock_file(file)
            _cut_torn_line(file)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(f"{path}: the results cannot be written ({error.strerror or error}).") from error


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """The results in the file at `path`, oldest first; none where there is no file yet.

    A last line that a crash tore off, or that another process is still writing, is left out.

    Raises:
        UserError: `path` is no readable file, or a line before the last one is no JSON object.
    """
    return ResultReader(path).news()


class ResultReader:
    """Reads a file of results that others append to, each line once."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._read = self._lines = 0

    def news(self) -> list[dict[str, Any]]:
        """The results that came to stand in the file since the last call, oldest first.

        Raises:
            UserError: as `read_results`.
        """
        try:
            with open(self.path, "rb") as file:
                file.seek(self._read)
                data = file.read()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"{self.path}: the results cannot be read ({error.strerror or error}).") from error
        # After a whole last line comes an empty rest; anything else there is torn, or not written to its end yet.
        *lines, rest = data.split(b"\n")
        first = self._lines + 1
        self._read += len(data) - len(rest)
        self._lines += len(lines)
        return [_parse(self.path, number, line) for number, line in enumerate(lines, start=first) if line.strip()]


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        result = json.loads(line)
    except ValueError:
        result = None
    if not isinstance(result, dict):
        raise UserError(f"{path}, line {number}: not a result (a JSON object); delete the line, and it is done again.")
    return result


def _cut_torn_line(file: Any) -> None:
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
