"""Reader for the `.wandb` file of an offline run.

The file has a header of 7 bytes and blocks of 32768 bytes in the format of LevelDB's log: chunks with a head of 7 bytes
(CRC, length, type) and data. A record is one full chunk, or a first, middle and last chunks.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK, HEADER, HEAD = 32768, 7, struct.Struct("<IHB")
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class OfflineRun:
    """Content of a run."""

    id: str = ""
    group: str = ""
    job_type: str = ""
    name: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    step_metrics: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: list[Any] = field(default_factory=list)
    exit_code: int | None = None


def read_run(path: Path) -> OfflineRun:
    """Read the run in a file."""
    run = OfflineRun()
    metrics = []
    for data in records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.id, run.group, run.job_type = record.run.run_id, record.run.run_group, record.run.job_type
            run.name, run.tags = record.run.display_name, list(record.run.tags)
            run.config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "history":
            run.history.append(_row(record.history.item))
        elif kind == "summary":
            run.summary |= _row(record.summary.update)
        elif kind == "artifact":
            run.artifacts.append(record.artifact)
        elif kind == "metric":
            metrics.append(record.metric)
        elif kind == "files":
            run.files += [file.path for file in record.files.files]
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    run.step_metrics = {metric.name or metric.glob_name: metric.step_metric for metric in metrics}
    return run


def _row(items: Any) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for item in items:
        *outer, last = item.nested_key or [item.key]
        inner = row
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = json.loads(item.value_json)
    return row


def records(content: bytes) -> Iterator[bytes]:
    """Yield the records of a file, joined from their chunks."""
    parts: list[bytes] = []
    offset = HEADER
    while offset + HEAD.size <= len(content):
        remaining = BLOCK - offset % BLOCK
        if remaining < HEAD.size:  # padding at the end of a block
            offset += remaining
            continue
        _, length, kind = HEAD.unpack_from(content, offset)
        offset += HEAD.size
        parts.append(content[offset : offset + length])
        offset += length
        if kind in (FULL, LAST):
            yield b"".join(parts)
            parts = []
        elif kind not in (FIRST, MIDDLE):
            raise ValueError(f"byte {offset}: unknown chunk type {kind}")
