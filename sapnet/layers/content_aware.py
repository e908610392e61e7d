"""The content-aware processing module and its residual block (Sec. 3.2, Fig. 3, Eq. 19-20)."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sapnet.layers.attention import ClusterAttention, FullAttention
from sapnet.layers.filtering import PixelDependentFilter
from sapnet.layers.windows import PointWindows
from sapnet.ops import backend
from sapnet.ops.attention import attend_and_fuse
from sapnet.ops.heads import Head, apply_heads
from sapnet.ops.points import gather, overwrite, put, scatter, take


@dataclass(frozen=True)
class ContentAwareOptions:
    """Options of Table 4 and variants of Sec. 4.3; the defaults are the paper's final network.

    A disabled part has no parameters.

    Attributes:
        self_attention: *SA*.
        cross_attention: *CA*, from encoder to decoder; off: only the additive skip connection.
        cross_level_attention: *CLA*, from the previous stage; off: that stage's features are added.
        masks: *Mask*, `M_S` and `M_C` of Eq. 16.
        kernel: *V* of Eq. 17.
        offsets: *Delta* of Eq. 17.
        kernel_size: `K`.
        max_offset: `Delta_max` in canvas pixels.
        depthwise: Literal Eq. 18 instead of a full filter weight.
        normalisation: `softmax`, `elu_unnormalised` (the paper's wording, -0.15 dB) or `elu_normalised`, see
            `sapnet.layers.attention.ClusterAttention`. `elu` in earlier checkpoints means `elu_normalised`.
        full_attention: Standard softmax attention at the lowest resolution, and none elsewhere, instead of *SA*.
        fusion: `mask` (Eq. 20), or `add` or `concat` of the two branches.
        full_size_q: Whether `Q` is computed from the whole canvas of a non-uniform stage instead of its regular grid.
    """

    self_attention: bool = True
    cross_attention: bool = True
    cross_level_attention: bool = True
    masks: bool = True
    kernel: bool = True
    offsets: bool = True
    kernel_size: int = 5
    max_offset: float = 8.0
    depthwise: bool = False
    normalisation: str = "softmax"
    full_attention: bool = False
    fusion: Literal["mask", "add", "concat"] = "mask"
    full_size_q: bool = False

    def __post_init__(self):
        if self.normalisation == "elu":
            object.__setattr__(self, "normalisation", "elu_normalised")


def regrid(canvas: Float[Tensor, "b h w c"], height: int, width: int) -> Float[Tensor, "b h2 w2 c"]:
    """Resample a canvas to a grid n times coarser or finer by taking every n-th position or repeating each one.

    Raises:
        ValueError: The sizes are not related by one integer n for height and width.
    """
    size = tuple(canvas.shape[1:3])
    if size == (height, width):
        return canvas
    coarser, finer = size[0] // height, height // size[0]
    if size == (coarser * height, coarser * width):
        return canvas[:, ::coarser, ::coarser]
    if (finer * size[0], finer * size[1]) == (height, width):
        return canvas.repeat_interleave(finer, dim=1).repeat_interleave(finer, dim=2)
    raise ValueError(f"a canvas of {size[0]}x{size[1]} has no regular grid of {height}x{width}")


class ContentAware(nn.Module):
    """Global attention and a local filter in parallel, fused at each position (Eq. 20).

    Args:
        channels: Channels `C`.
        options: Options of the module.
        cross: Whether the module has cross-attention, which is added to self-attention.
        lowest: Whether this is the lowest resolution, the only one with attention if `full_attention` is set.
    """

    def __init__(self, channels: int, options: ContentAwareOptions, cross: bool, lowest: bool):
        super().__init__()
        if options.full_attention:
            self.self_attention = FullAttention(channels) if lowest else None
            self.cross_attention = FullAttention(channels) if cross and lowest else None
        else:
            attention = (channels, options.masks, options.normalisation)
            self.self_attention = ClusterAttention(*attention) if options.self_attention else None
            self.cross_attention = ClusterAttention(*attention) if cross else None
        self.filter = PixelDependentFilter(
            channels, options.kernel_size, options.kernel, options.offsets, options.max_offset, options.depthwise
        )
        attends = self.self_attention is not None or self.cross_attention is not None
        self.fusion = options.fusion if attends else "none"
        if self.fusion == "mask":
            self.f_fus = nn.Linear(channels, 1)
        elif self.fusion == "concat":
            self.f_fus = nn.Linear(2 * channels, channels)

    def forward(
        self,
        canvas: Float[Tensor, "b h w c"],
        values: Float[Tensor, "b l c"],
        points: Int64[Tensor, "b l"] | None,
        grid: Float[Tensor, "b h2 w2 c"],
        source: Float[Tensor, "b h2 w2 c"] | None,
        windows: PointWindows | None = None,
    ) -> Float[Tensor, "b l c"]:
        """Return `Y_GL` at the points.

        Args:
            canvas: `X`, from which the filter reads its taps.
            values: `X_nu`, the canvas at the points.
            points: Raster indices; None: every position.
            grid: `X_u`, the regular grid from which global information is pooled.
            source: Features that cross-attention pools, on the same grid; unused without cross-attention.
            windows: Windows of attention; None: global attention.
        """
        heads = self._heads()
        outputs = apply_heads(values, heads.values(), self.filter.max_offset) if heads else []
        output_of = dict(zip(heads, outputs, strict=True))
        local = self.filter(canvas, values, points, outputs[: len(self.filter.heads)])
        if self.fusion == "none":
            return local
        if self._can_fuse(values, windows):
            branches = [
                getattr(self, name).branch(None if name == "self_attention" else source, output_of[name])
                for name in self._attentions()
            ]
            return attend_and_fuse(grid, local, output_of["fusion"], branches)
        parts = []
        for name in self._attentions():
            p = {"p": output_of[name]} if name in output_of else {}
            pooled = grid if name == "self_attention" else source
            parts.append(getattr(self, name)(values, grid, pooled, windows, **p))
        attended = sum(parts[1:], parts[0])
        if self.fusion == "add":
            return attended + local
        if self.fusion == "concat":
            return self.f_fus(torch.cat([attended, local], dim=-1))
        # In mixed precision only the filter is computed in float32.
        return torch.lerp(local, attended.to(local.dtype), output_of["fusion"].to(local.dtype))

    def _attentions(self) -> list[str]:
        return [name for name in ("self_attention", "cross_attention") if getattr(self, name) is not None]

    def _can_fuse(self, values: Tensor, windows: PointWindows | None) -> bool:
        # The compiled kernel supports only the default attention: softmax, both masks, one global window, mask fusion.
        if self.fusion != "mask" or windows is not None or values.numel() == 0:
            return False
        default = all(
            isinstance(a, ClusterAttention) and a.normalisation == "softmax" and a.mask_space is not None
            for a in (getattr(self, name) for name in self._attentions())
        )
        return default and backend.can_fuse(values)

    def _heads(self) -> dict[str | int, Head]:
        # All heads on the features at the points: those of the filter by number, then the others by name.
        heads: dict[str | int, Head] = dict(enumerate(self.filter.heads))
        for name in self._attentions():
            attention = getattr(self, name)
            if isinstance(attention, ClusterAttention) and attention.normalisation == "softmax":
                heads[name] = Head(attention.f_p, "softmax")
        if self.fusion == "mask":
            heads["fusion"] = Head(self.f_fus, "sigmoid")
        return heads


class ContentAwareBlock(nn.Module):
    """The residual block `x + conv1x1(relu(content_aware(x)))`, on a whole canvas or at points of it.

    With points, the refined features are written back into the canvas (Eq. 3) and all other positions keep their value.
    The weights are the same in both cases.

    Args:
        channels: Channels `C`.
        options: Options of the content-aware module.
        cross: Whether the block has cross-attention.
        lowest: Whether this is the lowest resolution.
        grid_stride: Stride of the regular grid on a canvas with points.
    """

    def __init__(
        self,
        channels: int,
        options: ContentAwareOptions,
        cross: bool = False,
        lowest: bool = False,
        grid_stride: int = 2,
    ):
        super().__init__()
        self.full_size_q, self.grid_stride = options.full_size_q, grid_stride
        self.content_aware = ContentAware(channels, options, cross, lowest)
        self.project = nn.Linear(channels, channels)

    def forward(
        self,
        canvas: Float[Tensor, "b h w c"],
        points: Int64[Tensor, "b l"] | None = None,
        source: Float[Tensor, "b h2 w2 c"] | None = None,
        windows: PointWindows | None = None,
        in_place: bool = False,
        gate: Float[Tensor, "b l"] | None = None,
    ) -> Float[Tensor, "b h w c"]:
        """Refine the canvas.

        Args:
            canvas: Features; in a non-uniform stage with `grid_stride` times the resolution of the regular grid.
            points: Raster indices of the positions to refine; None: all, and the canvas is the regular grid.
            source: Features for cross-attention, at any resolution that `regrid` accepts.
            windows: Windows of attention for this canvas and these points; None: global attention.
            in_place: Whether to write refined points into the canvas itself, if no gradients are needed.
            gate: Factor of each point's update; None: 1. Its gradient at 1 is the first-order value of the point.
        """
        sampled = points is not None
        stride = self._stride(sampled)
        if sampled and stride > 1:
            values, grid, rest = take(canvas, points, stride)
        else:
            values, rest = gather(canvas, points) if sampled else canvas.flatten(1, 2), None
            grid = canvas.contiguous()
        if source is not None:
            source = self.source_grid(source, canvas, sampled)
        update = self.project(torch.relu(self.content_aware(canvas, values, points, grid, source, windows)))
        refined = values + (update if gate is None else gate.unsqueeze(-1) * update)
        if not sampled:
            return refined.view_as(canvas)
        if in_place:
            return overwrite(canvas, refined, points)
        return scatter(canvas, refined, points) if rest is None else put(rest, refined, points)

    def source_grid(
        self, source: Float[Tensor, "b h2 w2 c"], canvas: Float[Tensor, "b h w c"], sampled: bool
    ) -> Float[Tensor, "b h3 w3 c"]:
        """Resample a source to the grid that attention pools, so that several blocks can share the result.

        Args:
            source: Features for cross-attention, as in `forward`; returned unchanged if already on the grid.
            canvas: The canvas to refine.
            sampled: Whether points of the canvas are refined.
        """
        stride = self._stride(sampled)
        return regrid(source, canvas.shape[1] // stride, canvas.shape[2] // stride).contiguous()

    def _stride(self, sampled: bool) -> int:
        return self.grid_stride if sampled and not self.full_size_q else 1
