"""HTML out of values, escaped unless it was made here: whatever a model is called, it stays text.

`tag` takes text and `Markup`; only `Markup` goes through as it is, and only this module makes it. Must
not know what a page is about.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Container, Iterable, Sequence

VOID = frozenset({"meta", "link", "br"})
LOST = "\N{REPLACEMENT CHARACTER}"


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


NOTHING = Markup("")


def text(value: object) -> Markup:
    """Any value as text. What could hide or reorder its neighbours (controls, bidi marks) shows as a mark of loss."""
    if isinstance(value, Markup):
        return value
    plain = "".join(LOST if _hides(letter) else letter for letter in str(value))
    return Markup(html.escape(plain, quote=True))


def _hides(letter: str) -> bool:
    return letter not in "\n\t\u200d" and unicodedata.category(letter) in ("Cc", "Cf", "Cs")


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """One element. `class_` is `class`, other underscores become hyphens; None and False leave an attribute out."""
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        called = key.rstrip("_").replace("_", "-")
        words.append(called if value is True else f'{called}="{text(value)}"')
    opened = f"<{' '.join(words)}>"
    if name in VOID:
        return Markup(opened)
    return Markup(f"{opened}{''.join(text(child) for child in children)}</{name}>")


def lines(*parts: object) -> Markup:
    """Parts below each other, the empty ones left out."""
    return Markup("\n".join(filter(None, (text(part) for part in parts))))


def table(
    caption: str,
    heading: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    numbers: Container[int],
    marked: int | None = None,
) -> Markup:
    """A table that scrolls in itself where it is too wide; the columns `numbers` (from 0) are set flush right.

    The first column names the row; row `marked` (from 0) is set off.
    """

    def cells(row: Sequence[object]) -> list[Markup]:
        named = tag("th", row[0], scope="row")
        rest = [
            tag("td", value, class_="number" if index in numbers else None)
            for index, value in enumerate(row[1:], start=1)
        ]
        return [named, *rest]

    head = [
        tag("th", word, scope="col", class_="number" if index in numbers else None)
        for index, word in enumerate(heading)
    ]
    body = [
        tag("tr", *cells(row), class_="marked" if index == marked else None)
        for index, row in enumerate(rows)
    ]
    whole = tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", *head)),
        "\n",
        tag("tbody", lines(*body)),
    )
    return tag("div", whole, class_="scroll", role="region", aria_label=caption, tabindex="0")
