"""Colours that people with a colour vision deficiency can tell apart, and their order for labels."""

from __future__ import annotations

OKABE_ITO = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2")
"""Okabe and Ito, Color Universal Design, 2008, without black; those that stand out best on grey come first."""

_LINE_STYLES = ("solid", "dashed", "dotted")


def label_color(rank: int) -> str:
    """Return the colour of the ``rank``-th label; after seven labels the colours come again.

    Example:
        >>> label_color(0), label_color(7)
        ('#E69F00', '#E69F00')
    """
    return OKABE_ITO[rank % len(OKABE_ITO)]


def label_line_style(rank: int) -> str:
    """Return the contour's line style, which tells labels of the same colour apart.

    Example:
        >>> label_line_style(0), label_line_style(7)
        ('solid', 'dashed')
    """
    return _LINE_STYLES[rank // len(OKABE_ITO) % len(_LINE_STYLES)]
