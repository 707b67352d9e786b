"""Charts of evaluations and comparisons: box plots, FROC, reliability, Bland-Altman, differences with intervals.

Comes in: plain numbers and names. Goes out: ``Chart`` s. Colours are Okabe and Ito's, and marks differ in shape too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hilum.pages.charts import COLOURS, MARKERS, Chart, Ink, explain, name_axes, write

_DOTS = 400


def boxes(groups: Mapping[str, Mapping[str, Sequence[float]]], title: str, across: str = "") -> Chart:
    """Horizontal box plots, one block a group: median, quartiles, whiskers to 1.5 of their distance, every case a dot.

    Args:
        groups: group -> name -> values; those that are not finite must have been left out.
        title: of the chart.
        across: what the values are.
    """
    rows = sum(len(row) for row in groups.values()) + 1.3 * len(groups)
    every = [value for row in groups.values() for values in row.values() for value in values]
    share = all(0 <= value <= 1 for value in every)

    def draw(axes: Any, ink: Ink) -> None:
        rng = np.random.default_rng(0)
        place, ticks, names = -0.4, [], []
        for group, row in groups.items():
            place += 1.3
            spot = axes.get_yaxis_transform()
            write(axes, ink, 0.0, place + 0.05, group, weight="bold", ha="left", va="center", transform=spot)
            for number, (name, values) in enumerate(row.items()):
                place += 0.95
                colour = COLOURS[number % len(COLOURS)]
                line = {"color": ink.text, "linewidth": 1.1}
                axes.boxplot(
                    [list(values)],
                    positions=[place],
                    widths=0.56,
                    orientation="horizontal",
                    showfliers=False,
                    patch_artist=True,
                    boxprops={"facecolor": colour, "alpha": 0.55, "linewidth": 0},
                    medianprops={"color": ink.text, "linewidth": 1.8},
                    whiskerprops=line,
                    capprops=line,
                    manage_ticks=False,
                )
                some = list(values)[:_DOTS]
                height = place + rng.uniform(-0.16, 0.16, len(some))
                axes.scatter(some, height, s=8, color=ink.text, alpha=0.4, linewidths=0, zorder=3)
                ticks.append(place)
                names.append(f"{name} ({len(values)})")
        axes.set_yticks(ticks, labels=names)
        axes.set_ylim(place + 0.7, 0.3)
        if share:
            axes.set_xlim(0, 1.02)
        axes.grid(axis="x", color=ink.grid, linewidth=0.8)
        if across:
            axes.set_xlabel(across, color=ink.text, parse_math=False)

    return Chart(title, max(1.6, 0.30 * rows + (0.9 if across else 0.7)), draw)


def froc_chart(curves: Mapping[str, Mapping[str, Any]], title: str) -> Chart:
    """Sensitivity over false positives a scan, with the sensitivities at 1/8 to 8 and their intervals.

    Args:
        curves: region -> "froc" of ``scores.json``'s "confidence".
        title: of the chart.
    """

    def draw(axes: Any, ink: Ink) -> None:
        for number, (name, froc) in enumerate(curves.items()):
            colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
            points = np.array(froc["curve"], float)
            x = np.concatenate([points[:, 0], [max(froc["rates"][-1], points[-1, 0])]])
            y = np.concatenate([points[:, 1], points[-1:, 1]])
            axes.step(np.maximum(x, 0.06), y, where="post", color=colour, linewidth=1.6)
            marks = [cell["value"] for cell in froc["sensitivity"]]
            label = f"{name} (mean of seven {froc['mean_sensitivity']['value']:.3f}, {froc['lesions']} lesions)"
            axes.plot(froc["rates"], marks, marker, color=colour, markersize=5, label=label)
            for rate, cell in zip(froc["rates"], froc["sensitivity"], strict=True):
                if cell["low"] is not None and cell["high"] is not None:
                    shifted = rate * 1.04**number
                    axes.plot([shifted, shifted], [cell["low"], cell["high"]], color=colour, linewidth=1, alpha=0.6)
        axes.set_xscale("log", base=2)
        axes.set_xticks([1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8], labels=["1/8", "1/4", "1/2", "1", "2", "4", "8"])
        axes.minorticks_off()
        axes.set(xlim=(0.1, 9), ylim=(0, 1.02))
        axes.grid(color=ink.grid, linewidth=0.8)
        name_axes(axes, ink, "false positives a scan", "lesions found")
        explain(axes, ink, "lower right")

    return Chart(title, 3.1, draw)


def reliability_chart(curves: Mapping[str, Mapping[str, Any]], title: str) -> Chart:
    """How often a voxel of a probability is of the region; the diagonal is what it should be.

    Args:
        curves: region -> "calibration" of ``scores.json``'s "confidence".
        title: of the chart.
    """

    def draw(axes: Any, ink: Ink) -> None:
        axes.plot([0, 1], [0, 1], color=ink.text, linewidth=1, linestyle=(0, (4, 3)), alpha=0.6)
        for number, (name, found) in enumerate(curves.items()):
            colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
            rows = [row for row in found["bins"] if row["voxels"] and row["observed"] is not None]
            x, y = [row["probability"] for row in rows], [row["observed"] for row in rows]
            label = f"{name} (ECE {found['ece']['value']:.3f})"
            axes.plot(x, y, color=colour, linewidth=1.5, marker=marker, markersize=4.5, label=label)
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(color=ink.grid, linewidth=0.8)
        name_axes(axes, ink, "predicted probability", "share that is")
        explain(axes, ink, "upper left")

    return Chart(title, 3.3, draw)


@dataclass(frozen=True)
class Agreement:
    """Volumes of one method beside the truth's.

    Attributes:
        pairs: (truth, prediction) in mL.
        bias: mean difference; with its limits ``low`` and ``high``, None where they cannot be told.
    """

    pairs: Sequence[tuple[float, float]]
    bias: float | None
    low: float | None
    high: float | None


def bland_altman_chart(methods: Mapping[str, Agreement], title: str) -> Chart:
    """Differences of volumes over their means, with bias (line) and limits of agreement (dashes), one colour each."""

    def draw(axes: Any, ink: Ink) -> None:
        axes.axhline(0, color=ink.text, linewidth=0.9, alpha=0.6)
        for number, (name, found) in enumerate(methods.items()):
            colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
            truth, prediction = np.array(found.pairs, float).reshape(-1, 2).T
            middle, change = (truth + prediction) / 2, prediction - truth
            axes.scatter(middle, change, s=22, color=colour, marker=marker, alpha=0.8, linewidths=0, label=name)
            for value, style in ((found.bias, "-"), (found.low, "--"), (found.high, "--")):
                if value is not None:
                    axes.axhline(value, color=colour, linewidth=1.3, linestyle=style)
                    if len(methods) == 1:
                        spot = axes.get_yaxis_transform()
                        write(axes, ink, 1.01, value, f"{value:+.1f}", ha="left", va="center", transform=spot)
        axes.grid(color=ink.grid, linewidth=0.8)
        name_axes(axes, ink, "mean of truth and prediction (mL)", "prediction less truth (mL)")
        axes.margins(x=0.06, y=0.12)
        if len(methods) > 1:
            where = {"bbox_to_anchor": (0.0, 1.0), "ncols": min(3, len(methods)), "borderaxespad": 0.2}
            explain(axes, ink, "lower left", **where)

    return Chart(title, 2.9, draw)


@dataclass(frozen=True)
class Change:
    """One difference with its interval, and whether it was shown (``sure``)."""

    name: str
    value: float
    low: float | None
    high: float | None
    sure: bool
    note: str = ""


def forest(groups: Mapping[str, Sequence[Change]], title: str, across: str, margin: float | None = None) -> Chart:
    """Differences around nought: a mark and an interval each; filled where the difference was shown.

    Args:
        groups: heading -> its differences.
        title: of the chart.
        across: what a difference to the right means.
        margin: of non-inferiority, drawn as a dashed line below nought.
    """
    rows = sum(len(row) for row in groups.values()) + 1.3 * len(groups)

    def draw(axes: Any, ink: Ink) -> None:
        place, ticks, names = -0.4, [], []
        axes.axvline(0, color=ink.text, linewidth=1)
        if margin is not None:
            axes.axvline(-margin, color=COLOURS[1], linewidth=1.2, linestyle="--")
        for group, row in groups.items():
            place += 1.3
            spot = axes.get_yaxis_transform()
            write(axes, ink, 0.0, place + 0.05, group, weight="bold", ha="left", va="center", transform=spot)
            for change in row:
                place += 0.95
                colour = COLOURS[0]
                if change.low is not None and change.high is not None:
                    axes.plot([change.low, change.high], [place, place], color=colour, linewidth=1.8)
                face = colour if change.sure else "white"
                axes.plot(
                    change.value, place, "o", color=colour, markersize=6, markerfacecolor=face, markeredgewidth=1.5
                )
                if change.note:
                    write(axes, ink, 1.02, place, change.note, ha="left", va="center", transform=spot)
                ticks.append(place)
                names.append(change.name)
        axes.set_yticks(ticks, labels=names)
        axes.set_ylim(place + 0.7, 0.3)
        axes.grid(axis="x", color=ink.grid, linewidth=0.8)
        axes.set_xlabel(across, color=ink.text, parse_math=False)
        axes.margins(x=0.08)

    return Chart(title, max(1.7, 0.30 * rows + 0.9), draw)
