"""Runs `python -m sapnet train` and dies by SIGKILL at a given moment: `python killed.py MOMENT STEP ARGUMENTS...`.

Moments: `step` (after generator step STEP), `write` (half-way through writing the first checkpoint of STEP steps or
more), `renamed` (the new checkpoint is beside the old one, complete but not in its place).
"""

import os
import signal
import sys

import sapnet.files
from sapnet.training import checkpoints, progress


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_after_step(step: int) -> None:
    plain = progress.StepLimit.on_train_batch_end

    def hook(self, trainer, module, *more):
        plain(self, trainer, module, *more)
        if module.generator_steps == step:
            die()

    progress.StepLimit.on_train_batch_end = hook


def die_while_writing(step: int, renamed: bool) -> None:
    plain = checkpoints.AtomicCheckpointIO.save_checkpoint

    def save(self, checkpoint, path, storage_options=None):
        if checkpoint["sapnet"]["generator_steps"] >= step:
            if renamed:
                sapnet.files.os.replace = lambda *_: die()
            else:
                checkpoints.write_atomically = half
        plain(self, checkpoint, path, storage_options)

    def half(path, data):
        sapnet.files.os.fsync = lambda _: die()
        sapnet.files.write_atomically(path, data[: len(data) // 2])

    checkpoints.AtomicCheckpointIO.save_checkpoint = save


if __name__ == "__main__":
    moment, step, *sys.argv[1:] = sys.argv[1:]
    if moment == "step":
        die_after_step(int(step))
    else:
        die_while_writing(int(step), renamed=moment == "renamed")
    from sapnet.cli.train import main

    main()
