"""Pairs of blurred and sharp images: folders, published data sets, synthetic scenes."""
