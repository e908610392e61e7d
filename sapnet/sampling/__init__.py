"""Where to spend the expensive modules: points, samplers, policy."""
