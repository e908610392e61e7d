"""The list of files that the type checker ignores only gets shorter."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.integration.conftest import ROOT

pytest.importorskip("basedpyright")


@pytest.mark.slow
def test_every_ignored_file_still_needs_it(tmp_path):
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["basedpyright"]
    ignored = {name for name in settings.pop("ignore") if (ROOT / name).is_file()}
    settings["include"] = [str(ROOT / "sapnet")]
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    words = ["-m", "basedpyright", "-p", str(tmp_path / "settings.json"), "--pythonpath", sys.executable]
    done = subprocess.run([sys.executable, *words, "--outputjson"], cwd=ROOT, capture_output=True, text=True)
    findings = json.loads(done.stdout)["generalDiagnostics"]
    unclean = {Path(finding["file"]).relative_to(ROOT).as_posix() for finding in findings}
    assert unclean == ignored, f"in tool.basedpyright.ignore, take out: {sorted(ignored - unclean)}"
