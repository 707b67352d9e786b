"""A comparison in words: the sentence for a methods section, lines for the terminal, a table.

Comes in: what ``compare`` found. Goes out: text. The methods sentence names what was done and nothing else.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from hilum import __version__
from hilum.judge.power import POWER
from hilum.judge.standing import DRAWS
from hilum.judge.statistics import SAMPLES, SEED


def methods_sentence(
    result: Mapping[str, Any], margins: Mapping[str, float], claims: Mapping[str, float], groups: bool
) -> str:
    """What was done, for a paper's methods section."""
    cases, patients, methods = len(result["cases"]), result["patients"], len(result["evaluations"])
    scans = f"{cases} cases of {patients} patients" if cases != patients else f"{cases} patients (one scan each)"
    parts = [
        f"Predictions of {methods} methods were scored with hilum {__version__}, protocol {result['protocol']} "
        f"({result['empty_policy'].rstrip('.')}), on {scans}; methods were compared by mean paired differences with "
        f"95 % percentile bootstrap intervals over patients ({SAMPLES} samples, seed {SEED}) and two-sided Wilcoxon "
        "signed-rank tests (zero differences dropped); p-values were adjusted by Holm's method over all regions and "
        "pairs of methods of a metric; effect sizes are matched-pairs rank-biserial correlations and Cohen's dz."
    ]
    if cases != patients:
        parts.append("Several scans of a patient were averaged before testing.")
    left = sorted({row["metric"] for row in result["comparisons"] if row["n"] < patients})
    if left:
        some = ", ".join(left[:4]) + (f" and {len(left) - 4} more metrics" if len(left) > 4 else "")
        parts.append(f"Cases without a value for one of two methods were left out of that comparison ({some}).")
    if margins:
        told = ", ".join(f"{margin:g} for {metric}" for metric, margin in margins.items())
        parts.append(
            f"Non-inferiority was concluded where the 95 % interval excluded a loss of the margin or more ({told})."
        )
    if result["ranking"]:
        parts.append(
            "Methods were ranked by the official KiTS procedure (mean Dice, mean surface Dice, mean of ranks)."
        )
    if result["standings"]:
        parts.append(
            f"Methods were also ranked case by case and by the mean of those ranks, whose stability was assessed on "
            f"{DRAWS} bootstrap samples of patients."
        )
    if groups and result["subgroups"]:
        columns = list(dict.fromkeys(row["column"] for row in result["subgroups"]))
        parts.append(
            f"Exploratory comparisons in subgroups by {', '.join(columns)} were adjusted by Holm's method within each."
        )
    if result["volume_agreement"]:
        parts.append(
            "Agreement of volumes with the reference is given as Bland-Altman bias and 95 % limits of agreement."
        )
    aim = "the claimed difference" if claims else "the difference seen"
    parts.append(
        f"Sample sizes to show {aim} were computed for a power of {100 * POWER:.0f} % at a two-sided level of 5 % from "
        "the spread of paired differences (t-test, with the asymptotic relative efficiency 3/pi of Wilcoxon's test)."
    )
    return " ".join(parts)


def comparison_text(answer: Mapping[str, Any]) -> str:
    """Lines for a terminal: Dice by Dice, ranks, warnings, the methods sentence."""
    lines = [f"{len(answer['cases'])} cases in common, protocol {answer['protocol']}"]
    for row in answer["comparisons"]:
        told = "dice" in row["metric"].lower() or "margin" in row or "claim" in row
        if not told or row["metric"] == "lesion_dice" or row["difference"] is None:
            continue
        interval = f" ({row['low']:+.4f} to {row['high']:+.4f})" if row["low"] is not None else ""
        lines.append(
            f"{row['region']} {row['metric']}: {row['first']} {row['first_mean']:.4f}, {row['second']} "
            f"{row['second_mean']:.4f}, difference {row['difference']:+.4f}{interval}, Holm p {row['p_holm']:.3g}, "
            f"n {row['n']}: {verdict(row)}"
        )
    for row in answer["ranking"]:
        lines.append(f"rank {row['final_rank']}: {row['team']} (first in {100 * row['first']:.0f} % of bootstraps)")
    for table in answer["standings"]:
        places = ", ".join(
            f"{m['rank_of_ranks']}. {m['name']} (mean rank {m['mean_rank']:.2f}, first in {100 * m['first']:.0f} %)"
            for m in table["methods"]
        )
        lines.append(f"{table['region']} {table['metric']}, ranked by case: {places}")
    shown = [row for row in answer["subgroups"] if row["better"]]
    lines += [
        f"{row['column']} {row['group']} (n {row['n']}), {row['region']} {row['metric']}: {row['better']} is better, "
        f"difference {row['difference']:+.4f}"
        for row in shown
    ]
    return "\n".join([*lines, *(f"warning: {text}" for text in answer["warnings"]), answer["methods"]])


def verdict(row: Mapping[str, Any]) -> str:
    """What one row says: who is better, or how many more patients it would take to tell; and the margin's answer."""
    if row["better"]:
        text = f"{row['better']} is better"
    else:
        text = "no difference shown"
        if row.get("more_patients"):
            text += f" ({row['more_patients']} more patients would be needed to show this one)"
    if row.get("claim_patients_needed") is not None:
        more = row["claim_more_patients"]
        text += f"; a difference of {row['claim']:g} needs {row['claim_patients_needed']} patients"
        text += f", {more} more" if more else ", which are there"
    if row.get("non_inferior") is not None:
        not_worse = "not inferior" if row["non_inferior"] else "not shown to be non-inferior"
        text += f"; {row['second']} is {not_worse} at a margin of {row['margin']:g}"
    return text


def csv_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a table, all keys that occur as its columns; nothing where a value is undefined."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if value is None else value for name, value in row.items()} for row in rows)
    return text.getvalue()
