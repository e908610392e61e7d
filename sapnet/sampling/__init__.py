"""Sampled points, samplers and the policy."""
