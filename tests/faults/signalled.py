"""Run a command that sends a signal to itself: `python signalled.py MOMENT STEP SIGNAL COMMAND ARGUMENTS...`.

Moments: `step` (in generator step STEP, between the two optimizers), `log` (after the checkpoint of the step, before
its metrics are logged), `validation` (in the first batch of the validation after STEP steps), `loading` (while PyTorch
is imported), `evaluation` (at the first image of the evaluation after the training).
"""

import os
import runpy
import signal
import sys


def send(signum: int) -> None:
    # Twice, like a terminal and a parent process.
    os.kill(os.getpid(), signum)
    os.kill(os.getpid(), signum)


def send_before(owner: object, name: str, signum: int, when=lambda *_: True) -> None:
    """Send the signal before the first call of a function for which `when` is true."""
    plain, sent = getattr(owner, name), []

    def function(*args, **kwargs):
        if not sent and when(*args):
            sent.append(True)
            send(signum)
        return plain(*args, **kwargs)

    setattr(owner, name, function)


class Finder:
    """Sends the signal when PyTorch is imported."""

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
        between_optimizers = lambda self, number: self.generator_steps == step - 1 and number == 1  # noqa: E731
        send_before(policy_gradient_module.PolicyGradientModule, "is_active", signum, between_optimizers)
    elif moment == "log":
        from pytorch_lightning.trainer.connectors.logger_connector import _LoggerConnector

        at_step = lambda self: self.trainer.lightning_module.generator_steps == step  # noqa: E731
        send_before(_LoggerConnector, "update_train_step_metrics", signum, at_step)
    elif moment == "validation":
        send_before(module, "validation_step", signum, lambda self, *_: self.generator_steps == step)
    elif moment == "evaluation":
        send_before(runner, "evaluate_image", signum)
    else:
        raise ValueError(moment)


if __name__ == "__main__":
    moment, step, name, command, *arguments = sys.argv[1:]
    sys.argv = ["sapnet", command, *arguments]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    prepare(moment, int(step), getattr(signal, name))
    runpy.run_module("sapnet", run_name="__main__", alter_sys=True)
