"""Parts of an HTML page: escaped text, tables and sections."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any


def text(value: Any) -> str:
    """Return a value as text that HTML shows as it is, also within an attribute."""
    return html.escape(str(value))


def number(value: Any, form: str = ".3f") -> str:
    """Return a number as text; an empty text for None, and ∞ for an infinite one."""
    if value is None:
        return ""
    return f"{value:{form}}" if math.isfinite(value) else str(value).replace("inf", "∞")


def interval(low: float | None, high: float | None, form: str = "+.3f") -> str:
    """Return an interval as text; an empty text if a bound is missing or infinite (the interval of one image)."""
    if low is None or high is None or not math.isfinite(low + high):
        return ""
    return f"[{low:{form}}, {high:{form}}]"


def table(
    columns: Mapping[str, str], rows: Sequence[Sequence[Any]], caption: str, sortable: bool = True, links: bool = False
) -> str:
    """Return a table whose heads are buttons that sort it.

    Args:
        columns: Format of the numbers of each column by its heading; empty for columns of text.
        rows: The cells. None is an empty cell.
        caption: Text above the table.
        sortable: Whether the heads sort.
        links: Whether the first cell of a row links to the part of the page with that heading (`anchor`).
    """
    heads = []
    for heading, form in columns.items():
        name = f'<button type="button">{text(heading)}</button>' if sortable else text(heading)
        order = ' aria-sort="none"' if sortable else ""
        heads.append(f'<th scope="col"{order}{_number_class(form)}>{name}</th>')
    body = []
    for row in rows:
        cells = [_cell(value, form) for value, form in zip(row, columns.values(), strict=True)]
        if links:
            cells[0] = f'<td><a href="#{anchor(row[0])}">{text(row[0])}</a></td>'
        body.append(f"<tr>{''.join(cells)}</tr>")
    kind = ' class="sortable"' if sortable else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(caption)}">'
        f"<table{kind}><caption>{text(caption)}</caption>"
        f"<thead><tr>{''.join(heads)}</tr></thead>\n<tbody>\n" + "\n".join(body) + "\n</tbody></table></div>"
    )


def _number_class(form: str) -> str:
    return ' class="number"' if form else ""


def _cell(value: Any, form: str) -> str:
    if value is None:
        return f"<td{_number_class(form)}></td>"
    if not form or isinstance(value, str):
        return f"<td{_number_class(form)}>{text(value)}</td>"
    # The names of infinite numbers in JavaScript.
    exact = str(float(value)).replace("inf", "Infinity")
    return f'<td class="number" data-value="{exact}">{number(value, form)}</td>'


def anchor(heading: str) -> str:
    """Return the identifier of the part of the page with a heading."""
    return "part-" + "".join(
        letter if letter.isascii() and letter.isalnum() else f"_{ord(letter)}_" for letter in heading
    )


def section(heading: str, *parts: str) -> str:
    """Return a part of the page, to which `anchor` leads."""
    return (
        f'<section id="{anchor(heading)}"><h2>{text(heading)}</h2>\n' + "\n".join(filter(None, parts)) + "\n</section>"
    )


def remark(sentence: str) -> str:
    """Return a sentence that explains what the report does not hold."""
    return f'<p class="remark">{text(sentence)}</p>'


def folded(title: str, content: str) -> str:
    """Return preformatted text that is shown after a click on its title."""
    return f"<details><summary>{text(title)}</summary><pre>{text(content)}</pre></details>"
