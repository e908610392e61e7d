"""The diffs in CONTRIBUTING.md work in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: Composes, builds and runs each addition; imports the copy.
PROGRAM = """
import hydra, torch
from pathlib import Path
import sapnet
from sapnet.data.images import write_image
from sapnet.reporting.study import read_study
from sapnet.training.assemble import build_module

here = Path.cwd()
assert Path(sapnet.__file__).parents[1] == here

def compose(*overrides):
    with hydra.initialize_config_dir(str(here / "conf"), version_base="1.3"):
        return hydra.compose("train", list(overrides))

batch = {"blurred": torch.rand(1, 3, 32, 32), "sharp": torch.rand(1, 3, 32, 32)}
plain = build_module(compose("network=plain"))
loss, _ = plain.losses(batch)
loss.backward()
assert type(plain.network).__name__ == "PlainNetwork" and plain.network.leave.weight.grad.any()

for split, count in (("train", 4), ("test", 2)):
    for folder in ("input", "target"):
        for number in range(count):
            picture = torch.randint(0, 256, (8, 8, 3), dtype=torch.uint8).numpy()
            write_image(here / "streets" / split / folder / f"{number}.png", picture)
data = hydra.utils.instantiate(compose("data=streets", "data.root=streets", "data.partial=true").data)
data.setup("test")
assert [item["name"] for item in data.whole_images("test")] == ["0", "1"]
assert data.remarks["partial"] == "2 of 100 pairs"

row = read_study(here / "experiments" / "table4.yaml").rows["stages_1"]
assert compose(*row).network.stages == 1

contrast = build_module(compose("sampling=contrast", "network=mini", "network.stages=2"))
sampling = contrast.network.trace(batch["blurred"], mode="top").sampled_points[1]
assert type(contrast.network.samplers["1"]).__name__ == "ContrastSampler"
assert sampling.kept_counts(2).tolist() == list(sampling.counts[2])
print("all four")
"""


@pytest.mark.slow
def test_every_diff_applies_and_runs(tmp_path):
    for folder in ("sapnet", "conf", "experiments"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "results"))
    diffs = re.findall(r"^```diff\n(.*?)^```$", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL | re.MULTILINE)
    assert len(diffs) == 4
    for diff in diffs:
        subprocess.run(["git", "apply", "-"], input=diff, text=True, cwd=tmp_path, check=True)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0 and ended.stdout == "all four\n", ended.stderr
    linted = subprocess.run([sys.executable, "-m", "ruff", "check", "--config", ROOT / "pyproject.toml", tmp_path])
    assert linted.returncode == 0
