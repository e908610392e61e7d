"""Parameters, multiply-adds and FLOPs of a network by operator and by module, computed from shapes.

PyTorch's counter (`torch.utils.flop_counter`) covers convolutions and matrix products. Formulas for the pixel-dependent
filter (`sapnet.ops.flops`), bilinear interpolation and gathers are added to it. One multiply-add is two FLOPs. As in
the field's other counters, operations without a product over channels are not counted: activations, softmax, sums,
masks, pooling, sorting.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sapnet.models.adaptive_network import AdaptiveNetwork

aten = torch.ops.aten

#: Description of the counter, printed with every count.
COUNTER = "torch.utils.flop_counter, with formulas for the pixel-dependent filter and bilinear readings"


def _bilinear(*shapes: Any, out_shape: Any, **_: Any) -> int:
    return 2 * 4 * math.prod(out_shape)


def _grid_sample(image: Any, grid: Any, interpolation: int, *_: Any, out_shape: Any, **__: Any) -> int:
    # Bilinear, nearest, bicubic.
    return 2 * (4, 0, 16)[interpolation] * math.prod(out_shape)


def _write(target: Any, dim: int, index: Any, values: Any, *_: Any, **__: Any) -> int:
    return math.prod(values if isinstance(values, torch.Size) else index)


def _read(*_: Any, out_shape: Any, **__: Any) -> int:
    return math.prod(out_shape)


_BILINEAR = {
    aten.upsample_bilinear2d: _bilinear,
    aten._upsample_bilinear2d_aa: _bilinear,
    aten.grid_sampler_2d: _grid_sample,
}
# Indexed reads and writes: no arithmetic, but more memory traffic than a convolution.
_MOVES = {aten.index_select: _read, aten.index: _read, aten.gather: _read} | {
    op: _write for op in (aten.index_copy, aten.index_copy_, aten.scatter, aten.scatter_, aten.scatter_add)
}
_NAMES = {
    r"convolution": "convolution",
    r"(add|b|badd)?(mm)": "matrix product",
    r"_scaled_dot_product.*": "attention product",
    r"(_?upsample_bilinear2d.*|grid_sampler_2d)": "bilinear reading",
    r"adaptive_filter": "pixel-dependent filter",
}


@dataclass(frozen=True)
class Cost:
    """The cost of one forward pass.

    Modules are named by their path in the network (`""` is the network itself). Values of a module exclude those of its
    children.

    Attributes:
        parameters: Number of parameters by module.
        flops: FLOPs by module and operator.
        moved: Number of values moved by gathers and scatters, by module.
        height: Rows of the image.
        width: Columns of the image.
    """

    parameters: dict[str, int]
    flops: dict[str, dict[str, int]]
    moved: dict[str, int]
    height: int
    width: int

    @property
    def total_parameters(self) -> int:
        """Number of parameters of the network."""
        return sum(self.parameters.values())

    @property
    def total_flops(self) -> int:
        """FLOPs of the network, two per multiply-add."""
        return sum(sum(operators.values()) for operators in self.flops.values())

    @property
    def gmacs(self) -> float:
        """Multiply-adds of the network in 1e9."""
        return self.total_flops / 2e9

    def by_operator(self) -> dict[str, int]:
        """Return the FLOPs of each operator, most expensive first."""
        total: dict[str, int] = defaultdict(int)
        for operators in self.flops.values():
            for name, flops in operators.items():
                total[name] += flops
        return dict(sorted(total.items(), key=lambda item: -item[1]))

    def grouped(self, key: Callable[[str], str]) -> dict[str, tuple[int, int]]:
        """Return the sums of (parameters, FLOPs) over modules with the same key, in the network's order."""
        table: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for path, number in self.parameters.items():
            table[key(path)][0] += number
        for path, operators in self.flops.items():
            table[key(path)][1] += sum(operators.values())
        return {name: (parameters, flops) for name, (parameters, flops) in table.items() if parameters or flops}


@torch.no_grad()
def count(network: nn.Module, height: int = 256, width: int = 256) -> Cost:
    """Count the operations of one forward pass over one image.

    The network runs in evaluation mode on the device of its parameters. On `meta` (build the network under
    `with torch.device("meta")`) nothing is computed, and any size takes seconds.

    Args:
        network: A network that takes `[1, 3, height, width]`.
        height: Rows of the image.
        width: Columns of the image.
    """
    parameters = {path: 0 for path, _ in network.named_modules()}
    for name, parameter in network.named_parameters():
        parameters[name.rpartition(".")[0]] += parameter.numel()
    device = next((p.device for p in network.parameters()), torch.device("meta"))
    training = network.training
    network.eval()
    counter = FlopCounterMode(display=False, custom_mapping=_BILINEAR | _MOVES)
    counts: Counter[tuple[str, Any]] = Counter()
    seen: Counter[Any] = Counter()

    def attribute(path: str) -> None:
        # PyTorch's counter attributes operations to all active modules, this one only to the innermost.
        now = Counter(counter.get_flop_counts().get("Global", {}))
        counts.update({(path, operator): number for operator, number in (now - seen).items()})
        seen.update(now - seen)

    with counter, InnermostModuleHook(network, attribute):
        image = torch.empty(1, 3, height, width, device=device)
        restore(network, image)
    network.train(training)
    flops: dict[str, dict[str, int]] = {path: {} for path in parameters}
    moved = dict.fromkeys(parameters, 0)
    for (path, operator), number in counts.items():
        if operator in _MOVES:
            moved[path] += number
        else:
            name = _readable_name(operator)
            flops[path][name] = flops[path].get(name, 0) + number
    return Cost(parameters, flops, moved, height, width)


def restore(network: nn.Module, image: Float[Tensor, "b 3 h w"]) -> list[Tensor] | Tensor:
    """Run a network without ground truth; samplers that need it use the image instead."""
    return network(image, image, image[:, :1]) if isinstance(network, AdaptiveNetwork) else network(image)


class InnermostModuleHook:
    """Context that attributes what happens in a forward pass to the innermost active module.

    Args:
        network: The network.
        callback: Called with the path of the innermost active module before another module becomes the innermost:
            everything since the last call happened in this module and not in its children.
    """

    def __init__(self, network: nn.Module, callback: Callable[[str], None]):
        self.network, self.callback = network, callback
        self.active = [""]

    def __enter__(self) -> "InnermostModuleHook":
        """Register the hooks."""
        self.hooks = []
        for path, module in self.network.named_modules():
            self.hooks.append(module.register_forward_pre_hook(lambda *_, path=path: self._switch(path)))
            self.hooks.append(module.register_forward_hook(lambda *_: self._switch(None)))
        return self

    def __exit__(self, *_: Any) -> None:
        """Remove the hooks."""
        for hook in self.hooks:
            hook.remove()

    def _switch(self, path: str | None) -> None:
        self.callback(self.active[-1])
        if path is None:
            self.active.pop()
        else:
            self.active.append(path)


def _readable_name(operator: Any) -> str:
    name = str(operator).split(".")[-1]
    return next((readable for pattern, readable in _NAMES.items() if re.fullmatch(pattern, name)), name)


def path_prefix(path: str, depth: int) -> str:
    """Return the first `depth` names of a module's path, a key that groups modules by their position."""
    return ".".join(path.split(".")[:depth]) or "(itself)"


def layer_pattern(path: str) -> str:
    """Return a module's path with every number replaced by `*`, a key that groups equal layers."""
    return re.sub(r"(?<=\.)\d+(?=\.|$)|^\d+(?=\.|$)", "*", path) or "(itself)"


def operator_table(cost: Cost) -> str:
    """Return the totals, and multiply-adds and FLOPs by operator, as Markdown."""
    lines = [
        f"{cost.total_parameters / 1e6:.3f} M parameters, {cost.gmacs:.2f} GMACs = {cost.total_flops / 1e9:.2f} GFLOPs "
        f"for 3x{cost.height}x{cost.width}; {sum(cost.moved.values()) / 1e6:.1f} M values moved by gathers.",
        f"Counter: {COUNTER}.",
        "",
        "| operator | GMACs | GFLOPs | share |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, flops in cost.by_operator().items():
        lines.append(f"| {name} | {flops / 2e9:.3f} | {flops / 1e9:.3f} | {flops / cost.total_flops:.1%} |")
    return "\n".join(lines)


def module_table(cost: Cost, key: Callable[[str], str], title: str) -> str:
    """Return parameters and multiply-adds as Markdown, one row per group of modules."""
    lines = [f"| {title} | parameters | GMACs | share |", "| --- | ---: | ---: | ---: |"]
    for name, (parameters, flops) in cost.grouped(key).items():
        lines.append(f"| {name} | {parameters:,} | {flops / 2e9:.3f} | {flops / max(cost.total_flops, 1):.1%} |")
    return "\n".join(lines)
