"""Lock of a run folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_only

from sapnet.errors import UserError
from sapnet.evaluation.claims import Claims


@contextmanager
def lock_run_folder(folder: str | Path) -> Iterator[None]:
    """Lock a run folder so that only one training writes to it. In a distributed training the first process locks it.

    The lock belongs to the process, not to its children, and is released when the process ends for any reason. If the
    folder did not exist before and the block raises an error without writing to it, the folder is removed.

    Raises:
        UserError: Another process is training in this folder.
    """
    if rank_zero_only.rank:
        yield
        return
    lock = Path(folder) / ".training.lock"
    new = not lock.parent.exists()
    with Claims(lock) as claims, claims.claim("training") as locked:
        if not locked:
            raise UserError(
                f"{folder}: another process is training in this folder: wait until it ends and repeat the command, "
                "or use another folder (hydra.run.dir=FOLDER)."
            )
        try:
            yield
        except Exception:
            if new and list(lock.parent.iterdir()) == [lock]:
                lock.unlink()
                lock.parent.rmdir()
            raise
