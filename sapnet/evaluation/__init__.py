"""Image metrics, whole-image evaluation, pictures."""
