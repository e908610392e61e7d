"""File locks on names between processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sapnet.errors import UserError
from sapnet.evaluation.claims import Claims
from sapnet.evaluation.results_file import append_result
from tests.integration.conftest import ROOT


def test_claim_excludes_other_processes_until_they_end(tmp_path: Path) -> None:
    code = f"""
from sapnet.evaluation.claims import Claims
with Claims({str(tmp_path / "claims")!r}) as claims, claims.claim("a") as held, claims.claim("b"):
    print(held, flush=True)
    input()
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    other = subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes)
    assert other.stdout.readline() == "True\n"
    with Claims(tmp_path / "claims") as claims:
        for name, free in (("a", False), ("b", False), ("c", True)):
            with claims.claim(name) as held:
                assert held == free
        other.kill()
        other.communicate()
        for _ in range(2):  # released after each block
            with claims.claim("a") as held:
                assert held


def test_unwritable_folder_raises_user_error(tmp_path: Path) -> None:
    append_result(tmp_path / "file", {})
    with pytest.raises(UserError, match="lock file cannot be created"):
        Claims(tmp_path / "file" / "claims")
