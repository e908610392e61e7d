"""Helpers of the tests of DMPHN and SRN: costs, points without a sampler, and a short training."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from sapnet.models.adaptive_network import AdaptiveNetwork
from sapnet.training.losses import StageLoss
from sapnet.training.policy_gradient_module import PolicyGradientModule
from tests.training.test_policy_gradient_module import Adam, copies, fit, moved


def parameters_and_macs(make) -> tuple[int, float]:
    """Return the parameters and 10^9 multiply-adds at 3x256x256 with one in four positions sampled."""
    with torch.device("meta"):
        network = make()
        blurred = torch.rand(1, 3, 256, 256)
    with FlopCounterMode(display=False) as counter:
        network(*((blurred, choose_as_many(network)) if getattr(network, "sampled_stages", ()) else (blurred,)))
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops() / 2e9


def choose_as_many(network):
    """Return a function that chooses the first L positions of every patch and scale."""

    def choose(context):
        scales = network.scales[context.stage] if isinstance(network.scales, dict) else network.scales
        (height, width), patches = context.blurred.shape[-2:], context.grid[0] * context.grid[1]
        counts = {r: height * width // (patches * r * r) for r in scales}
        device, batch = context.blurred.device, len(context.blurred)
        return {r: torch.arange(n, device=device).expand(patches * batch, -1).contiguous() for r, n in counts.items()}

    return choose


def choose_everything(network):
    """Return a function that chooses every position of every canvas."""

    def choose(context):
        scales = network.scales[context.stage] if isinstance(network.scales, dict) else network.scales
        (height, width), patches = context.blurred.shape[-2:], context.grid[0] * context.grid[1]
        counts = {r: height * width // (patches * (r // 2) ** 2) for r in scales}
        return {r: torch.arange(n).expand(patches * len(context.blurred), -1).contiguous() for r, n in counts.items()}

    return choose


def train_two_steps(network, sampler: str) -> None:
    """Train two steps with the adaptive module; check that all weights change and that metrics are logged."""
    module = PolicyGradientModule(AdaptiveNetwork(network, sampler), StageLoss("mse"), Adam)
    generator, policy = copies(network), copies(module.network.samplers)
    trainer = fit(module, 2)
    assert module.generator_steps == 2 and moved(generator, network)
    stages = [k + 1 for k in network.sampled_stages]
    assert {f"train/improvement_{k}" for k in stages} | {"val/psnr"} <= set(trainer.callback_metrics)
    if sampler == "learned":
        assert moved(policy, module.network.samplers)
        assert {f"train/entropy_{k}" for k in stages} <= set(trainer.callback_metrics)


def idle_parameters(network, *inputs) -> list[str]:
    """Return the names of parameters that do not influence the last output."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    network(*inputs)[-1].square().sum().backward()
    return [n for n, p in network.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
