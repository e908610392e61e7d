"""Draws `docs/layers.svg`, the packages of sapnet in the order of their imports: `python docs/scripts/layers.py`."""

from html import escape
from pathlib import Path

#: From the top: packages side by side, each with what it holds.
ROWS = (
    (("cli", "one file a command: compose, call, report"),),
    (("reporting", "tables, figures and documents from results files"),),
    (("training", "modules, losses, policy gradient, callbacks, loggers"),),
    (("evaluation", "metrics, result files, studies"),),
    (("checkpoints", "checkpoint files, rebuilding networks, transferring weights"),),
    (("models", "whole networks"), ("data", "pairs, crops, loaders,")),
    (("sampling", "samplers, policy, plug-in"), ("", "published sets,")),
    (("layers", "attention, filter, canvases, patches"), ("", "generated scenes")),
    (("ops", "the filter at points: C++ and PyTorch"), ("", "")),
)
BESIDE = "errors, files, provenance: used everywhere"
LEFT, WIDTH, HEIGHT, GAP = 20, 640, 52, 14
HALF = (WIDTH - GAP) // 2


def box(x: int, y: int, width: int, height: int, title: str, lines: list[str]) -> list[str]:
    """Return a box with a title and lines below it."""
    middle = x + width // 2
    parts = [f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="#f3f5f9" stroke="#5b6b8c"/>']
    parts.append(f'<text x="{middle}" y="{y + 21}" font-weight="bold">{escape(title)}</text>')
    parts += [f'<text x="{middle}" y="{y + 40 + 17 * i}">{escape(line)}</text>' for i, line in enumerate(lines)]
    return parts


def drawing() -> str:
    """Return the SVG."""
    parts, step = [], HEIGHT + GAP
    for i, row in enumerate(ROWS):
        y = LEFT + i * step
        width = WIDTH if len(row) == 1 else HALF
        for j, (name, text) in enumerate(row):
            if name == "data":
                lines = [text, *(ROWS[k][1][1] for k in range(i + 1, len(ROWS)) if ROWS[k][1][1])]
                parts += box(LEFT + HALF + GAP, y, HALF, (len(ROWS) - i) * step - GAP, name, lines)
            elif name:
                parts += box(LEFT + j * (HALF + GAP), y, width, HEIGHT, name, [text])
        if i:
            x = LEFT + HALF // 2
            parts.append(f'<path d="M{x} {y - GAP} v{GAP - 4}" stroke="#5b6b8c" marker-end="url(#down)"/>')
    bottom = LEFT + len(ROWS) * step
    parts.append(f'<text x="{LEFT + WIDTH // 2}" y="{bottom + 8}" font-style="italic">{escape(BESIDE)}</text>')
    size = f"{WIDTH + 2 * LEFT} {bottom + 24}"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" font-family="sans-serif" font-size="13"'
        ' text-anchor="middle" fill="#1d2433">'
    )
    arrow = (
        '<defs><marker id="down" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#5b6b8c"/></marker></defs>'
    )
    background = f'<rect width="{WIDTH + 2 * LEFT}" height="{bottom + 24}" fill="#ffffff"/>'
    return "\n".join([head, arrow, background, *parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    Path(__file__).parents[1].joinpath("layers.svg").write_text(drawing())
