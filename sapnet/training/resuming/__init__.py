"""Choice of the checkpoint to resume from, and comparison of its configuration with the current one."""
