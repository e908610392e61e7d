"""Slow literal transcriptions of the sampling equations."""

import torch


def sample(x, psi):
    """Eq. 2, one pixel after another."""
    b, c, h, w = x.shape
    y = x.new_zeros(b, c, psi.shape[1])
    for i in range(b):
        for slot, (px, py) in enumerate(psi[i].tolist()):
            if px >= 0 and py >= 0:
                y[i, :, slot] = x[i, :, min(int(py * h), h - 1), min(int(px * w), w - 1)]
    return y


def restore(y, psi, onto):
    """Eq. 3, one pixel after another."""
    out = onto.clone()
    b, _, h, w = onto.shape
    for i in range(b):
        for slot, (px, py) in enumerate(psi[i].tolist()):
            if px >= 0 and py >= 0:
                out[i, :, min(int(py * h), h - 1), min(int(px * w), w - 1)] = y[i, :, slot]
    return out


def top_points(scores, count):
    """The `count` highest scores of one map `[h, w]`, as sorted raster indices."""
    order = sorted(range(scores.numel()), key=lambda j: -scores.flatten()[j].item())
    return sorted(order[:count])


def calibrated(logits, target, lowest=-1e6, highest=1e6):
    """Shifted logits' probabilities whose sum is `target`, by plain bisection in float64."""
    z = logits.double().flatten()
    for _ in range(200):
        middle = (lowest + highest) / 2
        if torch.sigmoid(z + middle).sum() > target:
            highest = middle
        else:
            lowest = middle
    return torch.sigmoid(logits.double() + middle)
