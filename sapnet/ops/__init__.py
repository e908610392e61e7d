"""The pixel-dependent filter at points, as a custom operator."""

from sapnet.ops.operator import adaptive_filter

__all__ = ["adaptive_filter"]
