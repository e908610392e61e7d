"""Networks of known memory and time, importable by the measuring process."""

import os
import signal
import time

import torch
from torch import nn


class Allocating(nn.Module):
    """Network that allocates a number of bytes per pixel during the pass."""

    def __init__(self, bytes_per_pixel: int):
        super().__init__()
        self.bytes_per_pixel = bytes_per_pixel

    def forward(self, blurred):
        pixels = blurred.shape[-1] * blurred.shape[-2]
        torch.ones(pixels * self.bytes_per_pixel, dtype=torch.uint8)
        return [blurred]


class Slow(nn.Module):
    """Network of 50 ms with parameters and a buffer."""

    def __init__(self, features: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(features, 4))
        self.register_buffer("table", torch.zeros(features))

    def forward(self, blurred):
        time.sleep(0.05)
        return [blurred]


class Killed(nn.Module):
    """Network that kills its process, as the kernel does when memory runs out."""

    def forward(self, blurred):
        os.kill(os.getpid(), signal.SIGKILL)


class TooLarge(nn.Module):
    """Network that allocates more memory than any machine has."""

    def forward(self, blurred):
        torch.empty(1 << 60, dtype=torch.uint8)


class ReportsConditions(nn.Module):
    """Network that raises an error with the conditions of the pass."""

    def forward(self, blurred):
        threads, gradients = torch.get_num_threads(), torch.is_grad_enabled()
        raise ValueError(f"{threads} threads, gradients: {gradients}, training: {self.training}")
