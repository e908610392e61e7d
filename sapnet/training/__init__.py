"""Losses, LightningModules, tracking, checkpoints."""
