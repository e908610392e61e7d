"""Layers of the content-aware network."""
