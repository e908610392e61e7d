"""Randomness that needs no state."""

import torch

from sapnet.training.resuming import StepRandomness, step_seed
from tests.training.two_optimizers import TwoOptimizers, fit


class Draws(TwoOptimizers):
    """Notes what each step would draw."""

    def __init__(self):
        super().__init__()
        self.drawn: dict[int, float] = {}

    def training_step(self, batch, batch_idx):
        self.drawn[self.generator_steps] = torch.rand(()).item()
        super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        torch.rand(3)
        super().validation_step(batch, batch_idx)


def test_seeds_differ_by_seed_step_and_process() -> None:
    seeds = {step_seed(seed, step, rank) for seed in range(12) for step in range(120) for rank in range(3)}
    assert len(seeds) == 12 * 120 * 3 and all(0 <= seed < 2**56 for seed in seeds)


def test_draws_depend_on_the_step_and_not_on_what_drew_before() -> None:
    """Without it, a run resumed after a step repeats the first draws; here not even a validation changes them."""
    drawn = []
    for seed, every in ((0, 1.0), (0, 0.5), (1, 1.0)):
        torch.manual_seed(every > 0.9)
        module = Draws()
        fit(module, max_epochs=2, callbacks=[StepRandomness(seed)], val_check_interval=every, enable_progress_bar=False)
        drawn.append(module.drawn)
    assert len(set(drawn[0].values())) == len(drawn[0]) == 8
    assert drawn[0] == drawn[1]
    assert not set(drawn[0].values()) & set(drawn[2].values())


class ValidationDraws(TwoOptimizers):
    """Notes what each validation would draw."""

    def __init__(self):
        super().__init__()
        self.drawn: list[float] = []

    def validation_step(self, batch, batch_idx):
        self.drawn.append(torch.rand(()).item())
        super().validation_step(batch, batch_idx)


def test_a_validation_draws_the_same_whatever_came_before() -> None:
    """So that a resumed run may do it first, where the run before it was stopped in it."""
    drawn = []
    for before in (0, 1):
        module = ValidationDraws()
        torch.manual_seed(before)
        options = {"num_sanity_val_steps": 0, "enable_progress_bar": False}
        fit(module, callbacks=[StepRandomness(0)], **options)
        drawn.append(module.drawn)
    assert drawn[0] == drawn[1] and len(set(drawn[0])) == len(drawn[0]) == 2
