"""How a photo is restored: as a whole, in tiles, or not at all, by its size, the memory and the user's choice."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from sapnet.errors import UserError
from sapnet.evaluation.photo_memory import MemoryEstimate, gib, too_large
from sapnet.evaluation.photo_tiles import SMALLEST_TILE, TilePlan, kept_bytes, plan_for_memory, plan_tiles, tile_step


@dataclass(frozen=True)
class Way:
    """How a photo is restored.

    Attributes:
        plan: Its tiles; a single one is the whole photo.
        frugal: Whether freed memory is returned at once.
        reason: Its size, and the memory if that is why it is restored in tiles.
    """

    plan: TilePlan
    frugal: bool = False
    reason: str = ""

    @property
    def pixels(self) -> int:
        """Pixels of the photo."""
        return self.plan.rows.length * self.plan.columns.length

    @property
    def notice(self) -> str:
        """Message printed before a photo is restored in tiles."""
        height, width = self.plan.tile_size
        return f"{self.reason}: restored in {self.plan.number} tiles of {width}x{height}"


@dataclass(frozen=True)
class TileRules:
    """What holds for the tiles of all photos.

    Attributes:
        side: Side that the user chose; 0 for no tiles, None for tiles where the memory needs them.
        smallest: Side of the smallest tile.
        step: Sides and positions are multiples of it.
    """

    side: int | None
    smallest: int
    step: int


def tile_rules(network: nn.Module, side: int | None, window: int | None) -> TileRules:
    """Return the rules for the tiles of a network.

    Args:
        network: The network.
        side: Side that the user chose; 0 for no tiles, None for tiles where the memory needs them.
        window: Side of the windows for attention and sampling; a tile is not smaller.

    Raises:
        UserError: The side does not suit the network or the window.
    """
    step = tile_step(network)
    smallest = -(-max(SMALLEST_TILE, window or 0) // step) * step
    if side and (side < smallest or side % step):
        reason = f" for --window {window}" if window and window > SMALLEST_TILE else ""
        raise UserError(
            f"--tile {side}: give a multiple of {step}, at least {smallest}{reason}, or 0 to restore photos as a whole."
        )
    return TileRules(side, smallest, step)


def choose_way(
    photo: Path,
    size: tuple[int, int],
    rules: TileRules,
    estimate: MemoryEstimate | None,
    available: int | None,
    device: torch.device,
) -> Way:
    """Choose how a photo is restored.

    Args:
        photo: Its file.
        size: Its height and width.
        rules: The rules for tiles.
        estimate: Memory of a forward pass; None if it is not known.
        available: Bytes at hand; None if they are not known.
        device: Device of the network.

    Raises:
        UserError: The photo does not fit into the memory.
    """
    height, width = size
    plan = plan_tiles(height, width, rules.side or None, step=rules.step)
    reason = f"{width}x{height} pixels"
    if estimate is None or available is None:
        return Way(plan, reason=reason)
    kept = kept_bytes(height, width, device)
    needed = estimate.bytes_for(*plan.tile_size) + (kept if plan.number > 1 else 0)
    if needed <= available:
        return Way(plan, needed > available / 2, reason)
    if rules.side is None:
        tiles = plan_for_memory(height, width, estimate, available, kept, rules.smallest, step=rules.step)
        if tiles is not None:
            return Way(tiles, reason=f"{reason} take about {gib(needed)} GiB, {gib(available)} GiB are available")
    raise too_large(photo, height, width, needed, available, rules.side)
