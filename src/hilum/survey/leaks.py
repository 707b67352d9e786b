"""The same patient on both sides: within a set, between sets, between folds.

Comes in: records of cases that were looked at. Goes out: findings of leakage, each with the cases it is about. Two
things tell: the numbers of patients, for sets that share them, and the digest of the image's content, which survives
flips, other spacing and other storage (``plausible.content_digest``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hilum.datasets import facts_of
from hilum.datasets.folds import Folds

Record = Mapping[str, Any]
KNOWN = "known-overlap"
_SHOWN = 6


def within(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Different patients of one set with the same image or the same label map."""
    found = []
    for code, part, key in (("same-image", "image", "content"), ("same-labels", "labels", "digest")):
        groups: dict[str, list[Record]] = defaultdict(list)
        for record in records:
            facts = record[part]
            if facts and facts[key] and (part == "image" or facts["voxels"]):
                groups[facts[key]].append(record)
        for group in groups.values():
            if len({record["patient"] for record in group}) > 1:
                names = [record["case"] for record in group]
                what = "image" if part == "image" else "label map"
                found.append(_leak(code, names, f"cases of different patients hold the same {what}: {_some(names)}"))
    return found


def between(name: str, records: Sequence[Record], other_name: str, others: Sequence[Record]) -> list[dict[str, Any]]:
    """What two sets share, by image content and, where they number alike, by patient."""
    found = []
    theirs = {r["image"]["content"]: r["case"] for r in others if r["image"] and r["image"]["content"]}
    pairs = [
        (r["case"], theirs[r["image"]["content"]]) for r in records if r["image"] and r["image"]["content"] in theirs
    ]
    if pairs:
        told = _some([f"{mine} is {their}" for mine, their in pairs])
        text = f"{len(pairs)} scans of {name} are in {other_name} too: {told}"
        found.append(_leak("shared-scans", [mine for mine, _ in pairs], text, pairs=[list(pair) for pair in pairs]))
    mine_facts, their_facts = facts_of(name), facts_of(other_name)
    if mine_facts and their_facts and mine_facts.patients and mine_facts.patients == their_facts.patients:
        shared = sorted({r["patient"] for r in records} & {r["patient"] for r in others})
        if shared:
            text = f"{len(shared)} patients of {name} are in {other_name} too: {_some(shared)}"
            found.append(_leak("shared-patients", shared, text))
    return found


def known(name: str) -> list[dict[str, Any]]:
    """What is known of a set without reading another."""
    facts = facts_of(name)
    traps = facts.traps if facts is not None else ()
    return [_leak(KNOWN, [], trap.text, sets=list(trap.value)) for trap in traps if trap.check == "overlap"]


def folds_leak(records: Sequence[Record], folds: Folds) -> list[dict[str, Any]]:
    """Patients or images that two folds share."""
    fold_of = {name: number for number, fold in enumerate(folds) for name in fold}
    found = []
    strangers = sorted(set(fold_of) - {record["case"] for record in records})
    if strangers:
        found.append(_leak("fold-strangers", strangers, f"the folds name cases that are not there: {_some(strangers)}"))
    keys: tuple[tuple[str, str, Callable[[Record], str]], ...] = (
        ("fold-patients", "patient", lambda r: r["patient"]),
        ("fold-images", "image", lambda r: (r["image"] or {}).get("content", "")),
        ("fold-labels", "label map", lambda r: (r["labels"] or {}).get("digest", "")),
    )
    for code, what, key in keys:
        homes: dict[str, dict[int, str]] = defaultdict(dict)
        for record in records:
            if record["case"] in fold_of and key(record):
                homes[key(record)].setdefault(fold_of[record["case"]], record["case"])
        for cases in homes.values():
            if len(cases) > 1:
                told = ", ".join(f"{case} in fold {fold}" for fold, case in sorted(cases.items()))
                found.append(_leak(code, sorted(cases.values()), f"one {what} is in several folds: {told}"))
    return found


def true_spacing(record: Record, others: Sequence[Record]) -> tuple[list[float], str] | None:
    """The spacing that another copy of the same scan has, axis by axis told by the number of voxels, and its case.

    None if there is no other copy, its spacing is 1 mm too, or axes of equal length have different spacings.
    """
    digest = (record["image"] or {}).get("content")
    for other in others:
        facts = other["image"]
        if not digest or not facts or facts["content"] != digest or all(abs(s - 1) < 1e-4 for s in facts["spacing_mm"]):
            continue
        by_count: dict[int, set[float]] = defaultdict(set)
        for count, spacing in zip(facts["shape"], facts["spacing_mm"], strict=True):
            by_count[count].add(round(spacing, 4))
        if all(len(by_count[count]) == 1 for count in record["image"]["shape"]):
            exact = dict(zip(facts["shape"], facts["spacing_mm"], strict=True))
            return [exact[count] for count in record["image"]["shape"]], other["case"]
    return None


def _leak(code: str, cases: Sequence[str], text: str, **more: Any) -> dict[str, Any]:
    return {"code": code, "text": text, "cases": list(cases), **more}


def _some(items: Sequence[str]) -> str:
    return ", ".join(items[:_SHOWN]) + (f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else "")
