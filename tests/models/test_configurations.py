"""The configurations of the paper's tables: components, costs and a training step."""

from functools import cache

import hydra
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from sapnet.configs import CONFIG_DIR, compose_network
from sapnet.evaluation.network_costs import count_config
from sapnet.models.adaptive_network import AdaptiveNetwork
from sapnet.reporting.runs import DATA
from sapnet.reporting.study import read_study
from sapnet.training.assemble import build_module

#: Components of the rows of Table 4: Prog., SA, CA, CLA, Mask, V, Delta, PAS.
COMPONENTS = {
    "Baseline": "........",
    "Net2": ".....V..",
    "Net3": ".S..M...",
    "Net4": ".SC.M...",
    "Net5": ".S.LM...",
    "Net6": ".SCLM...",
    "Net7": ".SC.MV..",
    "Net8": ".SC..VO.",
    "Net8_text": ".SCL.VO.",
    "Net9": ".SCLMVO.",
    "Net10": "PSCLMVO.",
    "Net11": "PSCLMVOA",
}
#: The same classes with the smallest sizes.
TINY = ["network.stem=4", "network.channels=[4,4,6]", "network.encoder_blocks=1", "network.decoder_blocks=1", "steps=2"]
EXPERIMENTS = CONFIG_DIR.parent / "experiments"
TABLES = [*(f"table{number}" for number in (1, 2, 4, 5, 6)), "controls", "rates", "study_local", "study_mixed"]


@cache
def rows(table: str):
    return read_study(EXPERIMENTS / f"{table}.yaml")


ROWS = [(table, row) for table in TABLES for row in rows(table).rows]


def compose(*overrides: str, name: str = "train") -> DictConfig:
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return hydra.compose(name, list(overrides))


def components(config: DictConfig) -> str:
    """Return the components of a network, read from its parameters and the loss."""
    module = build_module(config)
    names = [name for name, _ in module.network.named_parameters()]

    def has(*arguments: str) -> bool:
        return any(all(argument in name for argument in arguments) for name in names)

    on = {
        "P": module.loss.progressive,
        "S": has("self_attention"),
        "C": has("decoder", "cross_attention"),
        "L": has("encoder", "cross_attention"),
        "M": has("mask_space") and has("mask_channels"),
        "V": has("f_ker"),
        "O": has("f_off"),
        "A": isinstance(module.network, AdaptiveNetwork) and has("policy"),
    }
    # The fusion mask exists wherever there are two branches.
    assert has("f_fus") == (on["S"] or on["C"])
    return "".join(letter if present else "." for letter, present in on.items())


@pytest.mark.parametrize("row", COMPONENTS)
def test_rows_of_table_4_have_the_components_of_the_paper(row):
    """A disabled component has no parameters."""
    assert components(compose(*rows("table4").rows[row], *TINY)) == COMPONENTS[row]


def test_rows_of_table_4_differ_only_in_their_components():
    """Rows differ from Net9 only in the eight components."""
    whole = compose(*rows("table4").rows["Net9"])
    switches = {"self_attention", "cross_attention", "cross_level_attention", "masks", "kernel", "offsets"}
    for row in COMPONENTS:
        config = compose(*rows("table4").rows[row])
        differing = {key for key in whole.network if key != "options" and config.network[key] != whole.network[key]}
        assert differing <= {"sampled"}
        options = whole.network.options
        assert {key for key in options if config.network.options[key] != options[key]} <= switches
        assert {key for key in ("data", "optim", "trainer") if config[key] != whole[key]} == set()


@pytest.mark.parametrize(("table", "row"), ROWS)
def test_every_row_trains_one_step(table, row):
    config = compose(*read_study(EXPERIMENTS / f"{table}.yaml", "smoke").overrides(row, 0))
    module = build_module(config)
    torch.manual_seed(0)
    batch = {key: torch.rand(1, 3, 32, 32) for key in ("blurred", "sharp")} | {"extent": torch.rand(1, 1, 32, 32)}
    loss, _ = module.losses(batch)
    loss.backward()
    optimizers = module.configure_optimizers()[0]
    before = [p.detach().clone() for p in module.parameters()]
    for optimizer in optimizers:
        optimizer.step()
    assert loss.isfinite() and any((a != b).any() for a, b in zip(before, module.parameters(), strict=True))


@pytest.mark.parametrize("sampling", ["nu", "predicted_error"])
def test_policies_are_a_small_part_of_the_cost(sampling):
    """`network=mini` has a smaller policy by default; the command line takes precedence."""
    for model, width, stride in (("mini", 12, 2), ("sapnet", 16, 1)):
        config = compose(f"network={model}", f"sampling={sampling}", name="count")
        built = compose_network(config)
        assert built["policy_width"] == width and built["policy_stride"] == stride
        config.height = config.width = 64
        cost = count_config(config)
        share = cost.grouped(lambda path: path.partition(".")[0])["samplers"][1] / cost.total_flops
        assert 0.004 < share < 0.02
    named = compose("network=mini", f"sampling={sampling}", "sampling.policy_width=4", "sampling.policy_stride=1")
    assert (named.sampling.policy_width, named.sampling.policy_stride) == (4, 1)


@pytest.mark.parametrize("sampling", ["nu", "predicted_error"])
def test_policy_inputs_change_the_cost(sampling):
    """Without the images, a 3x3 convolution in each of two stages has nine input channels less."""
    costs = {}
    for inputs in ("features_and_images", "features"):
        config = compose(f"sampling={sampling}", "network=mini", f"sampling.policy_inputs={inputs}", name="count")
        config.height = config.width = 64
        costs[inputs] = count_config(config)
    both, features = costs["features_and_images"], costs["features"]
    assert both.total_parameters - features.total_parameters == 2 * 9 * 9 * 12
    assert both.total_flops - features.total_flops == 2 * 2 * 9 * 9 * 12 * 32 * 32
    assert compose(f"sampling={sampling}").sampling.policy_inputs == "features_and_images"


@pytest.mark.parametrize("table", [*TABLES, "table3"])
def test_row_names_are_valid_overrides(table):
    for row in rows(table).rows:
        (override,) = OverridesParser.create().parse_overrides([f"row={row}"])
        assert override.value() == row


@pytest.mark.parametrize(
    ("table", "scale"),
    [(name, scale) for name in TABLES for scale in ("paper", "mini", "smoke") if scale != "paper" or "table" in name],
)
def test_every_row_composes_at_every_scale(table, scale):
    study = read_study(EXPERIMENTS / f"{table}.yaml", scale)
    assert study.reference in study.rows
    for row in study.rows:
        config = compose(*(argument.replace(DATA, "sets") for argument in study.overrides(row, 1)))
        assert config.seed == 1
        if scale == "paper":
            recipe = config.optim.optimizer.lr, config.optim.scheduler.every, config.data.crop, config.data.batch
            assert recipe == (1e-4, 200000, 256, 6)
            assert config.data.root == "sets/GOPRO_Large"
            assert config.policy.pretrain == compose("experiment=paper").policy.pretrain


def test_ablation_configs_cover_table_4():
    """`ablation=glob(*)` and the rows name the same configs."""
    files = {path.stem for path in (CONFIG_DIR / "ablation").glob("*.yaml")}
    assert files == {rows("table4").rows[row][0].removeprefix("ablation=") for row in COMPONENTS}


def test_costs_equal_those_of_the_paper():
    """Parameters and multiply-adds of both networks are within 3% of the paper with one setting of the widths."""
    checked = 0
    for row in ("Ours", "Ours_U"):
        figures = rows("table3").paper[row]
        cost = count_config(compose(*rows("table3").rows[row], name="count"))
        actual = {"paper_parameters_m": cost.total_parameters / 1e6, "paper_gmacs": cost.gmacs}
        for key, value in figures.items():
            assert actual[key] == pytest.approx(value, rel=0.03), f"{row}: {key}"
            checked += 1
    assert checked == 3


def test_costs_with_scales_1_2_4():
    figures = rows("table3").paper
    uniform = count_config(compose(*rows("table3").rows["r124_U"], name="count"))
    sampled = count_config(compose(*rows("table3").rows["r124"], name="count"))
    assert uniform.gmacs == pytest.approx(figures["Ours_U"]["paper_gmacs"], rel=0.03)
    assert sampled.gmacs == pytest.approx(figures["Ours"]["paper_gmacs"], rel=0.03)
    assert sampled.total_parameters / 1e6 == pytest.approx(figures["Ours"]["paper_parameters_m"], rel=0.03)


def test_baseline_has_a_similar_number_of_parameters():
    """Sec. 4.3: "a similar structure and number of parameters as our final model"."""
    baseline, final = (count_config(compose(*rows("table4").rows[row], name="count")) for row in ("Baseline", "Net11"))
    assert baseline.total_parameters == pytest.approx(final.total_parameters, rel=0.1)


#: Millions of parameters and GMACs of the published code, from the literature or derived from its layers.
PUBLISHED_CODE = {
    "dmphn_1_2_4": (5.424, 48.86),
    "dmphn_1_2_4_8": (7.233, 65.15),
    "dmphn_stack4": (21.698, 195.44),
    "srn_nolstm": (6.881, 83.5),
    "srn": (8.061, 89.8),
}


@pytest.mark.parametrize("model", PUBLISHED_CODE)
def test_costs_of_peers_equal_published_counts(model):
    cost = count_config(compose(f"network={model}", name="count"))
    parameters, gmacs = PUBLISHED_CODE[model]
    assert cost.total_parameters / 1e6 == pytest.approx(parameters, abs=6e-4)
    assert cost.gmacs == pytest.approx(gmacs, rel=1e-3)
