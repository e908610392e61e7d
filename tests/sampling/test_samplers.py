import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sapnet.errors import UserError
from sapnet.layers.windows import cover
from sapnet.sampling.learned import LearnedSampler
from sapnet.sampling.points import budget_count
from sapnet.sampling.samplers import make_sampler
from sapnet.sampling.state import State

NAMES = ("learned", "uniform", "random", "gradient", "oracle")
BUDGETS = (0.0, -0.1, 0.1, 0.2)


class Table(nn.Module):
    """A policy that answers the same logits whatever the image."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, state):
        return self.logits.expand(len(state.blurred), -1, -1)


def make_state(size=(32, 48), padded=None, grid=(2, 1), batch=2, channels=4, seed=0):
    rng = torch.Generator().manual_seed(seed)
    h, w = padded or size
    restored, blurred = (torch.rand(batch, 3, h, w, generator=rng) for _ in range(2))
    features = torch.randn(batch, h, w, channels, generator=rng)
    sharp = torch.rand(batch, 3, *size, generator=rng)
    return State(1, grid, size, features, restored, blurred, sharp)


def check_points(sampling, state, budget, exact):
    """Sorted, distinct, in range, never in the padding; the budget where it is exact."""
    rows, cols = state.grid
    h, w = state.blurred.shape[-2] // rows, state.blurred.shape[-1] // cols
    batch = len(state.blurred)
    for scale, points in sampling.points.items():
        stride = scale // 2
        assert points.dtype == torch.int64 and len(points) == rows * cols * batch
        for i, row in enumerate(points):
            used = row[row >= 0]
            assert (row[len(used) :] == -1).all() and (used.diff() > 0).all()
            place = i // batch
            real_h = min(max(state.size[0] - place // cols * h, 0), h)
            real_w = min(max(state.size[1] - place % cols * w, 0), w)
            y, x = used // (w // stride) * stride, used % (w // stride) * stride
            assert (y < real_h).all() and (x < real_w).all(), "a point lies in the padding"
            wanted = budget_count(real_h, real_w, scale, budget)
            assert sampling.counts[scale][i] == wanted
            if exact:
                assert len(used) == wanted


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["top", "draw", "pretrain"])
@settings(deadline=None, max_examples=8)
@given(
    st.sampled_from(BUDGETS),
    st.integers(1, 48),
    st.integers(1, 48),
    st.sampled_from([(1, 1), (2, 1), (2, 2)]),
    st.integers(1, 2),
)
def test_points_are_sound_for_any_size(mode, name, budget, height, width, grid, batch):
    padded = -(-height // 16) * 16, -(-width // 16) * 16
    state = make_state((height, width), padded, grid, batch)
    sampling = make_sampler(name, 4, budget)(state, mode)
    check_points(sampling, state, budget, exact=mode == "top" or (mode == "draw" and name != "learned"))


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=8)
@given(
    st.sampled_from((*BUDGETS, -0.9, 3.0)),
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from([(1, 1), (2, 1), (2, 2)]),
    st.sampled_from([16, 32, 48]),
)
def test_windows_change_neither_the_budget_nor_what_may_be_chosen(name, budget, height, width, grid, window):
    padded = -(-height // 16) * 16, -(-width // 16) * 16
    state = make_state((height, width), padded, grid)
    parts = [(size // n, window // n) for size, n in zip(padded, grid)]
    windows = cover(parts[0][0], parts[1][0], (parts[0][1], parts[1][1]), 8)
    sampling = make_sampler(name, 4, budget)(replace(state, windows=windows), "top")
    check_points(sampling, state, budget, exact=True)


@pytest.mark.parametrize("name", ["learned", "uniform", "gradient"])
def test_windows_that_tile_choose_as_in_each_alone(name):
    """Calibration counts too: it would move probability between windows before cells are pooled."""
    torch.manual_seed(0)
    logits = 3 * torch.randn(1, 32, 64)
    state = make_state((32, 64), grid=(1, 1))

    def sampler(logits):
        return LearnedSampler(Table(logits)) if name == "learned" else make_sampler(name)

    whole = sampler(logits)(replace(state, windows=cover(32, 64, (32, 32), 8)), "top")
    for x in (0, 32):
        parts = {key: getattr(state, key)[..., x : x + 32] for key in ("restored", "blurred", "sharp")}
        alone = sampler(logits[..., x : x + 32])(replace(state, size=(32, 32), **parts), "top")
        for scale in (2, 4, 8):
            chosen, expected = whole.mask(scale)[..., x : x + 32], alone.mask(scale)
            # The gradient at a border sees the neighbouring window.
            assert torch.equal(chosen, expected) or (name == "gradient" and (chosen != expected).float().mean() < 0.1)
            assert torch.equal(chosen.sum((1, 2)), expected.sum((1, 2)))


def test_without_the_calibration_of_each_window_the_map_would_be_another():
    logits = torch.cat((torch.full((1, 16, 16), 2.0), torch.full((1, 16, 16), -2.0)), dim=2)
    state = make_state((16, 32), grid=(1, 1))
    share = LearnedSampler(Table(logits)).score(replace(state, windows=cover(16, 32, (16, 16), 8)))
    torch.testing.assert_close(share, torch.full_like(share, 0.25))


def test_uniform_points_are_every_second_row_and_column_at_budget_0():
    sampling = make_sampler("uniform")(make_state())
    for scale, (h, w) in {2: (16, 48), 4: (8, 24), 8: (4, 12)}.items():
        expected = torch.arange(h * w).view(h, w)[::2, ::2].flatten()
        assert torch.equal(sampling.points[scale], expected.expand(4, -1))


def test_uniform_points_do_not_change_with_padding_that_cuts_cells():
    state = make_state((30, 46), (32, 48), (1, 1))
    points = make_sampler("uniform")(state).points[8]
    # 8x12 canvas positions, 22 points: nearly every second row and column of it.
    grid = torch.arange(96).view(8, 12)[::2, ::2].flatten().tolist()
    assert set(points[0].tolist()) <= set(grid)


def test_an_untrained_policy_ranks_like_the_uniform_sampler():
    state = make_state()
    learned, uniform = (make_sampler(name, 4)(state, "top").points for name in ("learned", "uniform"))
    assert all(torch.equal(learned[r], uniform[r]) for r in (2, 4, 8))


def test_random_points_at_inference_depend_on_size_and_seed_only():
    sampler = make_sampler("random", seed=3).eval()
    big, small = make_state(batch=3), make_state(batch=1, seed=9)
    first, again, alone = sampler(big), sampler(big), sampler(small)
    for r in (2, 4, 8):
        assert torch.equal(first.points[r], again.points[r])
        assert torch.equal(first.points[r][0], first.points[r][2])
        assert torch.equal(first.points[r][[0, 3]], alone.points[r]), "a batch's size must not matter"
        assert not torch.equal(first.points[r][0], first.points[r][3]), "the two halves should differ"
    assert not torch.equal(make_sampler("random", seed=4).eval()(big).points[2], first.points[2])


def test_random_points_in_training_come_from_the_generator():
    sampler, state = make_sampler("random").train(), make_state()
    draws = [sampler(state, generator=torch.Generator().manual_seed(s)).points[2] for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_random_positions_are_equally_likely():
    sampler = make_sampler("random", scales=(8,)).train()
    state = make_state((16, 16), grid=(1, 1), batch=1)
    hits = torch.zeros(16)
    for s in range(800):
        hits[sampler(state, generator=torch.Generator().manual_seed(s)).points[8][0]] += 1
    assert (hits / 800 - 0.25).abs().max() < 4.5 * (0.25 * 0.75 / 800) ** 0.5


def test_oracle_and_gradient_find_what_they_look_for():
    plain = torch.full((1, 3, 32, 32), 0.5)
    wrong, edge = plain.clone(), plain.clone()
    wrong[..., 4:12, 16:24] += 0.2
    edge[..., :, 24:] = 0.9
    oracle = make_sampler("oracle")(State(1, (1, 1), (32, 32), None, wrong, plain, plain)).points
    for r, stride in ((2, 1), (4, 2)):
        w = 32 // stride
        inside = torch.zeros(w, w, dtype=torch.bool)
        inside[4 // stride : 12 // stride, 16 // stride : 24 // stride] = True
        assert set(inside.flatten().nonzero().flatten().tolist()) <= set(oracle[r][0].tolist())
    gradient = make_sampler("gradient")(State(1, (1, 1), (32, 32), None, edge, plain)).points[2][0].tolist()
    assert {y * 32 + x for y in range(32) for x in (23, 24)} <= set(gradient)


def test_oracle_score_is_the_true_error_and_reads_unpadded_truth():
    state = make_state((30, 41), (32, 48))
    score = make_sampler("oracle").score(state)
    assert torch.allclose(score[:, :30, :41], (state.restored[..., :30, :41] - state.sharp).abs().mean(1))
    assert score[:, 30:].abs().sum() == 0 and score[..., 41:].abs().sum() == 0


def test_gradient_score_of_a_ramp_is_its_slope():
    ramp = (torch.arange(16) * 0.01).expand(1, 3, 16, 16)
    score = make_sampler("gradient").score(State(1, (1, 1), (16, 16), None, ramp, ramp))
    assert torch.allclose(score[:, 1:-1, 1:-1], torch.full((1, 14, 14), 0.01), atol=1e-6)


def test_oracle_without_truth_is_a_users_mistake():
    state = make_state()
    with pytest.raises(UserError, match="sharp"):
        make_sampler("oracle")(State(1, (1, 1), (32, 48), None, state.restored, state.blurred))


def test_unknown_names_are_users_mistakes():
    with pytest.raises(UserError, match="sampler"):
        make_sampler("best")
    with pytest.raises(UserError, match="mode"):
        make_sampler("uniform")(make_state(), "bottom")
    with pytest.raises(UserError, match="budget_control"):
        make_sampler("learned", budget_control="none")
    with pytest.raises(UserError, match="pad"):
        make_sampler("uniform")(make_state((30, 48)))


def test_images_do_not_share_points():
    state = make_state(seed=1)
    both = make_sampler("oracle")(state).points[2]
    second = State(1, (2, 1), (32, 48), None, state.restored[1:], state.blurred[1:], state.sharp[1:])
    assert torch.equal(both[[1, 3]], make_sampler("oracle")(second).points[2])


def test_probabilities_sum_to_the_budget_at_every_scale():
    logits = 3 * torch.randn(1, 32, 48, generator=torch.Generator().manual_seed(0))
    for size, budget in (((32, 48), 0.1), ((27, 41), -0.1)):
        state = make_state(size, (32, 48))
        sampling = LearnedSampler(Table(logits), budget=budget)(state, "top")
        assert sampling.map.shape == (2, 32, 48)
        for r, p in sampling.probabilities.items():
            area = [min(max(size[0] - top, 0), 16) * size[1] for top in (0, 0, 16, 16)]
            assert torch.allclose(p.sum((1, 2)), (1 + budget) * torch.tensor(area) / r**2, rtol=1e-3)
            assert p.min() >= 0 and p.max() < 1


def test_padding_has_no_probability_and_what_is_cut_by_it_has_its_share():
    sampling = LearnedSampler(Table(torch.full((1, 16, 16), 1e4)), "indicator")(make_state((9, 16), (16, 16), (1, 1)))
    for r, rows in ((2, 9), (4, 5), (8, 3)):
        p = sampling.probabilities[r]
        assert (p[:, rows:] == 0).all() and (p[:, :rows] > 0).all()
    # Of the last row of cells of 4x4 pixels a quarter is real.
    assert torch.allclose(sampling.probabilities[8][:, 2], torch.tensor(0.25), atol=1e-5)


def test_full_candidates_keep_the_count_on_every_pixel():
    state = make_state()
    sampler = LearnedSampler(Table(torch.randn(1, 32, 48)), candidates="full")
    sampling = sampler(state, "top")
    for r in (2, 4, 8):
        assert sampling.probabilities[r].shape == (4, 16, 48)
        assert torch.allclose(sampling.probabilities[r].sum((1, 2)), torch.full((4,), 16 * 48 / r**2), rtol=1e-3)
        assert (sampling.points[r] >= 0).sum(1).tolist() == [16 * 48 // r**2] * 4


def test_draws_keep_the_budget():
    state = make_state((128, 128), grid=(1, 1), batch=1)
    logits = 2 * torch.randn(1, 128, 128, generator=torch.Generator().manual_seed(0))
    sampler = LearnedSampler(Table(logits))
    rng = torch.Generator().manual_seed(1)
    drawn = {r: [] for r in (2, 4, 8)}
    for _ in range(100):
        sampling = sampler(state, "draw", rng)
        for r in drawn:
            drawn[r].append(sampling.drawn(r).item())
            assert sampling.drawn(r).item() == (sampling.points[r] >= 0).sum().item()
    for r, numbers in drawn.items():
        numbers, p = torch.tensor(numbers).double(), sampling.probabilities[r].double()
        budget, deviation = 128 * 128 / r**2, (p * (1 - p)).sum().sqrt().item()
        assert (numbers - budget).abs().max() < 4 * deviation
        assert abs(numbers.mean().item() / budget - 1) < 0.01


def test_drawn_points_are_where_the_actions_are():
    sampling = make_sampler("learned", 4)(make_state(), "draw")
    for r, actions in sampling.actions.items():
        for row, action in zip(sampling.points[r], actions):
            assert row[row >= 0].tolist() == action.flatten().nonzero().flatten().tolist()


def test_too_many_draws_are_dropped_and_counted():
    state = make_state((32, 32), grid=(1, 1), batch=1)
    sampling = LearnedSampler(Table(torch.full((1, 32, 32), 1e4)), "indicator")(state, "draw")
    # Everything is drawn: 1024 of 256, with room for 8 * sqrt(256 * 0.75) more.
    assert sampling.drawn(2).item() == 1024 and sampling.kept(2).item() == 256 + 111
    assert sampling.statistics()["dropped_r2"].item() == 1024 - 367
    assert sampling.statistics()["log_ratio_r2"].item() == pytest.approx(math.log(4))
    assert torch.isfinite(sampling.probabilities[2].log()).all()


def test_pretraining_draws_flat_whatever_the_sampler():
    state = make_state((128, 128), grid=(1, 1), batch=1)
    seeded = [torch.Generator().manual_seed(0) for _ in NAMES]
    drawn = [make_sampler(name, 4, 0.2)(state, "pretrain", rng) for name, rng in zip(NAMES, seeded)]
    assert all(torch.equal(d.points[2], drawn[0].points[2]) for d in drawn)
    assert abs(drawn[0].drawn(2).item() - 0.3 * 16384) < 5 * (0.3 * 0.7 * 16384) ** 0.5
    # One half of the image gets as many as the other.
    rows = drawn[0].points[2][0] // 128
    assert abs((rows < 64).sum() - (rows >= 64).sum()) < 5 * (0.3 * 0.7 * 16384) ** 0.5


@pytest.mark.parametrize("name", NAMES)
def test_another_budget_is_kept_by_the_same_sampler(name):
    state, sampler = make_state(), make_sampler(name, 4)
    sampler.use_budget(0.2)
    check_points(sampler(state, "top"), state, 0.2, exact=True)
    assert sampler(state, "pretrain").map.mean().item() == pytest.approx(0.3)
    if name == "learned":
        assert sampler(state, "draw").map.mean().item() == pytest.approx(0.3, abs=1e-5)
    with pytest.raises(UserError, match="budget"):
        sampler.use_budget(-1.0)


def test_training_mode_draws_and_evaluation_ranks():
    state = make_state()
    sampler = make_sampler("learned", 4)
    assert sampler.train()(state).actions and not sampler.eval()(state).actions


def test_patches_of_a_stage_are_budgeted_one_by_one():
    logits = torch.zeros(1, 32, 16)
    logits[:, 16:] = 5  # the lower half is far harder
    sampling = LearnedSampler(Table(logits), scales=(1, 2))(make_state((32, 16), grid=(2, 1)), "top")
    assert list(sampling.points) == [2]
    assert (sampling.points[2] >= 0).sum(1).tolist() == [64] * 4


def test_half_precision_logits_keep_the_budget():
    state = make_state()

    def half(state):
        return torch.randn(2, 32, 48).bfloat16()

    module = nn.Module()
    module.forward = half
    p = LearnedSampler(module)(state, "top").probabilities[2]
    assert p.dtype == torch.float32 and torch.allclose(p.sum((1, 2)), torch.full((4,), 192.0), atol=0.01)


def test_extreme_logits_give_finite_gradients():
    for control in ("calibrated", "indicator"):
        logits = torch.where(torch.rand(1, 32, 48, generator=torch.Generator().manual_seed(0)) < 0.5, 1e4, -1e4)
        table = Table(logits)
        sampling = LearnedSampler(table, control)(make_state(), "draw")
        for r, p in sampling.probabilities.items():
            assert torch.isfinite(torch.where(sampling.actions[r], p, 1 - p).log()).all()
        taken = [torch.where(sampling.actions[r], p, 1 - p) for r, p in sampling.probabilities.items()]
        sum(q.log().sum() for q in taken).backward()
        assert table.logits.grad.isfinite().all()


def test_the_mask_shows_the_points_where_they_are():
    """What the pictures show must be what the stage refined, patch by patch."""
    network_state = make_state(size=(16, 16))
    sampling = make_sampler("random", seed=3)(network_state, "top")
    for scale, points in sampling.points.items():
        mask = sampling.mask(scale)
        assert mask.shape == network_state.blurred[:, 0].shape
        stride, rows = sampling.strides[scale], 16 // network_state.grid[0] // sampling.strides[scale]
        cols = 16 // network_state.grid[1] // stride
        for p, row in enumerate(points.tolist()):
            place, image = divmod(p, 2)
            top, left = place // network_state.grid[1] * rows, place % network_state.grid[1] * cols
            inside = mask[image, top * stride : (top + rows) * stride, left * stride : (left + cols) * stride]
            assert sorted(i for i in row if i >= 0) == inside[::stride, ::stride].flatten().nonzero().flatten().tolist()
