import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sapnet.configs import CONFIG_DIR
from sapnet.errors import UserError
from sapnet.evaluation.results_file import append_result
from sapnet.reporting.charts import gains_chart
from sapnet.reporting.comparison import compare
from sapnet.reporting.runs import RunStore
from sapnet.reporting.study import Study, data_overrides, read_study
from sapnet.reporting.study_tables import as_csv, as_markdown

EXPERIMENTS = CONFIG_DIR.parent / "experiments"
STUDY = Study("Where", "random", (0, 1), {"random": ["sampling=random"], "oracle": ["sampling=oracle"]})


def places(folder):
    return lambda row, seed: folder / row / f"seed{seed}"


def write(folder, row, seed, values, **context):
    for i, value in enumerate(values):
        line = {"name": f"{i:03d}", "stage_psnr": [0.0, value], "stage_ssim": [0.0, 0.9], "seconds": 0.5, **context}
        append_result(folder / row / f"seed{seed}" / "results.jsonl", line)
    made = {"command": f"sapnet train seed={seed}", "commit": "abc1234", "config_hash": f"hash{seed}"}
    (folder / row / f"seed{seed}" / "done.json").write_text(json.dumps(made))


def test_gains_are_paired_by_image_and_seed(tmp_path):
    base = np.array([20.0, 25.0, 31.0])
    for seed in (0, 1):
        write(tmp_path, "random", seed, base + seed)
        write(tmp_path, "oracle", seed, base + seed + 0.5)
    random, oracle = compare(STUDY, places(tmp_path))
    assert random["psnr_db"] == pytest.approx(base.mean() + 0.5) and "gain_db" not in random
    assert random["psnr_seed_sd_db"] == pytest.approx(np.sqrt(0.5))
    assert oracle["gain_db"] == pytest.approx(0.5) and oracle["gain_ci95_low_db"] == pytest.approx(0.5)
    assert oracle["gain_by_seed_db"] == pytest.approx([0.5, 0.5])


def test_only_the_latest_evaluation_is_used(tmp_path):
    """A second run of the command appends 2 images of a new checkpoint to 4 of the old one."""
    base = {"checkpoint_kind": "best", "data": "synthetic"}
    for seed in (0, 1):
        write(tmp_path, "random", seed, [20.0, 21.0, 22.0, 23.0], checkpoint="old", generator_steps=2, **base)
        write(tmp_path, "random", seed, [30.0, 31.0], checkpoint="new", generator_steps=4, **base)
        write(tmp_path, "oracle", seed, [31.0, 32.0], checkpoint="c", generator_steps=4, **base)
    random, oracle = compare(STUDY, places(tmp_path))
    assert random["psnr_db"] == 30.5 and random["images"] == 2 and oracle["gain_db"] == 1
    assert random["evaluated_checkpoint"] == "best, 4 steps"
    assert "Evaluated checkpoint: best, 4 steps" in as_markdown(STUDY, [random, oracle], {})


def test_results_of_the_selected_checkpoint_are_read(tmp_path):
    rows = {"random": ["evaluate_checkpoint=last"], "oracle": []}
    study = Study("t", "random", (0,), rows)
    for row in rows:
        write(tmp_path, row, 0, [20.0, 21.0], checkpoint="b", checkpoint_kind="best")
        write(tmp_path, row, 0, [30.0, 31.0], checkpoint="l", checkpoint_kind="last")
    assert [line["psnr_db"] for line in compare(study, places(tmp_path))] == [30.5, 20.5]


def test_results_on_different_images_are_rejected(tmp_path):
    write(tmp_path, "random", 0, [20.0, 21.0])
    write(tmp_path, "random", 1, [20.0, 21.0, 22.0])
    with pytest.raises(UserError, match=r"seed1/results.jsonl contains 3 images, of which 2 are among the 2"):
        compare(STUDY, places(tmp_path))
    write(tmp_path, "random", 0, [20.0, 21.0, 22.0])
    for seed in (0, 1):
        write(tmp_path, "oracle", seed, [20.0, 21.0])
    with pytest.raises(UserError, match=r"oracle and random were tested on different images"):
        compare(STUDY, places(tmp_path))
    write(tmp_path, "oracle", 0, [20.0, 21.0, 22.0], budget=0.5)
    write(tmp_path, "oracle", 0, [20.0, 21.0, 22.0], budget=0.1)
    with pytest.raises(UserError, match=r"several evaluations \(budget: 0.5 and 0.1\)"):
        compare(STUDY, places(tmp_path))


def test_row_without_results_is_shown(tmp_path):
    for seed in (0, 1):
        write(tmp_path, "random", seed, [20.0, 21.0])
    write(tmp_path, "oracle", 0, [22.0, 23.0])  # the second seed is missing
    text = as_markdown(STUDY, compare(STUDY, places(tmp_path)), {"Seeds": "0, 1"})
    assert "| oracle | no result yet |" in text and "Seeds: 0, 1" in text
    assert gains_chart(STUDY, compare(STUDY, places(tmp_path))) is None, "there is no gain to draw"


def test_unknown_study_or_scale_is_rejected(tmp_path):
    content = {
        "title": "t",
        "reference": "a",
        "seeds": [0],
        "rows": {"a": []},
        "scales": {"mini": {"common": [], "ours": []}},
    }
    (tmp_path / "known.yaml").write_text(json.dumps(content))
    with pytest.raises(UserError, match="known"):
        read_study(tmp_path / "unknown.yaml", "mini")
    with pytest.raises(UserError, match="mini"):
        read_study(tmp_path / "known.yaml", "paper")


def studied(tmp_path, rows):
    content = {"title": "t", "reference": "a", "seeds": [0], "rows": rows}
    scales = {"mini": {"common": ["steps=1"], "ours": ["network.stem=4"], "peers": []}}
    (tmp_path / "scales.yaml").write_text(json.dumps(scales))
    (tmp_path / "table.yaml").write_text(json.dumps(content))
    return read_study(tmp_path / "table.yaml", "mini")


def test_row_can_contain_values_of_the_paper(tmp_path):
    study = studied(tmp_path, {"a": ["seed=1"], "b": {"overrides": ["network=net5"], "paper_psnr_db": 31.04}})
    assert study.rows == {"a": ["seed=1"], "b": ["network=net5"]}
    assert study.paper == {"b": {"paper_psnr_db": 31.04}}
    write(tmp_path, "b", 0, [22.0, 23.0])
    text = as_markdown(study, compare(study, places(tmp_path)), {})
    assert "| PSNR dB | paper's PSNR dB |" in text and "| b | 22.50 | 31.04 |" in text
    assert "| a | no result yet |  |" in text, "the figures of the paper and ours never mix"


@pytest.mark.parametrize(
    "row", ["network=net5", {"paper_psnr_db": 30}, {"overrides": [], "psnr": 30}, {"overrides": None}]
)
def test_malformed_row_is_rejected(tmp_path, row):
    with pytest.raises(UserError, match=r"table.yaml, row odd"):
        studied(tmp_path, {"odd": row})


def test_scale_adds_overrides_by_recipe(tmp_path):
    rows = {"a": ["seed=1"], "b": {"overrides": ["network=srn"], "recipe": "peers"}}
    study = studied(tmp_path, rows)
    assert study.overrides("a", 3) == ["steps=1", "network.stem=4", "seed=1", "seed=3"]
    assert study.overrides("b", 3) == ["steps=1", "network=srn", "seed=3"], "SRN has no stem to override"
    assert study.paper == {"b": {}}, "the recipe is not a value of the paper"
    with pytest.raises(UserError, match="row a: recipe: odd"):
        studied(tmp_path, {"a": {"overrides": [], "recipe": "odd"}})


def test_data_overrides_replace_those_of_the_scale():
    study = Study("t", "a", (0,), {"a": ["network=net9"]}, {"a": ["steps=1", "data.train=6"]})
    expected = ["steps=1", "data=reds", "data.root=R", "logger=wandb", "network=net9", "seed=0"]
    data = data_overrides(["row=a", "data=reds", "data.root=R"])
    assert study.changed(["logger=wandb"], data).overrides("a", 0) == expected
    assert "data.train=6" in study.changed([], []).overrides("a", 0)


def test_csv_columns_have_units_and_provenance(tmp_path):
    study = studied(tmp_path, {"a": [], "b": {"overrides": ["network=net5"], "paper_psnr_db": 31.04}})
    for row, base in (("a", 20.0), ("b", 21.0)):
        write(tmp_path, row, 0, [base, base + 1])
    lines = compare(study, places(tmp_path))
    head, first, second = as_csv(lines).splitlines()
    columns = head.split(",")
    assert columns[-1] == "paper_psnr_db", "the paper's columns stand apart, at the end"
    for column in ("psnr_db", "runtime_s", "gain_ci95_low_db", "command", "commit", "config_hash", "images", "seeds"):
        assert column in columns
    assert first.endswith(",") and second.endswith("31.04") and "abc1234" in second
    assert gains_chart(study, lines).shape[2] == 3


def test_notes_are_printed(tmp_path):
    study = Study("t", "a", (0,), {"a": []}, notes=("The text says otherwise.",))
    assert "- The text says otherwise." in as_markdown(study, compare(study, places(tmp_path)), {})


def test_diverged_seeds_are_counted_and_excluded(tmp_path):
    """The number of diverged seeds is shown next to the mean of the others."""
    for seed, value in ((0, 20.0), (1, 30.0)):
        write(tmp_path, "random", seed, [value, value])
    write(tmp_path, "oracle", 1, [31.0, 31.0])
    (tmp_path / "oracle" / "seed0").mkdir()
    (tmp_path / "oracle" / "seed0" / "diverged.json").write_text("{}")
    _, oracle = compare(STUDY, places(tmp_path))
    assert oracle["diverged_seeds"] == 1 and oracle["psnr_db"] == 31 and oracle["gain_db"] == pytest.approx(1)
    assert "31.00, 1 diverged" in as_markdown(STUDY, compare(STUDY, places(tmp_path)), {})
    (tmp_path / "oracle" / "seed1" / "diverged.json").write_text("{}")
    assert "| oracle | 2 diverged |" in as_markdown(STUDY, compare(STUDY, places(tmp_path)), {})


def test_derived_value_is_marked(tmp_path):
    study = studied(
        tmp_path, {"a": {"overrides": [], "paper_psnr_db": 32.0}, "b": {"overrides": [], "derived_psnr_db": 31.85}}
    )
    text = as_markdown(study, compare(study, places(tmp_path)), {})
    assert "| b | no result yet | 31.85 (derived) |" in text and "| a | no result yet | 32 |" in text
    assert as_csv(compare(study, places(tmp_path))).splitlines()[0] == "row,paper_psnr_db,derived_psnr_db"


def test_table_4_has_two_derived_values():
    paper = read_study(EXPERIMENTS / "table4.yaml").paper
    derived = {row: figures["derived_psnr_db"] for row, figures in paper.items() if "derived_psnr_db" in figures}
    net9 = paper["Net9"]["paper_psnr_db"]
    assert derived == {"Net8_text": pytest.approx(net9 - 0.18), "elu_unnormalised": pytest.approx(net9 - 0.15)}


def test_run_folders_of_the_studies_have_not_changed():
    """A run is identified by its overrides, so refactoring the studies must not change them."""
    for name, identity in json.loads((Path(__file__).parent / "run_identities.json").read_text()).items():
        table, scale, row = name.split(" ", 2)
        study = read_study(EXPERIMENTS / f"{table}.yaml", scale)
        assert RunStore(Path()).folder([*study.overrides(row, 0), *study.test]).name == identity, name


def test_study_inherits_rows(tmp_path):
    studied(tmp_path, {"a": [["x=1", "y=2"], "z=3"], "b": ["x=2"]})
    other = {"title": "t", "reference": "a", "seeds": [0], "rows_of": "table", "without": ["b"]}
    (tmp_path / "other.yaml").write_text(json.dumps(other))
    assert read_study(tmp_path / "other.yaml").rows == {"a": ["x=1", "y=2", "z=3"]}
    (tmp_path / "other.yaml").write_text(json.dumps(other | {"without": ["c"]}))
    with pytest.raises(UserError, match=r"other.yaml, without: table has no row c"):
        read_study(tmp_path / "other.yaml")


def test_inherited_rows_share_runs(tmp_path):
    """Otherwise rows would be trained again."""
    shutil.copy(EXPERIMENTS / "study_local.yaml", tmp_path)
    part = {"title": "t", "reference": "NU-random", "seeds": [0], "rows_of": "study_local", "without": ["U"]}
    (tmp_path / "part.yaml").write_text(json.dumps(part))
    whole, part = (read_study(tmp_path / f"{name}.yaml", "mini") for name in ("study_local", "part"))
    assert set(part.rows) < set(whole.rows)
    assert all(part.overrides(row, 1) == whole.overrides(row, 1) for row in part.rows)
