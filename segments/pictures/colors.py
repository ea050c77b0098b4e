"""Colours by what they mean, in a light and a dark theme; writing on a colour is chosen by contrast."""

from __future__ import annotations

from collections.abc import Mapping

HEAT_STEPS = 8
GAP_STEPS = 7
"""Steps of the two-sided scale; the middle one means "like everybody"."""

_LIGHT_HEAT = ("#f2f6fa", "#dce8f3", "#bfd6ea", "#98bfde", "#6aa2cd", "#4a8bc0", "#25659c", "#134a7c")
_DARK_HEAT = ("#1b232c", "#1d3146", "#204362", "#265a85", "#3373a8", "#4c90c7", "#78b0dd", "#aed2ef")
_LIGHT_GAPS = ("#a8500f", "#d98343", "#f3c9a5", "#f1f3f5", "#b9d3ea", "#5f9acb", "#1f5f99")
_DARK_GAPS = ("#f0a766", "#a85f22", "#5f4027", "#242c35", "#29465f", "#3b78ab", "#86bbe6")

_LIGHT = {
    "paper": "#ffffff",
    "ink": "#1f2933",
    "muted": "#52606d",
    "rule": "#d3d9df",
    "track": "#edf0f3",
    "bar": "#2f6ea5",
    "second": "#7b8794",
    "stay": "#b8c1ca",
    "up": "#2f7fbf",
    "down": "#d0742b",
    "joined": "#3c9a7b",
    "gone": "#8b6fb0",
}
_DARK = {
    "paper": "#12171d",
    "ink": "#e6ebf0",
    "muted": "#a3b0bd",
    "rule": "#3a4652",
    "track": "#222b35",
    "bar": "#5ba3dc",
    "second": "#8794a1",
    "stay": "#56636f",
    "up": "#58a6e0",
    "down": "#e5944c",
    "joined": "#57bd99",
    "gone": "#ab8fd0",
}


def contrast(first: str, second: str) -> float:
    """Return the contrast ratio of two colours written as #rrggbb, from 1 to 21. Source: WCAG 2.2, 1.4.3."""
    light, dark = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def heat_step(share_of_largest: float) -> int:
    """Return the step of the one-sided scale for a value in [0, 1]; nothing at all is step 0 alone."""
    if share_of_largest <= 0:
        return 0
    return min(HEAT_STEPS - 1, 1 + int(share_of_largest * (HEAT_STEPS - 1)))


def gap_step(standard_deviations: float) -> int:
    """Return the step of the two-sided scale: the middle within a quarter, the ends from one and a half on."""
    borders = (0.25, 0.75, 1.5)
    beyond = sum(abs(standard_deviations) >= border for border in borders)
    return GAP_STEPS // 2 + (beyond if standard_deviations > 0 else -beyond)


def _luminance(color: str) -> float:
    parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _theme(plain: Mapping[str, str], heat: tuple[str, ...], gaps: tuple[str, ...]) -> dict[str, str]:
    colors = dict(plain)
    for scale, steps in (("heat", heat), ("gap", gaps)):
        for step, color in enumerate(steps):
            colors[f"{scale}{step}"] = color
            writing = max(("#ffffff", "#10161c"), key=lambda ink: contrast(color, ink))
            colors[f"on-{scale}{step}"] = writing
    return colors


LIGHT = _theme(_LIGHT, _LIGHT_HEAT, _LIGHT_GAPS)
DARK = _theme(_DARK, _DARK_HEAT, _DARK_GAPS)
