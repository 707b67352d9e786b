"""Charts of a study: score against what it costs, arms as they learn, a search as it goes on.

Comes in: plain numbers and names. Goes out: ``Chart`` s. An arm keeps its colour and its mark in every chart of a page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hilum.pages.charts import COLOURS, MARKERS, Chart, Ink, name_axes, write

_WIDTH, _HEIGHT = 3.8, 2.8  # three stand side by side
_TICKS = 5
_MARK = {"o": 7.0, "s": 6.5, "^": 7.5, "D": 6.0, "v": 7.5, "P": 7.5}


@dataclass(frozen=True)
class Point:
    """One arm: what it costs, what it reaches (with its interval), and its place in the order of arms."""

    name: str
    place: int
    cost: float
    value: float
    low: float | None = None
    high: float | None = None


def style(place: int) -> tuple[str, str]:
    """Colour and mark of an arm; after six, colours and marks no longer go together, so that all differ."""
    return COLOURS[place % len(COLOURS)], MARKERS[(place + place // len(COLOURS)) % len(MARKERS)]


def cost_chart(points: Sequence[Point], title: str, across: str, up: str) -> Chart:
    """Score over cost, one mark an arm, whiskers for intervals; up and to the left is better.

    Costs that differ more than eightfold stand on a logarithmic axis.
    """

    def draw(axes: Any, ink: Ink) -> None:
        costs = [point.cost for point in points]
        if min(costs) > 0 and max(costs) > 8 * min(costs):
            axes.set_xscale("log")
            ticks = _round_ticks(min(costs), max(costs))
            axes.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
        else:
            axes.locator_params(axis="x", nbins=_TICKS)
        axes.margins(x=0.14, y=0.12)
        for point in points:
            colour, mark = style(point.place)
            if point.low is not None and point.high is not None:
                axes.plot([point.cost] * 2, [point.low, point.high], color=colour, linewidth=1.3, alpha=0.55)
            axes.plot(point.cost, point.value, mark, color=colour, markersize=_MARK[mark], zorder=3)
        _name_points(axes, ink, points)
        name_axes(axes, ink, across, up)
        axes.grid(color=ink.grid, linewidth=0.8)

    return Chart(title, _HEIGHT, draw, _WIDTH)


def learning_chart(
    curves: Mapping[str, tuple[int, Sequence[float], Sequence[float | None]]], title: str, across: str, up: str
) -> Chart:
    """Lines, name -> (the arm's place, x, y), each with its arm's colour and mark."""

    def draw(axes: Any, ink: Ink) -> None:
        for name, (place, x, y) in curves.items():
            colour, mark = style(place)
            values = [float("nan") if value is None else float(value) for value in y]
            every = max(1, len(values) // 5)
            axes.plot(
                x,
                values,
                color=colour,
                linewidth=1.5,
                marker=mark,
                markevery=(place % every, every),
                ms=4.5,
                label=name,
            )
        name_axes(axes, ink, across, up)
        axes.grid(color=ink.grid, linewidth=0.8)
        axes.margins(x=0.02)

    return Chart(title, _HEIGHT, draw)


def search_chart(trials: Sequence[tuple[int, float, str]], title: str, up: str, upwards: bool) -> Chart:
    """Trials in their order: (number, value, state); hollow ones were pruned; the line is the best so far."""

    def draw(axes: Any, ink: Ink) -> None:
        best: list[float] = []
        whole = [(number, value) for number, value, state in trials if state == "complete"]
        for _, value in whole:
            best.append(value if not best else (max if upwards else min)(best[-1], value))
        axes.step([n for n, _ in whole], best, where="post", color=ink.text, linewidth=1.2, alpha=0.7)
        axes.plot([n for n, _ in whole], [v for _, v in whole], "o", color=COLOURS[0], markersize=6)
        cut = [(number, value) for number, value, state in trials if state == "pruned"]
        axes.plot([n for n, _ in cut], [v for _, v in cut], "X", color=COLOURS[1], markersize=6)
        axes.xaxis.get_major_locator().set_params(integer=True)
        name_axes(axes, ink, "trial", up)
        axes.grid(color=ink.grid, linewidth=0.8)
        axes.margins(0.06)

    return Chart(title, _HEIGHT, draw)


def share_chart(shares: Mapping[str, float], title: str, across: str) -> Chart:
    """Horizontal bars of shares that sum to 1, the largest on top."""
    ordered = sorted(shares.items(), key=lambda item: item[1])

    def draw(axes: Any, ink: Ink) -> None:
        places = range(len(ordered))
        axes.barh(places, [share for _, share in ordered], height=0.6, color=COLOURS[0], alpha=0.8)
        axes.set_yticks(list(places), labels=[name for name, _ in ordered])
        for place, (_, share) in zip(places, ordered, strict=True):
            write(axes, ink, share + 0.02, place, f"{share:.2f}", ha="left", va="center")
        axes.set_xlim(0, max(1e-9, *(share for _, share in ordered)) * 1.2)
        axes.set_xlabel(across, color=ink.text, parse_math=False)
        axes.grid(axis="x", color=ink.grid, linewidth=0.8)

    return Chart(title, max(1.5, 0.4 * len(ordered) + 0.8), draw)


def _name_points(axes: Any, ink: Ink, points: Sequence[Point]) -> None:
    """Names beside their marks, moved up or down until none covers another."""
    if len(points) > 8:  # the page's legend names them
        return
    axes.autoscale_view()
    box = axes.get_window_extent()
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    log = axes.get_xscale() == "log"
    size = 8.5
    high = size * 1.25 * axes.figure.dpi / 72
    placed: list[tuple[float, float, float]] = []
    for point in sorted(points, key=lambda one: -one.value):
        across = _share(point.cost, left, right, log)
        x, y = box.width * across, box.height * (point.value - bottom) / (top - bottom)
        to_right = across < 0.62
        wide = 0.62 * high * len(point.name) * 0.75
        start = x + 8 if to_right else x - 8 - wide
        while any(abs(y - other) < high and start < end and begin < start + wide for begin, end, other in placed):
            y -= high / 4
        placed.append((start, start + wide, y))
        write(
            axes,
            ink,
            (x + (8 if to_right else -8)) / box.width,
            y / box.height,
            point.name,
            ha="left" if to_right else "right",
            va="center",
            fontsize=size,
            transform=axes.transAxes,
        )


def _share(value: float, left: float, right: float, log: bool) -> float:
    import math

    if log:
        value, left, right = (math.log(max(x, 1e-12)) for x in (value, left, right))
    return (value - left) / (right - left)


def _round_ticks(least: float, most: float) -> list[float]:
    """1, 2, 5, 10, ... that span the values, at most seven."""
    import math

    first, last = math.floor(math.log10(least)), math.ceil(math.log10(most))
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [digit * 10.0**power for power in range(first, last + 1) for digit in digits]
        inside = [tick for tick in ticks if least / 1.6 <= tick <= most * 1.6]
        if len(inside) <= 7:
            break
    return inside
