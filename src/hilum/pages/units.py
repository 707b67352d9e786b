"""Numbers with their units, as the pages print them.

Comes in: numbers. Goes out: text without a word of English (that is in ``strings``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

DASH = "–"


def millimetres(value: float) -> str:
    """``34 mm``; below 10 mm with one decimal."""
    return f"{value:.1f} mm" if value < 9.95 else f"{value:.0f} mm"


def millilitres(value: float) -> str:
    """``0.42 mL``, ``12.3 mL``, ``1523 mL``."""
    return f"{value:.2f} mL" if value < 0.995 else f"{value:.1f} mL" if value < 999.5 else f"{value:.0f} mL"


def millilitre_span(low: float, high: float) -> str:
    """``25–104 mL``, ``0–7.1 mL``."""
    digits = 0 if high >= 99.5 else 1 if high >= 0.995 else 2
    start = f"{low:.{digits}f}" if low > 0.5 * 10**-digits else "0"
    return f"{start}–{high:.{digits}f} mL"


def span(low: str, high: str) -> str:
    """``0.94–0.96``; with room where a minus sign would touch the dash: ``−29.2 – −9.2``."""
    return f"{low} {DASH} {high}" if low.startswith("−") or high.startswith("−") else f"{low}{DASH}{high}"


def percent(value: float) -> str:
    """``+12 %`` with its sign; ``0 %`` has none."""
    return f"{value:+.0f} %".replace("-", "−") if abs(value) >= 0.5 else "0 %"


def joined(values: Sequence[Any]) -> str:
    """``3 × 0.8 × 0.8`` of numbers, ``a, b`` of anything else."""
    if all(isinstance(value, int | float) for value in values):
        return " × ".join(f"{value:.4g}" for value in values)
    return ", ".join(f"({joined(value)})" if isinstance(value, list | tuple) else str(value) for value in values)


def shortened(text: str, most: int = 240) -> str:
    """A text, cut at a length."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
