"""Markdown tables."""

from collections.abc import Iterable, Sequence


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int | None = None) -> str:
    """Return a Markdown table.

    Args:
        head: Headings of the columns.
        rows: Cells of each row.
        text_columns: Number of columns that are aligned to the left; the others are aligned to the right. By default
            all are aligned to the left.
    """
    count = len(head) if text_columns is None else text_columns
    marks = ["---" if column < count else "---:" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, marks, *rows))
