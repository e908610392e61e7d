"""Networks whose appetite is known, importable by the process that measures them."""

import os
import signal
import time

import torch
from torch import nn


class Hungry(nn.Module):
    """Fills so many bytes for each pixel while it runs, and lets go of them."""

    def __init__(self, bytes_a_pixel: int):
        super().__init__()
        self.bytes_a_pixel = bytes_a_pixel

    def forward(self, blurred):
        pixels = blurred.shape[-1] * blurred.shape[-2]
        torch.ones(pixels * self.bytes_a_pixel, dtype=torch.uint8)
        return [blurred]


class Slow(nn.Module):
    """Takes 50 ms, and has parameters and a buffer."""

    def __init__(self, features: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(features, 4))
        self.register_buffer("table", torch.zeros(features))

    def forward(self, blurred):
        time.sleep(0.05)
        return [blurred]


class Killed(nn.Module):
    """Ends as a process ends that the kernel finds too large."""

    def forward(self, blurred):
        os.kill(os.getpid(), signal.SIGKILL)


class Greedy(nn.Module):
    """Asks for more memory than any machine has."""

    def forward(self, blurred):
        torch.empty(1 << 60, dtype=torch.uint8)


class Tells(nn.Module):
    """Fails with a sentence on how it is run."""

    def forward(self, blurred):
        threads, gradients = torch.get_num_threads(), torch.is_grad_enabled()
        raise ValueError(f"{threads} threads, gradients: {gradients}, training: {self.training}")
