"""Enumeration of all actions of a small map, for exact expectations."""

import itertools

import torch
from torch import nn

from sapnet.training.policy_gradient import log_probability


class Table(nn.Module):
    """A policy with separate logits for every image of a batch."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, context):
        return self.logits


def enumerate_actions(sampling):
    """Return all actions of all scales of one image, as a batch."""
    shapes = {r: p.shape[1:] for r, p in sampling.probabilities.items()}
    count = sum(s.numel() for s in shapes.values())
    every = torch.tensor(list(itertools.product((False, True), repeat=count)))
    parts = every.split([s.numel() for s in shapes.values()], dim=1)
    return {r: part.view(-1, *shape) for (r, shape), part in zip(shapes.items(), parts, strict=True)}


def joint_probability(sampling, actions):
    """Return the probability of each action, with gradient."""
    p = torch.ones((), dtype=torch.float64)
    for r, a in actions.items():
        p = p * log_probability(sampling.probabilities[r].expand(len(a), -1, -1), a).exp().flatten(1).prod(1)
    return p
