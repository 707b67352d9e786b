"""Charts as SVG that can stand in a page: bars with their confidence intervals, curves of a training run.

Comes in: plain numbers and names. Goes out: SVG text to be put into HTML as it is; ink and grid take the page's own
colours, so the charts follow it into the dark. Drawn with matplotlib's own Figure objects; pyplot and its global
state are not used.
"""

from __future__ import annotations

import hashlib
import io
import re
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Okabe and Ito 2008, the two that are hard to see on white last
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_INK, _GRID = "#010203", "#040506"  # stand-ins, replaced by what the page defines
_ONE_AT_A_TIME = threading.Lock()
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "path.simplify": True,
}


@dataclass(frozen=True)
class Bar:
    """One value with its interval and the cases behind it.

    Attributes:
        name: of the metric.
        value: length of the bar.
        low: lower end of the confidence interval, or None.
        high: its upper end, or None.
        dots: the single cases.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    dots: Sequence[float] = ()


def bar_chart(groups: Mapping[str, Sequence[Bar]], title: str) -> str:
    """Horizontal bars from 0 to 1, one block a group, with whiskers for the interval and a dot for each case."""
    rows = sum(len(bars) for bars in groups.values()) + 1.3 * len(groups)
    figure, axes = _axes(max(1.6, 0.30 * rows + 0.7))
    place, ticks, names = -0.4, [], []
    for number, (group, bars) in enumerate(groups.items()):
        colour = COLOURS[number % len(COLOURS)]
        place += 1.3
        _text(axes, 0.0, place + 0.05, group, weight="bold", ha="left", va="center")
        for bar in bars:
            place += 0.95
            axes.barh(place, bar.value, height=0.56, color=colour, alpha=0.75, linewidth=0)
            if bar.low is not None and bar.high is not None:
                axes.plot([bar.low, bar.high], [place, place], color=_INK, linewidth=1.2, solid_capstyle="butt")
                for end in (bar.low, bar.high):
                    axes.plot([end, end], [place - 0.16, place + 0.16], color=_INK, linewidth=1.2)
            dots = list(bar.dots)[:200]
            axes.scatter(dots, [place] * len(dots), s=7, color=_INK, alpha=0.35, linewidths=0, zorder=3)
            _text(axes, 1.03, place, f"{bar.value:.3f}", ha="left", va="center")
            ticks.append(place)
            names.append(bar.name)
    axes.set_yticks(ticks, labels=names)
    axes.set(xlim=(0, 1), ylim=(place + 0.7, 0.3))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=_GRID, linewidth=0.8)
    return _svg(figure, title)


def curve_chart(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str,
    *,
    across: str,
    up: str,
    height: float = 2.7,
    span: tuple[float, float] | None = None,
) -> str:
    """Lines over one axis; ``curves`` maps names to (x, y); points with no y (None, NaN) leave a gap."""
    figure, axes = _axes(height)
    for number, (name, (x, y)) in enumerate(curves.items()):
        values = [float("nan") if value is None else float(value) for value in y]
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(x, values, color=colour, linewidth=1.6, label=name, marker="o" if len(values) < 3 else None)
    axes.set_xlabel(across, color=_INK)
    axes.set_ylabel(up, color=_INK)
    if span is not None:
        axes.set_ylim(*span)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.margins(x=0.02)
    if len(curves) > 1:
        legend = axes.legend(frameon=False, loc="best", labelcolor=_INK)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return _svg(figure, title)


@contextmanager
def _settings(**more: Any) -> Iterator[None]:
    """Matplotlib's settings and Python's warning filters are the process's own: one thread at a time changes them."""
    settings: dict[Any, Any] = {**_SETTINGS, **more}
    with _ONE_AT_A_TIME, matplotlib.rc_context(settings), warnings.catch_warnings():
        yield


def _axes(height: float) -> tuple[Figure, Any]:
    """An empty figure of 5.6 inches, which a phone still shows at a readable size."""
    with _settings():
        figure = Figure(figsize=(5.6, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_GRID)
    axes.tick_params(colors=_INK, length=0)
    return figure, axes


def _text(axes: Any, x: float, y: float, text: str, **how: Any) -> None:
    axes.text(x, y, text, color=_INK, parse_math=False, clip_on=False, **how)


def _svg(figure: Figure, title: str) -> str:
    """The figure as an <svg> element without prologue, metadata, fixed size or colours of its own for ink and grid."""
    for axes in figure.axes:
        for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            label.set_parse_math(False)
    stream = io.StringIO()
    salt = hashlib.sha256(title.encode()).hexdigest()[:12]
    with _settings(**{"svg.hashsalt": salt}):
        # a script that matplotlib's font lacks is drawn by the reader's browser
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(stream, format="svg", metadata=nothing, transparent=True)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"font(-family)?: [^;\"]*?(?=[;\"])", _font, text)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)  # its rule would reach the whole page
    used = set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", text))
    text = re.sub(r' id="([^"]*)"', lambda m: m.group(0) if m.group(1) in used else "", text)  # charts share one page
    head, body = text.split(">", 1)
    box = re.search(r'viewBox="([^"]*)"', head)
    assert box is not None
    name = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    start = f'<svg class="chart" role="img" aria-label="{name}" viewBox="{box.group(1)}"><title>{name}</title>'
    return start + body.replace(_INK, "currentColor").replace(_GRID, "var(--line)")


def _font(found: re.Match[str]) -> str:
    """Matplotlib's font as the page's: the size and weight stay, the family is inherited."""
    if found.group(1):
        return "font-family: inherit"
    size = re.search(r"([\d.]+)px", found.group(0))
    weight = "; font-weight: 600" if "bold" in found.group(0) or "700" in found.group(0) else ""
    return f"font-size: {size.group(1) if size else 10}px{weight}"
