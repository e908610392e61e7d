"""Literal implementations of the sampling equations."""

import torch


def sample(x, psi):
    """Apply Eq. 2 pixel by pixel."""
    b, c, h, w = x.shape
    y = x.new_zeros(b, c, psi.shape[1])
    for i in range(b):
        for slot, (px, py) in enumerate(psi[i].tolist()):
            if px >= 0 and py >= 0:
                y[i, :, slot] = x[i, :, min(int(py * h), h - 1), min(int(px * w), w - 1)]
    return y


def restore(y, psi, onto):
    """Apply Eq. 3 pixel by pixel."""
    out = onto.clone()
    b, _, h, w = onto.shape
    for i in range(b):
        for slot, (px, py) in enumerate(psi[i].tolist()):
            if px >= 0 and py >= 0:
                out[i, :, min(int(py * h), h - 1), min(int(px * w), w - 1)] = y[i, :, slot]
    return out


def top_points(scores, count):
    """Return the sorted raster indices of the `count` highest scores of a map `[h, w]`."""
    order = sorted(range(scores.numel()), key=lambda j: -scores.flatten()[j].item())
    return sorted(order[:count])


def calibrated(logits, target, lowest=-1e6, highest=1e6):
    """Compute the probabilities of shifted logits with the sum `target` by bisection in float64."""
    z = logits.double().flatten()
    for _ in range(200):
        middle = (lowest + highest) / 2
        if torch.sigmoid(z + middle).sum() > target:
            highest = middle
        else:
            lowest = middle
    return torch.sigmoid(logits.double() + middle)
