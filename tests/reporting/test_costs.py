"""Counted costs of the rows of a study."""

from dataclasses import replace

import hydra
import pytest

from sapnet.configs import CONFIG_DIR, EXPERIMENTS
from sapnet.errors import UserError
from sapnet.evaluation.network_costs import count_config
from sapnet.reporting import costs
from sapnet.reporting.costs import report_table, study_costs
from sapnet.reporting.study import read_study


@pytest.mark.parametrize(("table", "row", "keys"), [("table4", "Net9", 4), ("study_local", "NU-random", 2)])
def test_rows_are_counted_at_full_size_if_the_study_has_the_scale_paper(table, row, keys):
    study = read_study(EXPERIMENTS / f"{table}.yaml", "mini")
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        costs = study_costs(replace(study, rows={row: study.rows[row]}))[row]
        stages = [override for override in study.recipe[row] if override.startswith("network.")]
        mini = count_config(hydra.compose("count", ["network=mini", *stages, *study.rows[row]]))
        full = count_config(hydra.compose("count", ["network=sapnet", *study.rows[row]]))
    assert costs["run_gmacs"] == mini.gmacs and costs["run_parameters_m"] == mini.total_parameters / 1e6
    assert len(costs) == keys
    assert costs.get("gmacs", full.gmacs) == full.gmacs > 10 * mini.gmacs


def test_a_counted_table_is_not_trained_and_prints_its_notes(tmp_path, monkeypatch):
    (tmp_path / "costs.yaml").write_text(
        "title: t\nreference: A\nseeds: []\nscales: {}\nnotes: [a slip]\n"
        "rows: {A: [network=srn, 'network.channels=[4,4,6]']}\n"
    )
    monkeypatch.setattr(costs, "EXPERIMENTS", tmp_path)
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        assert report_table("costs", ["height=32", "width=32"]).endswith("\n\n- a slip")
    with pytest.raises(UserError, match="costs is counted, not trained: sapnet count table=costs"):
        read_study(tmp_path / "costs.yaml", "mini")
