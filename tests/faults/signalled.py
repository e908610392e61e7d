"""Runs a command that sends itself a signal: `python signalled.py MOMENT STEP SIGNAL COMMAND ARGUMENTS...`.

Moments: `step` (in the middle of generator step STEP, between the generator's optimizer and what follows), `log` (after
its checkpoint would have been written, before its metrics are logged), `validation` (in the first batch of the
validation after STEP steps), `loading` (while PyTorch is imported), `evaluation` (at the first image at the end).
"""

import os
import runpy
import signal
import sys


def send(signum: int) -> None:
    # Twice, as a terminal and a parent process may do.
    os.kill(os.getpid(), signum)
    os.kill(os.getpid(), signum)


def before(owner: object, name: str, signum: int, when=lambda *_: True) -> None:
    """Send the signal at the first call of a function for which `when` holds."""
    plain, sent = getattr(owner, name), []

    def function(*arguments, **more):
        if not sent and when(*arguments):
            sent.append(True)
            send(signum)
        return plain(*arguments, **more)

    setattr(owner, name, function)


class Finder:
    """Sends the signal when torch is looked for."""

    def __init__(self, signum: int):
        self.signum = signum

    def find_spec(self, name, path=None, target=None):
        if name == "torch._C":
            send(self.signum)


def prepare(moment: str, step: int, signum: int) -> None:
    if moment == "loading":
        sys.meta_path.insert(0, Finder(signum))
        return
    from sapnet.evaluation import runner
    from sapnet.training import policy_gradient_module, restoration_module

    module = restoration_module.RestorationModule
    if moment == "step":
        between = lambda self, number: self.generator_steps == step - 1 and number == 1  # noqa: E731
        before(policy_gradient_module.PolicyGradientModule, "is_active", signum, between)
    elif moment == "log":
        from pytorch_lightning.trainer.connectors.logger_connector import _LoggerConnector

        count = lambda self: self.trainer.lightning_module.generator_steps == step  # noqa: E731
        before(_LoggerConnector, "update_train_step_metrics", signum, count)
    elif moment == "validation":
        before(module, "validation_step", signum, lambda self, *_: self.generator_steps == step)
    elif moment == "evaluation":
        before(runner, "evaluate_image", signum)
    else:
        raise ValueError(moment)


if __name__ == "__main__":
    moment, step, name, command, *words = sys.argv[1:]
    sys.argv = ["sapnet", command, *words]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    prepare(moment, int(step), getattr(signal, name))
    runpy.run_module("sapnet", run_name="__main__", alter_sys=True)
