"""Study of a policy: agreement of its map with the blur and the error, and PSNR against control samplers."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from scipy.stats import rankdata, spearmanr
from torch import Tensor
from tqdm import tqdm

from sapnet.evaluation.metrics import psnr
from sapnet.evaluation.statistics import paired_interval
from sapnet.models.adaptive_network import AdaptiveNetwork, Trace
from sapnet.sampling.samplers import make_sampler

#: Samplers without training. `extent` needs the blur extent of every image.
CONTROLS = ("uniform", "random", "gradient", "oracle", "extent")


def rank_correlation(score: Tensor, truth: Tensor) -> float:
    """Compute Spearman's rank correlation over pixels; NaN if one of the maps is constant."""
    first, second = score.flatten().numpy(), truth.flatten().numpy()
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(cast(Any, spearmanr(first, second)).statistic)


def auc_of_hardest(score: Tensor, truth: Tensor, share: float = 0.25) -> float:
    """Compute the area under the ROC curve of a score as a detector of the pixels with the largest truth.

    Args:
        score: Score of each pixel.
        truth: Truth of each pixel.
        share: Share of pixels to detect: those above the `1 - share` quantile of the truth. The default is the share
            that the budget b = 0 samples.

    Returns:
        The area; 0.5 is chance. NaN if no pixel is above the quantile.
    """
    values, ranks = truth.flatten().numpy(), rankdata(score.flatten().numpy())
    hard = values > np.quantile(values, 1 - share)
    positives, negatives = int(hard.sum()), int((~hard).sum())
    if not positives:
        return float("nan")
    # The Mann-Whitney statistic; ties count half. `scipy.stats.mannwhitneyu` warns if all scores are equal.
    return float((ranks[hard].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def agreement(walk: Trace, item: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Compare two scores with two truths for each sampled stage of one image.

    The scores are the map that the points were chosen from and the image gradient of `OP_{k-1}`. The truths are the
    error of `OP_{k-1}` and the blur extent, if the data provides it.
    """
    rows = []
    height, width = item["sharp"].shape[-2:]
    for stage, sampling in walk.sampled_points.items():
        state = walk.contexts[stage]
        before = state.restored[0, :, :height, :width].cpu()
        truths = {"error": (before - item["sharp"]).abs().mean(dim=0)}
        if "extent" in item:
            truths["extent"] = item["extent"][0]
        scores = {"map": sampling.map, "gradient": make_sampler("gradient").score(state)}
        for (score_name, score), (truth_name, truth) in ((s, t) for s in scores.items() for t in truths.items()):
            score = score[0, :height, :width].detach().float().cpu()
            rows.append(
                {
                    "stage": stage + 1,
                    "score": score_name,
                    "truth": truth_name,
                    "rank_correlation": rank_correlation(score, truth),
                    "auc": auc_of_hardest(score, truth),
                }
            )
    return rows


@torch.no_grad()
def study(
    network: AdaptiveNetwork,
    items: Iterable[Mapping[str, Any]],
    device: torch.device,
    controls: Sequence[str] = CONTROLS,
) -> dict[str, list[dict[str, Any]]]:
    """Compare the sampler of a trained network with control samplers at the same budget.

    Args:
        network: Network in evaluation mode.
        items: Test images.
        device: Device for the computation.
        controls: Names of the control samplers.

    Returns:
        Plain data with these keys. `agreement`: means over images by stage, score and truth. `samplers`: mean PSNR by
        sampler, and the gain of the network's own sampler over it with its paired 95% interval. `inference`: for a
        learned sampler, mean PSNR with the top `L` points, with dithered points and with drawn points as in training.
    """
    scores: dict[tuple, list] = defaultdict(list)
    values: dict[str, list[float]] = defaultdict(list)
    own, trained, inference = network.sampler, network.samplers, network.inference
    items = list(items)
    extents = all("extent" in item for item in items)
    for name in dict.fromkeys((own, *(name for name in controls if extents or name != "extent"))):
        if name != own:
            network.use_sampler(name, inference="top")
        network.to(device)
        for item in tqdm(items, desc=f"sampler {name}", unit="image", disable=None, leave=False):
            images = {key: item[key][None].to(device) for key in ("blurred", "sharp", "extent") if key in item}
            walk = network.trace(**images, mode=network.inference)
            values[name].append(float(psnr(walk.outputs[-1].cpu(), item["sharp"][None])))
            for row in agreement(walk, item) if name == own else ():
                scores[row["stage"], row["score"], row["truth"]].append((row["rank_correlation"], row["auc"]))
    network.samplers, network.sampler, network.inference = trained, own, inference
    return {
        "agreement": [mean_agreement(key, values) for key, values in scores.items()],
        "samplers": _gains(values, own),
        "inference": _by_inference(network, items, device),
    }


def _by_inference(
    network: AdaptiveNetwork, items: Sequence[Mapping[str, Any]], device: torch.device
) -> list[dict[str, Any]]:
    if network.sampler != "learned":
        return []
    table = []
    for mode in ("top", "dither", "draw"):
        rng = torch.Generator().manual_seed(0)
        outputs = [network.trace(item["blurred"][None].to(device), mode=mode, rng=rng).outputs for item in items]
        values = [float(psnr(o[-1].cpu(), item["sharp"][None])) for o, item in zip(outputs, items, strict=True)]
        table.append({"inference": mode, "psnr": float(np.mean(values))})
    return table


def mean_agreement(key: tuple, scores: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Average rank correlation and AUC over images.

    Args:
        key: Stage (from 1), score and truth.
        scores: Rank correlation and AUC of each image.
    """
    stage, score, truth = key
    table = np.array(scores)
    finite = np.isfinite(table).all(axis=1)
    correlation, auc = table[finite].mean(axis=0) if finite.any() else (float("nan"),) * 2
    spread = table[finite, 1].std(ddof=1) / np.sqrt(finite.sum()) if finite.sum() > 1 else float("nan")
    return {
        "stage": stage,
        "score": score,
        "truth": truth,
        "images": int(finite.sum()),
        "rank_correlation": float(correlation),
        "auc": float(auc),
        "auc_standard_error": float(spread),
    }


def _gains(values: Mapping[str, Sequence[float]], own: str) -> list[dict[str, Any]]:
    table = []
    for name, psnrs in values.items():
        gain = paired_interval(np.subtract(values[own], psnrs))
        table.append(
            {"sampler": name, "psnr": float(np.mean(psnrs)), "own_gain_db": gain.mean, "ci95": [gain.low, gain.high]}
        )
    return table


def as_markdown(result: Mapping[str, Sequence[Mapping[str, Any]]], own: str) -> str:
    """Return the study as Markdown tables."""
    lines = [
        "| stage | score | against | rank correlation | AUC (± s.e.) | images |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["agreement"]:
        lines.append(
            f"| {row['stage']} | {own if row['score'] == 'map' else 'gradient'} | {row['truth']} "
            f"| {row['rank_correlation']:+.3f} | {row['auc']:.3f} ± {row['auc_standard_error']:.3f} | {row['images']} |"
        )
    lines += ["", f"| points chosen by | PSNR dB | {own} minus it, 95% interval |", "| --- | --- | --- |"]
    for row in result["samplers"]:
        low, high = row["ci95"]
        gain = "" if row["sampler"] == own else f"{row['own_gain_db']:+.3f} [{low:+.3f}, {high:+.3f}]"
        lines.append(f"| {row['sampler']} | {row['psnr']:.3f} | {gain} |")
    if result["inference"]:
        lines += ["", "| points of the map | PSNR dB |", "| --- | --- |"]
        lines += [f"| {row['inference']} | {row['psnr']:.3f} |" for row in result["inference"]]
    return "\n".join(lines)
