"""How far a colour stands out from what is behind it (WCAG 2.2, relative luminance)."""

from __future__ import annotations

Colour = tuple[int, int, int]


def contrast(text: Colour, behind: Colour) -> float:
    """1 for the same colour, 21 for black on white; text that is read needs 4.5, an edge 3."""
    low, high = sorted((_luminance(text), _luminance(behind)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: Colour) -> float:
    parts = [part / 255 for part in colour]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
