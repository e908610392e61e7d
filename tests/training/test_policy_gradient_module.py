import copy
import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from sapnet.models.adaptive_network import AdaptiveNetwork
from sapnet.models.sapnet import SAPNet
from sapnet.training.losses import StageLoss
from sapnet.training.policy_gradient import PolicySettings
from sapnet.training.policy_gradient_module import PolicyGradientModule
from sapnet.training.restoration_module import RestorationModule
from sapnet.training.schedules import halving, one_cycle

ROOT = Path(__file__).parents[2]
Adam = functools.partial(torch.optim.Adam, lr=1e-3)


class Pairs(Dataset):
    """Twelve generated pairs whose blur is a shift."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        sharp = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(index))
        return {"blurred": (sharp + sharp.roll(3, -1)) / 2, "sharp": sharp, "name": f"{index:06d}"}


def generator(**changes) -> SAPNet:
    return SAPNet(**{"stem": 4, "channels": (4, 4, 4), "encoder_blocks": 1, "decoder_blocks": 1} | changes)


def adaptive(sampler="learned", **settings) -> PolicyGradientModule:
    torch.manual_seed(0)
    network = AdaptiveNetwork(generator(sampled=True), sampler)
    for stage in network.generator.stages:
        torch.nn.init.normal_(stage.head.weight, std=0.05)
    return PolicyGradientModule(network, StageLoss(), Adam, **settings)


def fit(module, steps=4, **settings) -> pl.Trainer:
    trainer = pl.Trainer(
        max_epochs=1,
        limit_train_batches=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        **settings,
    )
    trainer.fit(module, DataLoader(Pairs(), 2), DataLoader(Pairs(), 4))
    return trainer


def moved(before, after) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(before, after.parameters(), strict=True))


def copies(part):
    return copy.deepcopy(list(part.parameters()))


def test_the_policy_learns_after_the_pretraining():
    module = adaptive(policy=PolicySettings(pretrain=0.5), steps=6)
    policy, network = copies(module.network.samplers), copies(module.network.generator)
    fit(module, 3)
    assert moved(network, module.network.generator) and not moved(policy, module.network.samplers)
    fit(module, 2)
    assert moved(policy, module.network.samplers)


def test_generator_steps_do_not_count_the_policy_steps():
    module = adaptive()
    trainer = fit(module, 4)
    assert module.generator_steps == 4 and trainer.global_step == 8


@pytest.mark.parametrize("schedule", [one_cycle, functools.partial(halving, every=2)])
def test_the_policy_has_a_relative_learning_rate(schedule):
    """The ratio to the generator's rate is constant over the schedule, also after a resume."""
    module = adaptive(policy=PolicySettings(rate=0.1), steps=10)
    module.make_scheduler = schedule
    optimizers, schedulers = module.configure_optimizers()
    for step in range(8):
        generator_rate, policy_rate = (optimizer.param_groups[0]["lr"] for optimizer in optimizers)
        assert policy_rate == pytest.approx(0.1 * generator_rate), step
        for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
            optimizer.step()
            scheduler.step()
        if step == 4:
            resumed, previous = adaptive(policy=PolicySettings(rate=0.1), steps=10), [*optimizers, *schedulers]
            resumed.make_scheduler = schedule
            optimizers, schedulers = resumed.configure_optimizers()
            for new, old in zip([*optimizers, *schedulers], previous, strict=True):
                new.load_state_dict(old.state_dict())


@pytest.mark.parametrize("warm_start", ["none", "error"])
def test_the_first_policy_update_is_bounded_by_its_learning_rate(warm_start):
    """With Adam moments of zero gradients or of the imitation loss it would be several times larger."""
    rate, waiting = 1e-2, 200
    settings = PolicySettings(pretrain=waiting / (waiting + 1), warm_start=warm_start)
    module = adaptive(policy=settings, steps=waiting + 1)
    module.make_optimizer, before = functools.partial(torch.optim.Adam, lr=rate), []

    def skip_to_the_end_of_pretraining(batch, batch_idx):
        # Give Adam the moments of many steps with gradients of another scale.
        before[:] = copies(module.network.samplers)
        module.generator_steps = waiting if batch_idx == 1 else 0
        for state in module.trainer.optimizers[1].state.values():
            state["step"] += waiting
            state["exp_avg"].fill_(1.0)
            state["exp_avg_sq"].fill_(1e-12)

    module.on_train_batch_start = skip_to_the_end_of_pretraining
    trainer = fit(module, 1)
    assert bool(trainer.optimizers[1].state) == (warm_start == "error"), "Adam has a state only after a warm start"
    fit(module, 2)
    largest = max(
        float((a - b).detach().abs().max()) for a, b in zip(before, module.network.samplers.parameters(), strict=True)
    )
    assert module.generator_steps == waiting + 1 and 0 < largest <= rate * 1.001


def test_the_schedule_of_the_policy_starts_after_the_pretraining():
    module = adaptive(policy=PolicySettings(pretrain=0.5), steps=8)
    module.make_scheduler = one_cycle
    rates = []
    module.on_train_batch_start = lambda *_: rates.append([o.param_groups[0]["lr"] for o in module.trainer.optimizers])
    fit(module, 6)
    generator_rates, policy_rates = zip(*rates, strict=True)
    assert len(set(policy_rates[:5])) == 1 and policy_rates[5] > policy_rates[4]
    assert len(set(generator_rates)) == 6


def test_each_loss_has_gradients_only_for_its_own_parameters():
    """Both losses share one backward pass."""
    module = adaptive().train()
    batch = next(iter(DataLoader(Pairs(), 2)))
    torch.manual_seed(1)
    total, _ = module.losses(batch)
    joint = torch.autograd.grad(total, list(module.network.generator.parameters()))
    torch.manual_seed(1)
    walk = module.network.trace(batch["blurred"], batch["sharp"])
    restoration, _ = module.restoration_loss(walk.outputs, batch["sharp"])
    policy = list(module.network.samplers.parameters())
    assert all(g is None for g in torch.autograd.grad(restoration, policy, allow_unused=True, retain_graph=True))
    expected = torch.autograd.grad(restoration, list(module.network.generator.parameters()))
    torch.testing.assert_close(joint, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("sampler", ["uniform", "random", "gradient", "oracle"])
def test_controls_train_with_one_optimizer(sampler):
    module = adaptive(sampler)
    before = copies(module.network.generator)
    fit(module, 2)
    assert len(module.parameter_groups()) == 1 and moved(before, module.network.generator)


def test_logged_metrics():
    module = adaptive()
    trainer = fit(module, 2)
    names = set(trainer.callback_metrics)
    for name in ("loss_1", "loss_3", "reward_2", "improvement_3", "dropped_r8_3"):
        assert f"train/{name}" in names
    for name in ("log_ratio_r2_2", "entropy_2", "over_budget_r2_2"):
        assert f"train/{name}" in names
    for name in ("train/grad_norm_generator", "train/grad_norm_policy", "lr_generator", "lr_policy"):
        assert name in names
    assert {"val/psnr", "val/psnr_draw", "val/psnr_1", "val/psnr_input"} <= names


def test_training_lowers_the_loss():
    torch.manual_seed(0)
    module = RestorationModule(generator(), StageLoss(), functools.partial(torch.optim.Adam, lr=5e-3))
    batch = next(iter(DataLoader(Pairs(), 8)))
    before = module.losses(batch)[0].item()
    for _ in range(5):
        fit(module, 6)
    assert module.losses(batch)[0].item() < 0.97 * before


def test_a_checkpoint_restores_the_step_count(tmp_path):
    module = adaptive()
    module.network_config = {"_target_": "sapnet.models.adaptive_network.AdaptiveNetwork"}
    trainer = fit(module, 2)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    resumed = adaptive()
    resumed.on_load_checkpoint(torch.load(tmp_path / "a.ckpt", weights_only=True))
    assert resumed.generator_steps == 2


@pytest.mark.slow
def test_two_processes_end_with_the_same_parameters(tmp_path):
    """DDP averages the gradients of generator and policy, in the pretraining and in the joint training."""
    code = f"""
import sys, torch
sys.path.insert(0, {str(ROOT)!r})
from tests.training.test_policy_gradient_module import adaptive, fit
from sapnet.training.policy_gradient import PolicySettings
module = adaptive(policy=PolicySettings(pretrain=0.5), steps=4)
start = [p.detach().clone() for p in module.parameters()]
trainer = fit(module, 3, devices=2, strategy="ddp")
torch.save([start, list(module.parameters())], {str(tmp_path)!r} + f"/rank{{trainer.global_rank}}.pt")
"""
    script = tmp_path / "train.py"
    script.write_text(code)
    process = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    (start, first), (_, second) = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert sum(not torch.equal(a, b) for a, b in zip(start, first, strict=True)) > len(start) * 0.9


@pytest.mark.parametrize("sampler", ["learned", "predicted_error"])
@pytest.mark.parametrize("stagewise", [(), (0, 0.3, 0.6)])
@pytest.mark.parametrize(
    "policy", [{}, {"pretrain": 0.3}, {"pretrain": 0.3, "warm_start": "error"}, {"pretrain": 0.25, "settle": 0.45}]
)
def test_steps_taken_equals_the_number_of_active_steps(sampler, stagewise, policy):
    module = PolicyGradientModule(
        AdaptiveNetwork(generator(sampled=True), sampler),
        StageLoss(),
        Adam,
        steps=37,
        stagewise=stagewise,
        policy=PolicySettings(**policy),
    )
    taken = [0, 0]
    for step in range(37):
        module.generator_steps = step
        assert [module.steps_taken(number) for number in (0, 1)] == taken, step
        taken = [count + module.is_active(number) for number, count in enumerate(taken)]


def test_a_wrong_number_of_optimizers_or_schedules_raises_before_a_step():
    for change in ("parameter_groups", "lr_schedulers"):
        module = adaptive()
        module.make_scheduler = one_cycle
        before = copies(module.network)
        if change == "parameter_groups":
            module.configure_optimizers = lambda module=module: [Adam(module.network.parameters())]
        else:
            module.lr_schedulers = lambda plain=module.lr_schedulers: plain()[:1]
        with pytest.raises(ValueError, match="zip"):
            fit(module, 1)
        assert not moved(before, module.network)
