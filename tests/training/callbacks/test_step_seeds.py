"""Seeds of training steps and validations."""

import torch

from sapnet.training.callbacks.step_seeds import StepSeeds, step_seed
from tests.training.two_optimizers import TwoOptimizers, fit


class TrainingDraws(TwoOptimizers):
    """Records a random number of each step."""

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


def test_draws_depend_only_on_seed_and_step() -> None:
    """A validation in between must not change them."""
    drawn = []
    for seed, every in ((0, 1.0), (0, 0.5), (1, 1.0)):
        torch.manual_seed(every > 0.9)
        module = TrainingDraws()
        fit(module, max_epochs=2, callbacks=[StepSeeds(seed)], val_check_interval=every, enable_progress_bar=False)
        drawn.append(module.drawn)
    assert len(set(drawn[0].values())) == len(drawn[0]) == 8
    assert drawn[0] == drawn[1]
    assert not set(drawn[0].values()) & set(drawn[2].values())


class ValidationDraws(TwoOptimizers):
    """Records a random number of each validation batch."""

    def __init__(self):
        super().__init__()
        self.drawn: list[float] = []

    def validation_step(self, batch, batch_idx):
        self.drawn.append(torch.rand(()).item())
        super().validation_step(batch, batch_idx)


def test_draws_of_a_validation_do_not_depend_on_earlier_draws() -> None:
    """A resumed run may start with the validation."""
    drawn = []
    for initial_seed in (0, 1):
        module = ValidationDraws()
        torch.manual_seed(initial_seed)
        options = {"num_sanity_val_steps": 0, "enable_progress_bar": False}
        fit(module, callbacks=[StepSeeds(0)], **options)
        drawn.append(module.drawn)
    assert drawn[0] == drawn[1] and len(set(drawn[0])) == len(drawn[0]) == 2
