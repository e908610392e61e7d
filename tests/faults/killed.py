"""Run `sapnet train` and send SIGKILL to this process: `python killed.py MOMENT STEP ARGUMENTS...`.

Moments: `step` (after generator step STEP), `write` (in the middle of writing the first checkpoint of STEP steps or
more), `rename` (the new checkpoint is complete but not renamed yet).
"""

import os
import signal
import sys

import sapnet.files
from sapnet.checkpoints import lightning_io
from sapnet.training.callbacks.step_limit import StepLimit


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_after_step(step: int) -> None:
    plain = StepLimit.on_train_batch_end

    def hook(self, trainer, module, *args):
        plain(self, trainer, module, *args)
        if module.generator_steps == step:
            kill()

    StepLimit.on_train_batch_end = hook


def kill_while_writing(step: int, before_rename: bool) -> None:
    plain = lightning_io.AtomicCheckpointIO.save_checkpoint

    def save(self, checkpoint, path, storage_options=None):
        if checkpoint["sapnet"]["generator_steps"] >= step:
            if before_rename:
                sapnet.files.os.replace = lambda *_: kill()
            else:
                lightning_io.write_atomically = write_half
        plain(self, checkpoint, path, storage_options)

    def write_half(path, data):
        sapnet.files.os.fsync = lambda _: kill()
        sapnet.files.write_atomically(path, data[: len(data) // 2])

    lightning_io.AtomicCheckpointIO.save_checkpoint = save


if __name__ == "__main__":
    moment, step, *sys.argv[1:] = sys.argv[1:]
    if moment == "step":
        kill_after_step(int(step))
    else:
        kill_while_writing(int(step), before_rename=moment == "rename")
    from sapnet.cli.train import main

    main()
