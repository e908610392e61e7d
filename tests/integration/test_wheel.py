"""The wheel contains code, configs, studies and the source of the operator."""

import subprocess
import sys

import pytest

from tests.integration.conftest import ROOT, TINY, run

pytestmark = pytest.mark.slow


def pip(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_wheel_trains_in_another_folder(tmp_path):
    pip("wheel", "--no-deps", "-w", str(tmp_path / "dist"), str(ROOT))
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    pip("install", "--no-deps", "--target", str(tmp_path / "site"), str(wheel))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = run(
        "sapnet",
        "train",
        *TINY,
        "sampling=nu",
        "hydra.run.dir=run",
        cwd=elsewhere,
        PYTHONPATH=str(tmp_path / "site"),
        SAPNET_CACHE=str(tmp_path / "cache"),
    )
    assert done.returncode == 0, done.stderr
    assert (elsewhere / "run" / "checkpoints" / "last.ckpt").is_file()
    assert (tmp_path / "site" / "sapnet" / "experiments" / "controls.yaml").is_file()
    assert list((tmp_path / "cache").rglob("*.so")), "the operator is compiled from the source in the wheel"
