"""Linear attention with a cluster of spatial maps (Sec. 3.2.2 and 3.2.3, Eq. 10-16) and full attention (Eq. 8)."""

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
    """Attention that pools global information with `C_2` spatial maps and distributes it to positions (Eq. 16).

    Step 1 pools the *source* with the weights of each map of `Q`, a softmax over space. Step 2 combines the `C_2`
    pooled descriptors at each position with the weights `P`, a softmax over the maps. These are two matrix products
    without an `HW x HW` matrix. Values come from the source, and `Q`, `P`, `M_S` and `M_C` from the receiver. This is
    self-attention if the source is the receiver, cross-attention if it is the encoder's features, and cross-level
    attention if it is the previous stage's features.

    With windows, step 1 and the mean in `M_C` are computed for each window separately, and a position uses the
    descriptors of its own window. `M_S` is a convolution and is not limited to windows.

    Args:
        channels: Channels `C` of receiver and source.
        masks: Whether `M_S` and `M_C` of Eq. 16 are used (otherwise Eq. 15).
        normalisation: Normalisation of `Q` over space and of `P` over the maps: `softmax`, or `elu + 1` in its place,
            the variant of Sec. 4.3. `elu_unnormalised` follows the wording of the paper, which says that elu does not
            normalise, and divides by the number of positions (or maps). `elu_normalised` divides by the sum, like the
            work cited there.

    Raises:
        UserError: The normalisation is unknown.
    """

    def __init__(self, channels: int, masks: bool = True, normalisation: str = "softmax"):
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
        """Compute the attended features at the points.

        Args:
            points: The receiver's features at the positions to refine (`X_nu`; all positions in a uniform stage).
            grid: The receiver's features on the regular grid (`X_u`), from which `Q` and the masks are computed.
            source: The features to pool, on the same grid.
            windows: Windows of the canvas of the points; None: one global window.
            p: `P`, if it was computed together with other heads; None: computed from the points.
        """
        grid_tokens = tokens(grid, windows)
        # Positions last, so that the normalisation runs over contiguous memory.
        q = self._normalise(self.f_q(grid_tokens).transpose(1, 2).contiguous())
        if self.mask_space is not None:
            # (M_S * X) Q^T = X (M_S * Q)^T, and Q has half as many channels as X.
            q = q * tokens(torch.sigmoid(self.mask_space(grid)), windows).transpose(1, 2)
        # [b, C_2, C] for each window
        pooled = q @ (grid_tokens if source is grid else tokens(source, windows))
        if self.mask_channels is not None:
            pooled = pooled * torch.sigmoid(self.mask_channels(grid_tokens.mean(dim=1))).unsqueeze(1)
        if p is None:
            p = self._normalise(self.f_p(points))
        return p @ pooled if windows is None else windows.ungroup(windows.group(p) @ pooled)

    def branch(self, source: Float[Tensor, "b h w c"] | None, p: Float[Tensor, "b l maps"]) -> Branch:
        """Return the inputs of the compiled operator, which supports only masks and softmax.

        Args:
            source: The features to pool; None: the grid.
            p: `P`, computed together with other heads.
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
    """Standard softmax attention over all pairs of positions (Eq. 8), the expensive alternative of Sec. 4.3.

    It has the interface of `ClusterAttention`. It is used at the lowest resolution only, because its memory grows with
    `(HW)^2`.

    Args:
        channels: Channels of receiver and source.
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
        """Attend from the points to all positions of the source in their own window; the grid is not used."""
        source_tokens, query = tokens(source, windows), self.query(points)
        if windows is not None:
            query = windows.group(query)
        attended = F.scaled_dot_product_attention(query, self.key(source_tokens), self.value(source_tokens))
        return attended if windows is None else windows.ungroup(attended)
