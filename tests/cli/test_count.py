"""`python -m sapnet count` as a user runs it, and the page that quotes it."""

import json
import re
import shlex

import hydra
import pytest

from sapnet.configs import CONFIG_DIR
from sapnet.evaluation.footprint import Footprint
from sapnet.reporting import costs
from tests.integration.conftest import ROOT, run

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "complexity.md").read_text()
QUOTED = re.findall(r"<!-- python -m (sapnet count .*?) -->\n\n(.*?)\n\n<!-- end -->", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize(("command", "printed"), QUOTED, ids=[command for command, _ in QUOTED])
def test_the_page_holds_what_the_command_prints(command, printed, tmp_path):
    """A change of the network or of the counter must reach the documentation."""
    done = run(*shlex.split(command), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == printed


def test_the_page_quotes_the_command():
    assert len(QUOTED) == PAGE.count("<!-- end -->") >= 4


def test_a_sweep_over_the_rows_of_table_4(tmp_path):
    arguments = ["ablation=glob(net1*)", "network.stem=4", "network.channels=[4,4,6]", "height=64"]
    done = run("sapnet", "count", "--multirun", *arguments, f"hydra.sweep.dir={tmp_path}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    net10, net11 = (json.loads((tmp_path / f"ablation-{row}" / "cost.json").read_text()) for row in ("net10", "net11"))
    assert net10["height"] == 64 and net10["flops"] > 0 and net11["flops"] != net10["flops"]
    assert "GMACs = " in done.stdout and "3x64x256" in done.stdout


def test_a_table_takes_further_words(tmp_path):
    done = run(
        "sapnet", "count", "table=table5", "network.stem=4", "network.channels=[4,4,6]", "width=64", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "For 3x256x64." in done.stdout and done.stdout.count("| NU") == 4


TINY = ("network.stem=4", "network.channels=[4,4,6]", "network.encoder_blocks=1", "network.decoder_blocks=1")


@pytest.mark.parametrize(
    ("arguments", "sizes"),
    [(("network=sapnet", "sampling=nu", *TINY), (256, 512)), (("network=srn", "network.channels=[4,4,6]"), (256,))],
)
def test_measured_figures_stand_beside_the_counted(arguments, sizes, tmp_path):
    """The image at full resolution is held in many copies of 4 bytes: the peak must grow as the image does."""
    peaks = []
    for size in sizes:
        all_arguments = [*arguments, "measure=true", f"height={size}", f"width={size}", f"hydra.run.dir={tmp_path}"]
        done = run("sapnet", "count", *all_arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        result = json.loads((tmp_path / "cost.json").read_text())
        measured = result["measured"]
        assert measured["height"] == size and measured["seconds"] > 0 and measured["device"] == "cpu"
        assert measured["parameter_bytes"] == 4 * result["parameters"]
        assert f"; {measured['seconds']:.3f} s, median of {len(measured['times'])}." in done.stdout
        if measured["peak_bytes"] is None:
            assert "peak memory not measured here" in done.stdout
            return
        assert f"peak memory {measured['peak_bytes'] / 2**20:.1f} MiB" in done.stdout
        peaks.append(measured["peak_bytes"])
    assert peaks[0] > 8 * 256**2 * 3 * 4
    assert len(sizes) == 1 or 2.5 < peaks[1] / peaks[0] < 5


def test_a_count_alone_measures_nothing(tmp_path):
    done = run("sapnet", "count", "network=sapnet", *TINY, "height=32", f"hydra.run.dir={tmp_path}", cwd=tmp_path)
    assert done.returncode == 0 and "Measured" not in done.stdout
    assert "measured" not in json.loads((tmp_path / "cost.json").read_text())


def test_a_table_can_be_measured(monkeypatch):
    """The measurement of a network is tested above."""
    sizes = []

    def measure(config):
        sizes.append((config.height, config.width))
        return Footprint(config.height, config.width, 2**20, 2**21, (0.5,))

    monkeypatch.setattr(costs, "measure_config", measure)
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        table = costs.report_table("table5", [*TINY, "height=32", "width=48"], measured=True)
    head, rows = table.split("\n| --- ")
    assert head.endswith("| peak memory, MiB | seconds |") and table.endswith("beside the parameters.")
    assert rows.count("| 2.0 | 0.500 |") == 6 == len(sizes) and set(sizes) == {(32, 48)}


def test_an_unknown_table_ends_in_one_sentence(tmp_path):
    done = run("sapnet", "count", "table=table9", cwd=tmp_path)
    assert done.returncode == 1 and "table9" in done.stderr and len(done.stderr.strip().splitlines()) == 1
