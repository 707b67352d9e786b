"""Charts that can stand in a page and on paper: bars with their confidence intervals, curves of a training run.

Comes in: plain numbers and names. Goes out: ``Chart`` s, which become SVG text to be put into HTML as it is (ink and
grid take the page's own colours, so the charts follow it into the dark) or files for a paper (SVG, and PNG at 300 dpi,
on white). Drawn with matplotlib's own Figure objects; pyplot and its global state are not used. Other kinds of charts
stand in ``plots.py``.
"""

from __future__ import annotations

import hashlib
import io
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from hilum.files import written

# Okabe and Ito 2008, the two that are hard to see on white last
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")  # colours are never the only difference
DPI = 300
_ONE_AT_A_TIME = threading.Lock()
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "path.simplify": True,
}


@dataclass(frozen=True)
class Ink:
    """Colours of what is written and of the lines behind it."""

    text: str
    grid: str


_PAGE = Ink("#010203", "#040506")  # stand-ins, replaced by what the page defines
_PAPER = Ink("#111111", "#d4d9dc")


@dataclass(frozen=True)
class Chart:
    """A chart before it is drawn.

    Attributes:
        title: what it shows, for those who cannot see it.
        height: in inches.
        draw: draws it on axes, with these colours.
        width: in inches; 5.6 is what a phone still shows at a readable size.
    """

    title: str
    height: float
    draw: Callable[[Any, Ink], None]
    width: float = 5.6

    def svg(self) -> str:
        """As an element of a page."""
        return _svg(self._figure(_PAGE), self.title)

    def write(self, folder: Path, name: str) -> list[Path]:
        """``FOLDER/NAME.svg`` and ``FOLDER/NAME.png``, for a paper."""
        paths = []
        figure = self._figure(_PAPER)
        figure.patch.set(facecolor="white", alpha=1)
        for ending, canvas in (("svg", FigureCanvasSVG), ("png", FigureCanvasAgg)):
            canvas(figure)
            path = folder / f"{name}.{ending}"
            salt = hashlib.sha256(self.title.encode()).hexdigest()[:12]
            nothing = dict.fromkeys(("Creator", "Date", "Format", "Type")) if ending == "svg" else {"Software": None}
            with _settings(**{"svg.hashsalt": salt}), written(path) as part, part.open("wb") as stream:
                warnings.filterwarnings("ignore", message="Glyph .* missing from font")
                figure.savefig(stream, format=ending, dpi=DPI, metadata=nothing)
            paths.append(path)
        return paths

    def _figure(self, ink: Ink) -> Figure:
        figure, axes = _axes(self.width, self.height, ink)
        self.draw(axes, ink)
        for part in figure.axes:
            for label in (*part.get_xticklabels(), *part.get_yticklabels()):
                label.set_parse_math(False)
        return figure


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
    """``bars``, for a page."""
    return bars(groups, title).svg()


def bars(groups: Mapping[str, Sequence[Bar]], title: str) -> Chart:
    """Horizontal bars from 0 to 1, one block a group, with whiskers for the interval and a dot for each case."""
    rows = sum(len(bars) for bars in groups.values()) + 1.3 * len(groups)

    def draw(axes: Any, ink: Ink) -> None:
        place, ticks, names = -0.4, [], []
        for number, (group, row) in enumerate(groups.items()):
            colour = COLOURS[number % len(COLOURS)]
            place += 1.3
            write(axes, ink, 0.0, place + 0.05, group, weight="bold", ha="left", va="center")
            for bar in row:
                place += 0.95
                axes.barh(place, bar.value, height=0.56, color=colour, alpha=0.75, linewidth=0)
                if bar.low is not None and bar.high is not None:
                    axes.plot([bar.low, bar.high], [place, place], color=ink.text, lw=1.2, solid_capstyle="butt")
                    for end in (bar.low, bar.high):
                        axes.plot([end, end], [place - 0.16, place + 0.16], color=ink.text, linewidth=1.2)
                dots = list(bar.dots)[:200]
                axes.scatter(dots, [place] * len(dots), s=7, color=ink.text, alpha=0.35, linewidths=0, zorder=3)
                write(axes, ink, 1.03, place, f"{bar.value:.3f}", ha="left", va="center")
                ticks.append(place)
                names.append(bar.name)
        axes.set_yticks(ticks, labels=names)
        axes.set(xlim=(0, 1), ylim=(place + 0.7, 0.3))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color=ink.grid, linewidth=0.8)

    return Chart(title, max(1.6, 0.30 * rows + 0.7), draw)


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

    def draw(axes: Any, ink: Ink) -> None:
        for number, (name, (x, y)) in enumerate(curves.items()):
            values = [float("nan") if value is None else float(value) for value in y]
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(x, values, color=colour, linewidth=1.6, label=name, marker="o" if len(values) < 3 else None)
        name_axes(axes, ink, across, up)
        if span is not None:
            axes.set_ylim(*span)
        axes.grid(color=ink.grid, linewidth=0.8)
        axes.margins(x=0.02)
        if len(curves) > 1:
            explain(axes, ink)

    return Chart(title, height, draw).svg()


def name_axes(axes: Any, ink: Ink, across: str, up: str) -> None:
    """What the axes mean."""
    axes.set_xlabel(across, color=ink.text, parse_math=False)
    axes.set_ylabel(up, color=ink.text, parse_math=False)


def explain(axes: Any, ink: Ink, where: str = "best", **how: Any) -> None:
    """A legend without a frame; names are text, never formulas."""
    legend = axes.legend(frameon=False, loc=where, labelcolor=ink.text, **how)
    for text in legend.get_texts():
        text.set_parse_math(False)


def write(axes: Any, ink: Ink, x: float, y: float, text: str, **how: Any) -> None:
    """Text at a point, never a formula."""
    axes.text(x, y, text, color=ink.text, parse_math=False, clip_on=False, **how)


@contextmanager
def _settings(**more: Any) -> Iterator[None]:
    """Matplotlib's settings and Python's warning filters are the process's own: one thread at a time changes them."""
    settings: dict[Any, Any] = {**_SETTINGS, **more}
    with _ONE_AT_A_TIME, matplotlib.rc_context(settings), warnings.catch_warnings():
        yield


def _axes(width: float, height: float, ink: Ink) -> tuple[Figure, Any]:
    """An empty figure."""
    with _settings():
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(ink.grid)
    axes.tick_params(colors=ink.text, length=0)
    return figure, axes


def _svg(figure: Figure, title: str) -> str:
    """The figure as an <svg> element without prologue, metadata, fixed size or colours of its own for ink and grid."""
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
    return start + body.replace(_PAGE.text, "currentColor").replace(_PAGE.grid, "var(--line)")


def _font(found: re.Match[str]) -> str:
    """Matplotlib's font as the page's: the size and weight stay, the family is inherited."""
    if found.group(1):
        return "font-family: inherit"
    size = re.search(r"([\d.]+)px", found.group(0))
    weight = "; font-weight: 600" if "bold" in found.group(0) or "700" in found.group(0) else ""
    return f"font-size: {size.group(1) if size else 10}px{weight}"
