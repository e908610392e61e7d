"""Measured time of a training step."""

import itertools
from types import SimpleNamespace

import hydra

from sapnet.configs import CONFIG_DIR
from sapnet.training import timing
from tests.integration.conftest import TINY


def test_a_short_load_of_the_machine_does_not_count(monkeypatch):
    """The demo would train for a fraction of its steps."""
    calls = itertools.count()
    # One second per step, and a pause of 100 s within the timed steps of each phase.
    steps_of_phase = timing.WARM_UP + timing.TIMED + 1
    clock = (call + 100 * ((call + 3) // steps_of_phase) for call in calls)
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = hydra.compose("train", [*TINY, "sampling=nu", "stagewise=[0,0.4]", "network.stages=2", "steps=10"])
    assert timing.seconds_per_step(config) == 1
    assert next(calls) == 2 * steps_of_phase
