"""Which evaluation a result line belongs to, and the one evaluation of a file that a reader takes.

The context of a line is all it says beside what was measured and what times depend on: checkpoint, data and its
arguments, sampling, protocol, kind of device, versions. Lines of different contexts are never averaged.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sapnet.errors import UserError
from sapnet.evaluation.store import read_results

#: What was measured of an image, and what times depend on; everything else in a line is its context.
MEASURED = frozenset(
    {"name", "height", "width", "dtype", "seconds", "seconds_unsynchronised", "unregistered"}
    | {"input_psnr", "input_ssim", "stage_psnr", "stage_ssim"}
    | {"device_name", "threads", "tf32_convolutions", "provenance"}
)
#: What lines of earlier versions leave out.
UNSAID = {"window": None, "inference": "top", "checkpoint_kind": "last", "sapnet": "0.1.0"}
#: Where contexts may differ and the newest is taken: it replaces the others.
REPLACED = frozenset({"checkpoint", "generator_steps", "device", "torch", "sapnet"})


def context_of(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return the context of a result line, or a context itself, in one form for all versions."""
    return UNSAID | {key: value for key, value in line.items() if key not in MEASURED}


def context_id(line: Mapping[str, Any]) -> str:
    """Return 12 hexadecimal digits that name the context of a line."""
    text = json.dumps(context_of(line), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def read_evaluation(path: str | Path, kind: str = "last") -> list[dict[str, Any]]:
    """Return the lines of one evaluation in a file of results, sorted by name; none where there is no file.

    It is the newest one of the wanted kind of checkpoint; where there is none of that kind, the newest of all: a run
    without validation has no best checkpoint. The lines say which kind they are of.

    Args:
        path: The file.
        kind: `best` or `last`.

    Raises:
        UserError: The file is damaged; or it holds evaluations of the wanted kind that differ in more than what a
            newer one replaces, such as data or budget.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for line in read_results(path):
        key = context_id(line)
        # The newest context comes last.
        found[key] = found.pop(key, {}) | {line["name"]: line}
    groups = [list(lines.values()) for lines in found.values()]
    groups = [lines for lines in groups if context_of(lines[0])["checkpoint_kind"] == kind] or groups
    if not groups:
        return []
    newest = context_of(groups[-1][0])
    for lines in groups[:-1]:
        other = context_of(lines[0])
        differs = [key for key in sorted(newest.keys() & other.keys() - REPLACED) if newest[key] != other[key]]
        if differs:
            words = "; ".join(f"{key}: {other[key]} and {newest[key]}" for key in differs)
            raise UserError(
                f"{path} holds several evaluations ({words}): keep one of them there, and make others in a folder of"
                " their own (hydra.run.dir=FOLDER)."
            )
    return sorted(groups[-1], key=lambda line: line["name"])
