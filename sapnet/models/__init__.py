"""Networks, one file or folder each; independent of Lightning and Hydra."""
