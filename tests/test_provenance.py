"""Provenance of results, and of the committed results files."""

import hashlib
import json
import platform
import subprocess
import sys

import pytest
import torch

from sapnet import __version__
from sapnet.configs import CONFIG_DIR
from sapnet.provenance import KEYS, NOT_RECORDED, as_columns, provenance, write_json
from sapnet.reporting.saved_results import read_saved_results, read_table

RESULTS = CONFIG_DIR.parent / "experiments" / "results"
VERSIONS = {"python": platform.python_version(), "torch": torch.__version__, "sapnet": __version__}


def test_provenance_of_a_process():
    origin = provenance("a: 1\n")
    assert tuple(origin) == KEYS and origin["versions"] == VERSIONS
    assert origin["config_hash"] == hashlib.sha256(b"a: 1\n").hexdigest()[:12]
    git_command = ["git", "-C", str(CONFIG_DIR), "describe", "--always", "--dirty"]
    assert origin["commit"] == subprocess.run(git_command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_command_is_that_of_the_process(tmp_path):
    (tmp_path / "shown.py").write_text("from sapnet.provenance import provenance\nprint(provenance()['command'])\n")
    arguments = [sys.executable, "-m", "shown", "--size", "64", "a b"]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "python -m shown --size 64 'a b'"


def test_json_gets_a_provenance_or_keeps_its_own(tmp_path):
    write_json(tmp_path / "a.json", {"psnr_db": 30.0})
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["psnr_db"] == 30 and tuple(content["provenance"]) == KEYS
    write_json(tmp_path / "b.json", {"provenance": {"commit": "abc"}})
    assert json.loads((tmp_path / "b.json").read_text())["provenance"] == {"commit": "abc"}


def test_missing_keys_are_not_recorded():
    assert as_columns({"commit": "abc", "versions": {"python": "3.11", "torch": "2"}}) == {
        "command": NOT_RECORDED,
        "commit": "abc",
        "config_hash": NOT_RECORDED,
        "versions": "python 3.11, torch 2",
    }


FILES = sorted(path.relative_to(RESULTS) for path in RESULTS.rglob("*") if path.is_file())


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".json"], ids=str)
def test_a_committed_json_has_a_provenance(path):
    origin = json.loads((RESULTS / path).read_text())["provenance"]
    assert tuple(origin) == KEYS and all(origin.values())


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".csv"], ids=str)
def test_a_committed_table_says_where_each_line_comes_from(path):
    """Lines of images and curves by their run, which is found by row, seed and configuration hash."""
    if path.stem.endswith("_images"):
        assert read_saved_results((RESULTS / path).parent, path.stem.removesuffix("_images")).images
        return
    if path.stem.endswith("_curves"):
        runs = read_table(RESULTS / path.with_name(f"{path.stem.removesuffix('_curves')}.csv"))
        known = {(line["row"], line["seed"], line["config_hash"]) for line in runs}
        assert {(line["row"], line["seed"], line["config_hash"]) for line in read_table(RESULTS / path)} <= known
        return
    lines = [line for line in read_table(RESULTS / path) if "psnr_db" in line or "diverged" in line]
    assert lines and all(line.get(key) for line in lines for key in KEYS)


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".md"], ids=str)
def test_a_committed_page_has_a_provenance(path):
    text = (RESULTS / path).read_text()
    assert "python -m " in text and (" at " in text or "Trained at commit:" in text)
    assert "config hash" in text.lower() and "version" in text.lower()


def test_every_committed_file_type_is_checked():
    assert FILES and {path.suffix for path in FILES} <= {".json", ".csv", ".md"}
