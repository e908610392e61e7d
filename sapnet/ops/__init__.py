"""The filter at points, the one operator no library gives us."""

from sapnet.ops.operator import adaptive_filter

__all__ = ["adaptive_filter"]
