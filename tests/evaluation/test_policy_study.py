"""Rank correlation, AUC and the study of a policy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sapnet.evaluation.policy_study import as_markdown, auc_of_hardest, rank_correlation, study
from sapnet.models.adaptive_network import AdaptiveNetwork
from sapnet.models.sapnet import SAPNet


@given(st.integers(0, 2**31))
def test_auc_is_the_probability_that_a_hard_pixel_scores_higher(seed):
    """Compared with all pairs; ties count half."""
    rng = np.random.default_rng(seed)
    score, truth = torch.tensor(rng.integers(0, 5, 24) * 1.0), torch.tensor(rng.permutation(24) * 1.0)
    hard = truth > 17.25
    wins = [(a > b) + 0.5 * (a == b) for a in score[hard].tolist() for b in score[~hard].tolist()]
    assert auc_of_hardest(score, truth) == pytest.approx(np.mean(wins))


def test_perfect_and_inverted_scores():
    truth = torch.rand(8, 8)
    assert auc_of_hardest(truth, truth) == 1 and rank_correlation(truth, truth) == pytest.approx(1)
    assert auc_of_hardest(-truth, truth) == 0 and rank_correlation(truth.exp(), -truth) == pytest.approx(-1)
    assert math.isnan(auc_of_hardest(truth, torch.ones(8, 8))), "no pixel is above the quantile"


def test_study_compares_samplers_and_leaves_the_network_unchanged():
    torch.manual_seed(0)
    network = AdaptiveNetwork(SAPNet(4, (4, 4, 4), encoder_blocks=1, decoder_blocks=1, sampled=True)).eval()
    for stage in network.generator.stages:
        torch.nn.init.normal_(stage.head.weight, std=0.05)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    items = [
        {"blurred": torch.rand(3, 32, 32), "sharp": torch.rand(3, 32, 32), "extent": torch.rand(1, 32, 32)}
        for _ in range(3)
    ]
    result = study(network, items, torch.device("cpu"))
    names = ["learned", "uniform", "random", "gradient", "oracle"]
    assert [row["sampler"] for row in result["samplers"]] == [*names, "extent"]
    assert {(row["stage"], row["score"], row["truth"]) for row in result["agreement"]} == {
        (stage, score, truth) for stage in (2, 3) for score in ("map", "gradient") for truth in ("error", "extent")
    }
    after = network.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert "| oracle |" in as_markdown(result, "learned")
    del items[1]["extent"]
    assert [row["sampler"] for row in study(network, items, torch.device("cpu"))["samplers"]] == names
