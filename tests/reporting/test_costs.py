"""Counted costs of the rows of a study."""

from dataclasses import replace

import hydra
import pytest

from sapnet.configs import CONFIG_DIR, EXPERIMENTS
from sapnet.evaluation.network_costs import count_config
from sapnet.reporting.costs import study_costs
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
