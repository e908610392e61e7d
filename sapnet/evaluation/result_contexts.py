"""Contexts of result lines, and selection of one evaluation from a results file.

The context of a line consists of its entries other than measurements and the conditions of times: checkpoint, data and
its arguments, sampling, protocol, type of device, versions. Lines of different contexts are never averaged.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sapnet.errors import UserError
from sapnet.evaluation.results_file import read_results

#: Keys of measurements and of the conditions of times. All other keys belong to the context.
MEASURED = frozenset(
    {"name", "height", "width", "dtype", "seconds", "seconds_unsynchronised", "unregistered"}
    | {"input_psnr", "input_ssim", "stage_psnr", "stage_ssim"}
    | {"device_name", "threads", "tf32_convolutions", "provenance"}
)
#: Values of keys that lines of earlier versions do not have.
DEFAULTS = {"window": None, "inference": "top", "checkpoint_kind": "last", "sapnet": "0.1.0"}
#: Key that only evaluations of a moving average of the weights have, with the value `ema`.
WEIGHTS = "weights"
#: Keys in which a newer evaluation may differ from the older ones that it replaces.
REPLACED = frozenset({"checkpoint", "generator_steps", "device", "torch", "sapnet"})


def context_of(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return the context of a result line, with the keys of the current version. Accepts a context too."""
    return DEFAULTS | {key: value for key, value in line.items() if key not in MEASURED}


def context_id(line: Mapping[str, Any]) -> str:
    """Return a hash of the context of a line, 12 hexadecimal digits."""
    text = json.dumps(context_of(line), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def read_evaluation(path: str | Path, kind: str = "last") -> list[dict[str, Any]]:
    """Return the lines of one evaluation in a results file, sorted by name; none if the file does not exist.

    This is the newest evaluation of a kind of checkpoint, or the newest of any kind if there is none: a run without
    validation has no best checkpoint. The key `checkpoint_kind` of the lines names the kind.

    Args:
        path: The results file.
        kind: `best` or `last`.

    Raises:
        UserError: The file is damaged, or its evaluations of this kind differ in other keys than `REPLACED`, such as
            data or budget.
    """
    by_context: dict[str, dict[str, dict[str, Any]]] = {}
    for line in read_results(path):
        key = context_id(line)
        # Moves the context to the end: the newest is the last.
        by_context[key] = by_context.pop(key, {}) | {line["name"]: line}
    groups = [list(lines.values()) for lines in by_context.values()]
    groups = [lines for lines in groups if context_of(lines[0])["checkpoint_kind"] == kind] or groups
    if not groups:
        return []
    newest = context_of(groups[-1][0])
    for lines in groups[:-1]:
        other = context_of(lines[0])
        keys = sorted((newest.keys() & other.keys()) - REPLACED | {WEIGHTS})
        differs = [key for key in keys if newest.get(key) != other.get(key)]
        if differs:
            differences = "; ".join(f"{key}: {other.get(key)} and {newest.get(key)}" for key in differs)
            raise UserError(
                f"{path} holds several evaluations ({differences}): keep one of them in this file and run the others in"
                " separate folders (hydra.run.dir=FOLDER)."
            )
    return sorted(groups[-1], key=lambda line: line["name"])
