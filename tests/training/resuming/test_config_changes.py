"""Settings that may change when a training is resumed, in the real configuration."""

from functools import cache
from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf

from sapnet.configs import CONFIG_DIR
from sapnet.errors import UserError
from sapnet.training.resuming.config_changes import changes_since

PATH = Path("last.ckpt")


@cache
def composed(*overrides: str):
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return hydra.compose("train", list(overrides))


def changes(before: list[str], after: list[str], step=100, version=None) -> list[str]:
    from sapnet import __version__

    stored = OmegaConf.to_container(composed(*before), resolve=True)
    metadata = {"config": stored, "generator_steps": step, "version": version or __version__}
    return [str(change) for change in changes_since({"sapnet": metadata}, composed(*after), PATH)]


NU = ["sampling=nu"]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([], [], []),
        ([], ["resume=must", "ckpt_path=x", "init_from=y"], []),
        ([], ["optim.optimizer.lr=0.0005"], ["optim.optimizer.lr: 0.0015 -> 0.0005"]),
        ([], ["optim.clip_norm=null"], ["optim.clip_norm: 0.2 -> null"]),
        ([], ["+optim.optimizer.weight_decay=0.1"], ["optim.optimizer.weight_decay: null -> 0.1"]),
        (
            [],
            ["optim=adam"],
            [
                "optim.optimizer.lr: 0.0015 -> 0.0001",
                "optim.scheduler._target_: sapnet.training.schedules.one_cycle -> sapnet.training.schedules.halving",
                "optim.scheduler.warm_up: 0.12 -> null",
                "optim.clip_norm: 0.2 -> null",
                "optim.scheduler.every: null -> 200000",
            ],
        ),
        ([], ["steps=2000"], ["steps: 1000 -> 2000"]),
        # Reported once, although the trainer copies it.
        ([], ["validate_every=100"], ["validate_every: 250 -> 100"]),
        ([], ["checkpoint_every=7", "evaluate=false", "study=map"], None),
        ([], ["logger=wandb", "name=x", "tags=[a,b]"], None),
        ([], ["data.workers=2", "data.cache=false", "data.store=/scenes", "data.eval_batch=1", "data.test=4"], None),
        (["data=folder", "data.root=/a"], ["data=folder", "data.root=/b"], ["data.root: /a -> /b"]),
        ([], ["trainer=bf16"], ["trainer.precision: 32-true -> bf16-mixed"]),
        ([], ["trainer.accelerator=cpu", "trainer.log_every_n_steps=1"], None),
        (NU, [*NU, "policy.rate=0.5"], ["policy.rate: 1.0 -> 0.5"]),
        ([], ["++checkpoint_minutes=5", "++evaluate_checkpoint=last"], None),
    ],
)
def test_allowed_changes_are_listed(before, after, expected):
    reported = changes(before, after)
    assert reported == expected if expected is not None else len(reported) > 0


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            [],
            ["loss=mse"],
            r"^loss.kind: l1 -> mse cannot change .*\(last.ckpt, step 100\): use loss.kind=l1, or start",
        ),
        ([], ["seed=1"], r"^seed: 0 -> 1 cannot"),
        ([], ["data.seed=1"], r"^data.seed: 0 -> 1 cannot"),
        (["data.seed=1"], [], r"^data.seed: 1 -> 0 cannot"),
        ([], ["data.batch=4"], r"^data.batch: 8 -> 4 cannot"),
        ([], ["data.train=100"], r"^data.train: 512 -> 100 cannot"),
        (
            [],
            ["data=synthetic_local"],
            r"^data.name: synthetic -> synthetic_local, data.distribution: \S+ -> \S+ cannot",
        ),
        ([], ["data=folder"], r" and \d+ more cannot .*init_from=last.ckpt"),
        ([], ["data=folder", "data.validate_on_test=true"], r"cannot"),
        ([], ["network.stem=5"], r"^network.stem: 16 -> 5 cannot"),
        (
            [],
            ["network.channels=[1,2,3]"],
            r"^network.channels: \[16,24,32\] -> \[1,2,3\] cannot .*use network.channels=\[16,24,32\],",
        ),
        (NU, ["sampling=nu_plus10"], r"^sampling.budget: 0.0 -> 0.1 cannot"),
        (NU, ["sampling=random"], r"^sampling.sampler: learned -> random cannot"),
        (NU, [*NU, "policy.credit=global"], r"^policy.credit: local -> global cannot"),
        ([], ["stagewise=[0,0.5,0.8]"], r"^stagewise: \[\] -> \[0,0.5,0.8\] cannot .*use stagewise=\[\],"),
        (
            [],
            ["optim.optimizer._target_=torch.optim.SGD"],
            r"^optim.optimizer._target_: torch.optim.Adam -> torch.optim.SGD",
        ),
        (
            [],
            ["+optim.optimizer.amsgrad=true"],
            r"^optim.optimizer.amsgrad: null -> true .*use optim.optimizer.amsgrad=null",
        ),
        ([], ["trainer.precision=bf16-true"], r"^trainer.precision: 32-true -> bf16-true cannot"),
        ([], ["trainer.devices=2"], r"^trainer.devices: 1 -> 2 cannot"),
        ([], ["+trainer.overfit_batches=2"], r"^trainer.overfit_batches: null -> 2 cannot"),
    ],
)
def test_other_changes_are_refused(before, after, message):
    with pytest.raises(UserError, match=message) as caught:
        changes(before, after)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("before", "after", "step", "message"),
    [
        ([], ["steps=2000"], 1000, None),
        ([], ["steps=500"], 500, None),
        ([], ["steps=500"], 501, "^steps=500: last.ckpt is already at step 501; use more steps, or steps=1000"),
        # With pretrain=0.2 the policy learns from step 200.
        (NU, ["steps=1500"], 300, None),
        (NU, ["steps=1600"], 300, "^steps: 1000 -> 1600 would return the training at step 300 to a part"),
        ([], ["steps=1600"], 300, None),
        (NU, ["steps=2000"], 1000, None),
        (NU, ["steps=2000"], 100, None),
        (["stagewise=[0,0.4,0.8]"], ["steps=1100"], 450, None),
        (["stagewise=[0,0.4,0.8]"], ["steps=1200"], 450, "to a part that is already complete"),
        (["stagewise=[0,0.4,0.8]"], ["steps=1250"], 1000, None),
    ],
)
def test_another_number_of_steps_must_not_repeat_a_part_of_the_training(before, after, step, message):
    after = [*before, *after]
    if message is None:
        assert len(changes(before, after, step)) == 1
        return
    with pytest.raises(UserError, match=message):
        changes(before, after, step)


def test_keys_of_only_one_version_are_not_compared():
    assert changes([], ["+trainer.overfit_batches=2"], version="0.0.1") == []
    with pytest.raises(UserError, match=r"loss\.kind"):
        changes([], ["loss=mse"], version="0.0.1")


def test_a_checkpoint_without_configuration_is_not_compared():
    metadata = {"generator_steps": 1, "version": "0.0.1"}
    assert changes_since({"sapnet": metadata}, composed(), PATH) is None
