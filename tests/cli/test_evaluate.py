"""Names of published networks in result lines."""

import hydra
from hydra.core.hydra_config import HydraConfig

from sapnet.cli.evaluate import network_name
from sapnet.configs import CONFIG_DIR


def test_the_name_of_a_published_network_contains_its_settings(monkeypatch):
    overrides = ["network=mimo_unet", "weights=w.pkl", "network.dropout=0.2"]
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = hydra.compose("evaluate", overrides, return_hydra_config=True)
    monkeypatch.setattr(HydraConfig, "get", lambda: config.hydra)
    assert network_name() == "network=mimo_unet network.dropout=0.2"
