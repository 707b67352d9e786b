"""LEFT AND RIGHT: label maps whose paired organs carry one label become maps with a label for each side.

Comes in: a data set or one label map, its scheme. Goes out: maps with, say, 1 right kidney, 2 left kidney, 3 tumour, 4
cyst; the scheme that says so; and what about each case was not plain: one kidney only, a horseshoe, a third piece, a
kidney far below the other (a transplant or an ectopic one). Sides are the patient's own, as ``results.sides`` decides
them; where there is a scan, by its body's middle. Lesions keep one label of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cc3d
import numpy as np

from hilum.components import components_of, nonzero_box, wider
from hilum.datasets import CaseRef, Dataset, open_dataset
from hilum.errors import HilumError, LabelError, UsageError
from hilum.files import plain, read_json, write_json, write_text
from hilum.labels import Label, LabelScheme, Region
from hilum.progress import SILENT, Progress
from hilum.results.sides import SIDES, body_mid_x_mm, sides_of
from hilum.scans import read_labels, read_scan, write_labels
from hilum.survey.fix import manifest_text
from hilum.volume import Volume, require_same_grid

SUBSTANTIAL = 0.1  # of the largest piece, as results.sides has it
LOW_MM = 90.0  # centres further apart along the body than this: the lower one is no kidney in its usual place
_CODES = {
    "Right kidney": ("9846003", "Right kidney"),
    "Left kidney": ("18639004", "Left kidney"),
}
_COLOURS = ("#009E73", "#0072B2")


@dataclass(frozen=True)
class Split:
    """A label map with sides.

    Attributes:
        labels: on the grid and in the axis order of the map it came from.
        flags: (code, sentence): "one", "horseshoe", "pieces", "low", "unsure".
        voxels: by side of each paired organ, e.g. ``{"right kidney": 1234}``.
    """

    labels: Volume
    flags: tuple[tuple[str, str], ...]
    voxels: dict[str, int]


def sided_scheme(scheme: LabelScheme) -> LabelScheme:
    """The scheme after the split: a right and a left label for each paired one, numbered anew in the old order.

    Regions keep their names and unite the new labels; each side becomes a region too.

    Raises:
        UsageError: nothing in it is paired.
    """
    labels: list[Label] = []
    becomes: dict[int, tuple[int, ...]] = {}
    sides: list[Region] = []
    for label in scheme.labels:
        first = len(labels) + 1
        if not label.paired:
            labels.append(replace(label, value=first))
            becomes[label.value] = (first,)
            continue
        for value, side, colour in zip((first, first + 1), ("right", "left"), _COLOURS, strict=True):
            name = f"{side} {label.name}"
            code = _CODES.get(name.capitalize(), ())
            labels.append(
                replace(label, value=value, name=name, side=side, paired=False, colour=colour, snomed=code)  # type: ignore[arg-type]
            )
            sides.append(Region(name.replace(" ", "_"), (value,)))
        becomes[label.value] = (first, first + 1)
    if not sides:
        raise UsageError(
            f"scheme {scheme.name!r} has no organ of which one label covers both sides",
            wanted="a scheme such as kits or kits19",
        )
    regions = [Region(r.name, tuple(v for old in r.labels for v in becomes[old])) for r in scheme.regions]
    return LabelScheme(f"{scheme.name}_sides", tuple(labels), (*regions, *sides))


def split_sides(labels: Volume, scheme: LabelScheme, scan: Volume | None = None) -> Split:
    """Give each side of the paired organs its own label.

    Args:
        labels: uint8 label map of ``scheme``, in any axis order.
        scheme: has a paired label.
        scan: its CT, which tells the body's middle; without it the two largest pieces do.

    Raises:
        GeometryError: scan and labels do not lie on one grid.
        UsageError: nothing in the scheme is paired.
    """
    new = sided_scheme(scheme)
    inside = labels.oriented()
    flags: list[tuple[str, str]] = []
    voxels: dict[str, int] = {}
    result = np.zeros(inside.shape, np.uint8)
    around = nonzero_box(inside.array) or (slice(0, 1),) * 3  # a scan is mostly empty: only its labels are looked at
    whole = inside.cropped([s.start for s in around], [s.stop for s in around])
    made = _renumbered(scheme, new)[whole.array]
    for paired in (label for label in scheme.labels if label.paired):
        organ, values = paired.organ, scheme.of(paired.organ)
        box = nonzero_box(np.isin(whole.array, values))
        right, left = (f"{side} {paired.name}" for side in ("right", "left"))
        voxels |= {right: 0, left: 0}
        if box is None:
            flags.append(("none", f"there is no {organ}"))
            continue
        box = wider(box, whole.shape)
        part = whole.cropped([s.start for s in box], [s.stop for s in box])
        side_DHW, said = sides_of(
            part.array,
            part.grid,
            scheme,
            organ,
            body_x_mm=_body_x_mm(scan, labels, slice(around[0].start + box[0].start, around[0].start + box[0].stop)),
            centre_x_mm=float(inside.world((np.array(inside.shape) - 1) / 2)[0]),
        )
        mine = part.array == paired.value
        for name, side in ((right, "right"), (left, "left")):
            here = mine & (side_DHW == SIDES.index(side))
            made[box][here] = next(label.value for label in new.labels if label.name == name)
            voxels[name] = int(here.sum())
        flags += _flags(part, mine, side_DHW, organ, said)
    result[around] = made
    source, signs = inside.grid.turns_to(labels.codes)
    turned = result.transpose(source)[tuple(slice(None, None, sign) for sign in signs)]
    return Split(labels.with_array(np.asfortranarray(turned)), tuple(flags), voxels)


def _renumbered(scheme: LabelScheme, new: LabelScheme) -> np.ndarray:
    """(256,) uint8: old value to new; a paired one to its right side until its side is known."""
    table = np.zeros(256, np.uint8)
    names = {label.name: label.value for label in new.labels}
    for label in scheme.labels:
        table[label.value] = names[f"right {label.name}" if label.paired else label.name]
    return table


def _body_x_mm(scan: Volume | None, labels: Volume, slices: slice) -> float | None:
    if scan is None:
        return None
    require_same_grid(scan, labels)
    return body_mid_x_mm(scan.oriented(), (slices.start, slices.stop))


def _flags(
    part: Volume, mine: np.ndarray, side_DHW: np.ndarray, organ: str, said: Sequence[str]
) -> list[tuple[str, str]]:
    """What about an organ is not plain: both sides, in two pieces, at one height."""
    flags = []
    for text in said:
        lone = "uncertain" in text or "check" in text
        flags.append(("unsure" if lone else "horseshoe", text))
    pieces_DHW, count = components_of(mine)
    facts = cc3d.statistics(pieces_DHW)
    sizes = np.asarray(facts["voxel_counts"][1 : count + 1], float)
    large = [i + 1 for i in np.argsort(-sizes) if sizes[i] >= SUBSTANTIAL * sizes.max()]
    sides = {SIDES[code] for code in np.unique(side_DHW[mine]) if code}
    if len(sides) == 1:
        flags.append(("one", f"only the {sides.pop()} {organ} is here"))
    if len(large) > 2:
        flags.append(("pieces", f"the {organ}s are {len(large)} separate pieces (a transplant, or cut up by a lesion)"))
    heights = [float(part.world(facts["centroids"][number])[2]) for number in large]
    if len(heights) > 1 and max(heights) - min(heights) > LOW_MM:
        apart = max(heights) - min(heights)
        flags.append(("low", f"one {organ} lies {apart:.0f} mm below another (a transplant, or an ectopic {organ})"))
    return flags


def split_dataset(
    dataset: Dataset,
    out: Path,
    *,
    use_scans: bool = True,
    progress: Progress = SILENT,
    scheme: LabelScheme | None = None,
) -> tuple[Dataset, dict[str, Any]]:
    """Write the split label map of every labelled case; the data set with these, and what was flagged.

    Maps that are there already and newer than what they came from are not made again.

    Args:
        dataset: with labels of a scheme that has a paired organ.
        out: ``OUT/labels/<case>.nii.gz``, ``OUT/manifest.csv``, ``OUT/labels.json`` and ``OUT/sides.json``.
        use_scans: read each scan for the body's middle (slower, surer where a patient has one kidney).
        progress: counts cases.
        scheme: what the labels mean, where the data set does not say.

    Raises:
        UsageError: nothing is paired, or the scheme is not known.
        LabelError: no case could be split.
        OutputError: it cannot be written.
    """
    scheme = scheme or dataset.scheme
    if scheme is None:
        raise UsageError("the data do not say what their labels mean", fix="add --scheme kits")
    new = sided_scheme(scheme)
    notes = out / "sides.json"
    before = read_json(notes)["cases"] if notes.is_file() else {}
    cases: list[CaseRef] = []
    told: dict[str, Any] = {}
    failed: dict[str, str] = {}
    bar = progress.stage("Splitting sides", len(dataset.labelled))
    for case in dataset.labelled:
        assert case.labels is not None
        place = out / "labels" / f"{case.name}.nii.gz"
        try:
            if not (case.name in before and _newer(place, case.labels)):
                told[case.name] = _split_case(case, scheme, place, use_scans)
            else:
                told[case.name] = before[case.name]
            cases.append(replace(case, labels=place))
        except HilumError as error:
            if error.exit_code == 2 or type(error).__name__ == "OutputError":
                raise
            failed[case.name] = str(error)
        write_json(notes, plain({"scheme": new.to_json(), "cases": told, "failed": failed}))
        bar.step(note=case.name)
    if not cases:
        some = "; ".join(list(failed.values())[:3])
        raise LabelError(f"none of {len(failed)} cases could be split: {some}", where=dataset.name)
    write_json(out / "labels.json", plain(new.to_json()))
    write_text(out / "manifest.csv", manifest_text([(c, c.image.absolute(), c.labels) for c in cases], out))
    answer = {"scheme": new.to_json(), "cases": told, "failed": failed, "flagged": _by_flag(told)}
    return Dataset(f"{dataset.name}_sides", tuple(cases), new), answer


def _newer(place: Path, source: Path) -> bool:
    return place.is_file() and source.exists() and place.stat().st_mtime_ns >= source.stat().st_mtime_ns


def _split_case(case: CaseRef, scheme: LabelScheme, place: Path, use_scans: bool) -> dict[str, Any]:
    assert case.labels is not None
    labels = read_labels(case.labels, scheme)
    scan = read_scan(case.image) if use_scans and case.image.exists() else None
    split = split_sides(labels, scheme, scan)
    write_labels(place, split.labels)
    voxel_ml = labels.voxel_ml
    return {
        "ml": {name: round(count * voxel_ml, 2) for name, count in split.voxels.items()},
        "flags": [{"code": code, "text": text} for code, text in split.flags],
        "middle": "body" if scan is not None else "pieces",
    }


def _by_flag(told: dict[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, facts in told.items():
        for flag in facts["flags"]:
            found.setdefault(flag["code"], []).append(name)
    return found


def split_files(
    name: str, path: Path, out: Path, *, labels_only: bool, scheme: LabelScheme | None, progress: Progress
) -> dict[str, Any]:
    """``hilum data split``: a data set from the disk, split.

    Raises:
        UsageError: ``out`` is the data set itself, or nothing is paired.
        DatasetError: no such data set.
    """
    from hilum.survey.verify import beside, cases_of

    beside(out, path)
    dataset = cases_of(name, path, labels_only=True) if labels_only else open_dataset(name, path)
    _, answer = split_dataset(dataset, out, use_scans=not labels_only, progress=progress, scheme=scheme)
    return answer
