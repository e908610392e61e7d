"""Types of command-line arguments for argparse."""

import argparse
import contextlib


def pixels(text: str) -> int:
    """Return a positive number of pixels; argparse reports any other text."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number, 1 or more")
    return int(text)


def whole(text: str) -> int:
    """Return a whole number, 0 or more; argparse reports any other text."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: give a whole number, 0 or more")
    return int(text)


def tile(text: str) -> int:
    """Return the side of a tile, 0 for no tiles; argparse reports any other text."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: give a whole number of pixels, or 0 for whole photos")
    return int(text)


def budget(text: str) -> float:
    """Return a budget of points; argparse reports any other text."""
    with contextlib.suppress(ValueError):
        if -1 < float(text) <= 3:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text}: give a number above -1 (no points) and at most 3 (all positions)")
