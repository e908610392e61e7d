"""Networks, one file or folder each; nothing here knows Lightning or Hydra."""
