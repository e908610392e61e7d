"""Measure the variance of the policy gradient for each of its options.

    python -m benchmarks.policy_gradient

No network is trained. A toy model replaces the stage: the error of `OP_{k-1}` is 0.02 and up to 0.2 in some regions. A
point reduces the error around it by a Gaussian as wide as its scale, so the effects of neighbouring points overlap. The
policy is the real one with a random last layer and a bias that makes the expected number of points equal to the budget.
The gradient of all its parameters is computed for many draws from the same policy and image, and averaged over images.
"""

import argparse
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.tables import origin_line
from sapnet.markdown import markdown_table
from sapnet.provenance import provenance
from sapnet.sampling.calibration import calibrate
from sapnet.sampling.context import StageContext
from sapnet.sampling.learned import LearnedSampler
from sapnet.sampling.policy import Policy
from sapnet.sampling.sampled_points import SampledPoints
from sapnet.training.gradient_noise import Moments
from sapnet.training.policy_gradient import policy_loss
from sapnet.training.reward import stage_reward

SCALES = (2, 4, 8)


def gaussian(image: Tensor, sigma: float) -> Tensor:
    """Blur `[b, c, h, w]` by a separable Gaussian."""
    reach = math.ceil(3 * sigma)
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    line = (line / line.sum()).expand(image.shape[1], 1, 1, -1)
    image = F.conv2d(image, line, padding=(0, reach), groups=image.shape[1])
    return F.conv2d(image, line.transpose(2, 3), padding=(reach, 0), groups=image.shape[1])


def toy_state(size: int, rng: torch.Generator) -> StageContext:
    """Return the inputs of the toy model: a smooth image with the error described above."""

    def noise(channels):
        return torch.randn(1, channels, size, size, generator=rng)

    sharp = 0.5 + 0.5 * gaussian(noise(3), 2)
    blobs = (gaussian(noise(1), 5) * 15).sigmoid().pow(3)
    error = (0.02 + 0.18 * blobs) * noise(3).sign()
    restored, blurred = sharp + error, sharp + 1.5 * error
    features = gaussian(torch.cat((blobs, noise(7)), dim=1), 1).movedim(1, -1)
    return StageContext(1, (1, 1), (size, size), features, restored, blurred, sharp)


def toy_stage(state: StageContext, sampling: SampledPoints) -> Tensor:
    """Return `OP_k` of the toy model: the image with the error that remains after sampling."""
    remaining = torch.ones(len(state.blurred), 1, *state.size)
    for scale, actions in sampling.actions.items():
        stride = scale // 2
        drawn = actions.float().repeat_interleave(stride, 1).repeat_interleave(stride, 2)
        remaining = remaining * (1 - 0.8 * gaussian(drawn[:, None], scale / 2))
    return state.sharp + remaining * (state.restored - state.sharp)


def toy_policy(state: StageContext, rng: torch.Generator) -> Policy:
    """Return a random policy whose expected number of points equals the budget."""
    policy = Policy(state.features.shape[-1])
    with torch.no_grad():
        for p in policy.parameters():
            p.copy_(torch.randn(p.shape, generator=rng) / max(p[0].numel(), 1) ** 0.5)
        policy.head.bias.zero_()
        logits = policy(state)
        policy.head.weight.mul_(1 / logits.std())
        logits = policy(state)
        policy.head.bias.add_((calibrate(logits, 0.25) - logits).mean())
    return policy


def gradient(loss: Tensor, policy: nn.Module) -> Tensor:
    """Return the gradients of all parameters as a vector."""
    parts = torch.autograd.grad(loss, list(policy.parameters()), retain_graph=True)
    return torch.cat([p.flatten() for p in parts])


def measure(args: argparse.Namespace) -> dict[tuple[str, str, str], list[dict[str, float]]]:
    """Measure the moments of the gradient and its two parts for every option and image."""
    results: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    for image in range(args.images):
        rng = torch.Generator().manual_seed(args.seed + image)
        state = toy_state(args.size, rng)
        policy = toy_policy(state, rng)
        for control in ("calibrated", "indicator"):
            sampler = LearnedSampler(policy, control, scales=SCALES)
            moments = {
                (b, c, part): Moments()
                for b in ("improvement", "none")
                for c in ("local", "global")
                for part in ("all", "credit", "penalty")
            }
            for _ in range(args.draws):
                sampling = sampler(state, "draw", rng)
                restored = toy_stage(state, sampling)
                for baseline in ("improvement", "none"):
                    reward = stage_reward(restored, state.restored, state.sharp, baseline=baseline)
                    for credit in ("local", "global"):
                        gains = gradient(policy_loss(sampling, reward, credit), policy)
                        pull = torch.zeros_like(gains)
                        if control == "indicator":
                            pull = gradient(policy_loss(sampling, 0 * reward, credit, "indicator"), policy)
                        for part, vector in (("all", gains + pull), ("credit", gains), ("penalty", pull)):
                            moments[baseline, credit, part].add(vector)
            for baseline in ("improvement", "none"):
                for credit in ("local", "global"):
                    both, gains, pull = (moments[baseline, credit, part] for part in ("all", "credit", "penalty"))
                    results.setdefault((baseline, credit, control), []).append(
                        {
                            "variance": both.variance,
                            "signal": both.signal,
                            "credit": gains.mean_square,
                            "penalty": pull.mean_square,
                        }
                    )
    return results


def penalty_slope(args: argparse.Namespace, off: float) -> tuple[float, float, float]:
    """Measure d(objective)/d(shift of all logits) of the penalty for scale 2, a constant map and global credit.

    Args:
        args: Command-line arguments.
        off: Difference of the expected number of points from the budget in standard deviations.

    Returns:
        Mean, standard error, and root mean square of a single draw.
    """
    cells = args.size**2
    deviation = math.sqrt(cells * 0.25 * 0.75)
    share = torch.tensor(0.25 + off * deviation / cells)
    number = 8 * args.draws
    logit = torch.logit(share).expand(number).clone().requires_grad_()
    policy = nn.Module()
    policy.forward = lambda state: logit[:, None, None].expand(-1, args.size, args.size)
    image = torch.zeros(1, 3, args.size, args.size).expand(number, -1, -1, -1)
    sampler = LearnedSampler(policy, "indicator", scales=(2,))
    state = StageContext(1, (1, 1), (args.size, args.size), None, image, image)
    sampling = sampler(state, "draw", torch.Generator().manual_seed(args.seed))
    loss = number * policy_loss(sampling, torch.zeros(number, args.size, args.size), "global", "indicator")
    (slope,) = torch.autograd.grad(-loss, logit)
    return slope.mean().item(), slope.std().item() / number**0.5, slope.square().mean().sqrt().item()


def report(args: argparse.Namespace) -> None:
    """Print the tables."""
    results = measure(args)
    mean = {key: {k: sum(r[k] for r in rows) / len(rows) for k in rows[0]} for key, rows in results.items()}
    least = mean["improvement", "local", "calibrated"]["variance"]
    print(
        f"{origin_line(provenance())}; size {args.size}, {args.images} images, {args.draws} draws,"
        f" seeds {args.seed} to {args.seed + args.images - 1}; scales {SCALES}, budget 0, alpha 1, beta 0.5.\n"
    )
    head = ["baseline", "credit", "budget control", "variance", "against the default"]
    head += ["signal / deviation of one draw", "credit's part, RMS", "penalty's part, RMS"]
    rows = []
    for options, row in mean.items():
        ratio, parts = math.sqrt(row["signal"] / row["variance"]), (row["credit"], row["penalty"])
        variances = f"{row['variance']:.2e}", f"{row['variance'] / least:.3g}"
        rows.append([*options, *variances, f"{ratio:.3f}", *(f"{math.sqrt(part):.2e}" for part in parts)])
    print(markdown_table(head, rows))
    print(
        "\nGradient of the penalty for a common shift of all logits (global credit, scale 2, constant map), by the"
        "\ndifference of the expected number of points from the budget in standard deviations:\n"
    )
    slopes = [[str(off), *(f"{value:.3f}" for value in penalty_slope(args, off))] for off in (-4, -2, 0, 2, 4, 8)]
    print(markdown_table(["deviations", "mean", "standard error", "RMS of one draw"], slopes))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=64, help="side of the images")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--draws", type=int, default=200, help="draws per image")
    parser.add_argument("--seed", type=int, default=0)
    report(parser.parse_args())


if __name__ == "__main__":
    main()
