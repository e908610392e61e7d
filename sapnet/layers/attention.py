"""Linear attention by a cluster of spatial maps: Sec. 3.2.2 and 3.2.3, Eq. 10-16."""

from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sapnet.errors import UserError
from sapnet.layers.canvas import MapConv
from sapnet.layers.windows import PointWindows, tokens
from sapnet.ops.attention import Branch

Normalisation = Literal["softmax", "elu_normalised", "elu_unnormalised"]


class ClusterAttention(nn.Module):
    """Global information gathered by ``C_2`` spatial maps and handed out per position (Eq. 16).

    Step 1 pools the *source* under each map of ``Q``, a softmax over space; step 2 lets each position choose among
    the ``C_2`` pooled descriptors by ``P``, a softmax over the maps. Two matrix products; no ``HW x HW`` matrix.
    Values come from the source, all decisions (``Q``, ``P``, ``M_S``, ``M_C``) from the receiver: with
    ``source = receiver`` it is self-attention, with encoder features cross-attention between encoder and decoder,
    with the previous stage's features cross-level attention.

    With windows, step 1 and the mean behind ``M_C`` are taken over each window alone, and a position chooses among the
    descriptors of its own window; ``M_S``, a convolution, sees across their borders.

    Args:
        channels: Width ``C`` of receiver and source.
        masks: Whether ``M_S`` and ``M_C`` of Eq. 16 exist (off: Eq. 15).
        normalisation: Of ``Q`` over space and of ``P`` over the maps: ``softmax``, or ``elu + 1`` in its place, the
            variant of Sec. 4.3. ``elu_unnormalised`` is the paper's wording, by which elu does not normalise: divided
            by the constant number of positions (or maps) alone. ``elu_normalised`` divides by the sum, as the work that
            the paper follows there does.

    Raises:
        UserError: Unknown normalisation.
    """

    def __init__(self, channels: int, masks: bool = True, normalisation: Normalisation = "softmax"):
        super().__init__()
        if normalisation not in get_args(Normalisation):
            known = ", ".join(get_args(Normalisation))
            raise UserError(f"network.options.normalisation={normalisation}: use one of {known}.")
        maps = max(1, channels // 2)
        self.normalisation = normalisation
        self.f_q = nn.Linear(channels, maps)
        self.f_p = nn.Linear(channels, maps)
        self.mask_space = MapConv(channels) if masks else None
        self.mask_channels = nn.Linear(channels, channels) if masks else None

    def forward(
        self,
        points: Float[Tensor, "b l c"],
        grid: Float[Tensor, "b h w c"],
        source: Float[Tensor, "b h w c"],
        windows: PointWindows | None = None,
        p: Float[Tensor, "b l maps"] | None = None,
    ) -> Float[Tensor, "b l c"]:
        """Attend.

        Args:
            points: The receiver's features at the positions to be refined (``X_nu``; all positions in a uniform stage).
            grid: The receiver's features on the regular grid (``X_u``), from which ``Q`` and the masks are made.
            source: The features to be pooled, on the same grid.
            windows: Those of the canvas that the points lie on; None: one global window.
            p: `P`, where it was predicted beside other heads; None: predicted from the points.
        """
        seen = tokens(grid, windows)
        # Maps before positions: normalised along memory, not across it.
        q = self._normalise(self.f_q(seen).transpose(1, 2).contiguous())
        if self.mask_space is not None:
            # (M_S * X) Q^T = X (M_S * Q)^T, and Q is half as wide as X.
            q = q * tokens(torch.sigmoid(self.mask_space(grid)), windows).transpose(1, 2)
        # [b, C_2, C], of each window
        pooled = q @ (seen if source is grid else tokens(source, windows))
        if self.mask_channels is not None:
            pooled = pooled * torch.sigmoid(self.mask_channels(seen.mean(dim=1))).unsqueeze(1)
        if p is None:
            p = self._normalise(self.f_p(points))
        return p @ pooled if windows is None else windows.ungroup(windows.group(p) @ pooled)

    def branch(self, source: Float[Tensor, "b h w c"] | None, p: Float[Tensor, "b l maps"]) -> Branch:
        """What the compiled operator needs of this attention; only with masks and softmax.

        Args:
            source: The features to be pooled; None: the grid.
            p: `P`, predicted beside other heads.
        """
        layers = cast(tuple[MapConv | nn.Linear, ...], (self.f_q, self.mask_space, self.mask_channels))
        return Branch(source, p, *(parameter for layer in layers for parameter in (layer.weight, layer.bias)))

    def _normalise(self, logits: Tensor) -> Tensor:
        if self.normalisation == "softmax":
            return logits.softmax(-1)
        positive = F.elu(logits) + 1
        if self.normalisation == "elu_unnormalised":
            return positive / positive.shape[-1]
        return positive / positive.sum(-1, keepdim=True).clamp_min(torch.finfo(positive.dtype).tiny)


class FullAttention(nn.Module):
    """Standard softmax attention over all pairs of positions (Eq. 8), the costly alternative of Sec. 4.3.

    Takes what :class:`ClusterAttention` takes; for the lowest resolution only: memory grows with ``(HW)^2``.
    """

    def __init__(self, channels: int):
        super().__init__()
        inner = max(1, channels // 2)
        self.query = nn.Linear(channels, inner)
        self.key = nn.Linear(channels, inner)
        self.value = nn.Linear(channels, channels)

    def forward(
        self,
        points: Float[Tensor, "b l c"],
        grid: Float[Tensor, "b h w c"],
        source: Float[Tensor, "b h w c"],
        windows: PointWindows | None = None,
    ) -> Float[Tensor, "b l c"]:
        """Attend from the points to every position of the source, in their own window; the grid is not needed."""
        seen, query = tokens(source, windows), self.query(points)
        if windows is not None:
            query = windows.group(query)
        found = F.scaled_dot_product_attention(query, self.key(seen), self.value(seen))
        return found if windows is None else windows.ungroup(found)
