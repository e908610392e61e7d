"""Lightning modules, losses, policy gradient, callbacks, loggers, resuming."""
