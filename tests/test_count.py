"""`python -m sapnet.count` as a user runs it, and the page that quotes it."""

import json
import re
import shlex

import pytest

from tests.integration.conftest import ROOT, run

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "complexity.md").read_text()
QUOTED = re.findall(r"<!-- python -m (sapnet\.count .*?) -->\n\n(.*?)\n\n<!-- end -->", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize(("command", "printed"), QUOTED, ids=[command for command, _ in QUOTED])
def test_the_page_holds_what_the_command_prints(command, printed, tmp_path):
    """A change of the network or of the counter must reach the documentation."""
    done = run(*shlex.split(command), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == printed


def test_the_page_quotes_the_command():
    assert len(QUOTED) == PAGE.count("<!-- end -->") >= 4


def test_a_sweep_over_the_rows_of_table_4(tmp_path):
    words = ["experiment=glob(table4_net1*)", "model.stem=4", "model.channels=[4,4,6]", "height=64"]
    done = run("sapnet.count", "--multirun", *words, f"hydra.sweep.dir={tmp_path}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    net10, net11 = (json.loads((tmp_path / job / "cost.json").read_text()) for job in "01")
    assert net10["height"] == 64 and net10["flops"] > 0 and net11["flops"] != net10["flops"]
    assert "GMACs = " in done.stdout and "3x64x256" in done.stdout


def test_a_table_takes_further_words(tmp_path):
    done = run("sapnet.count", "table=table5", "model.stem=4", "model.channels=[4,4,6]", "width=64", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "For 3x256x64." in done.stdout and done.stdout.count("| NU") == 4


def test_an_unknown_table_ends_in_one_sentence(tmp_path):
    done = run("sapnet.count", "table=table9", cwd=tmp_path)
    assert done.returncode == 1 and "table9" in done.stderr and len(done.stderr.strip().splitlines()) == 1
