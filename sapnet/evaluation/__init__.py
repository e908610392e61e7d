"""Metrics, whole-image evaluation, network costs, studies of sampled points, and pictures."""
