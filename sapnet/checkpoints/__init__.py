"""Checkpoint files: safe reading, atomic writing, rebuilding networks, transferring weights."""
