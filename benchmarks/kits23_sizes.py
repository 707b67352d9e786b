"""hilum's tumour sizes beside the clinical record of KiTS23: does a label map tell what the radiologist wrote?

    python benchmarks/kits23_sizes.py ../shared/data --out FOLDER [--workers 2] [--keep]

The folder holds ``kits23_labels/case_XXXXX.nii.gz`` and ``kits23_clinical.json``. No case is left out but those whose
record has no radiographic size. The size of a case is that of its largest tumour, by several definitions, each
reported:

* ``long_axis``: the longest axial diameter of any tumour (what hilum reports, RECIST 1.1);
* ``any_direction``: the longest diameter in space; ``equivalent_sphere``: the diameter of the ball of equal volume;
  ``short_axis``; ``axes_mean``: half the sum of long and short axis; ``own_axes_*``: extents along its own principal
  axes; ``box_*``: the sides of its box along the scan's axes; ``union_long_axis``: tumour and cysts that touch as one;
* ``oriented``: the largest extent in an axial, coronal or sagittal plane.

Also told: the same numbers where record and pathology agree within 25 % (so that a record at odds with the specimen
does not decide; chosen without looking at hilum's number), T stage by size against ``pathology_t_stage`` as a table,
parenchyma against eGFR, and the ten worst cases. Figures (Bland-Altman, sizes, eGFR) and ``sizes.json`` go to FOLDER;
``--keep`` copies the JSON to benchmarks/results. No picture shows a patient's image.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from hilum.labels import SCHEMES
from hilum.results.diameters import diameters
from hilum.results.inside import bounding_box
from hilum.results.measure import measure
from hilum.results.shape import own_axes
from hilum.scans import read_volume
from hilum.volume import Volume

RESULTS = Path(__file__).parent / "results"
STAGES = ("T1a", "T1b", "T2a", "T2b")


def one_case(path: Path) -> dict[str, Any]:
    """Measurements of one label map, and the sizes that hilum does not report."""
    labels = read_volume(path)
    table = measure(labels, SCHEMES["kits"])
    tumours = [x for x in table["lesions"] if x["kind"] == "tumour"]
    largest = max(tumours, key=lambda x: x["volume_ml"])
    sizes = {
        "long_axis": max(x["long_axis_mm"] for x in tumours),
        "long_axis_of_largest_volume": largest["long_axis_mm"],
        "any_direction": max(x["any_direction_mm"] for x in tumours),
        "equivalent_sphere": largest["equivalent_sphere_mm"],
        "short_axis": max(x["short_axis_mm"] for x in tumours),
        "axes_mean": max((x["long_axis_mm"] + x["short_axis_mm"]) / 2 for x in tumours),
    }
    sizes |= _more_sizes(labels, largest)
    return {
        "case": path.name.split(".")[0],
        "spacing_mm": table["grid"]["spacing_mm"],
        "sizes_mm": sizes,
        "tumours": len(tumours),
        "tumour_ml": table["volumes_ml"]["tumour"],
        "parenchyma_ml": table["volumes_ml"]["kidney"],
        "kidneys": len({x["side"] for x in table["organs"]}),
        "cut": any(x["cut_by_field_of_view"] for x in table["organs"]),
        "t_by_size": max(x["t_stage_by_size"]["value"] for x in tumours),
        "nephrometry": largest["renal"]["nephrometry"]["total"],
        "sinus_found": [x["sinus"] is not None for x in table["organs"]],
    }


def _more_sizes(labels: Volume, largest: Mapping[str, Any]) -> dict[str, float]:
    """Sizes along axes and planes of the largest tumour, and of all that touches it."""
    from hilum.components import components_of

    box = bounding_box(labels.array > 1)
    assert box is not None
    cut = labels.cropped([s.start for s in box], [s.stop for s in box]).oriented()
    pieces, _ = components_of(cut.array == 2)
    number = 1 + int(np.bincount(pieces.ravel())[1:].argmax())
    mask = pieces == number
    union, _ = components_of(cut.array > 1)
    touching = union == union[mask][0]
    axes = own_axes(mask, cut.grid).extents_mm
    sides = [float(np.ptp(np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {a}))))) + 0.5 for a in range(3)]
    box_mm = [n * s for n, s in zip(sides, cut.spacing_mm, strict=True)]
    planes = [largest["long_axis_mm"]]
    for order in ((1, 0, 2), (2, 0, 1)):  # coronal and sagittal slices
        turned = Volume(mask, cut.affine)
        affine = np.array(turned.affine)[:, [*order, 3]]
        array = np.ascontiguousarray(mask.transpose(order))
        planes.append(diameters(array, Volume(array, affine).grid).long_mm)
    return {
        "own_axes_length": float(axes[0]),
        "own_axes_mean": float(axes.mean()),
        "box_craniocaudal": box_mm[0],
        "box_largest": max(box_mm),
        "oriented": max(planes),
        "union_long_axis": diameters(touching, cut.grid).long_mm,
    }


def agreement(measured: Sequence[float], told: Sequence[float]) -> dict[str, float]:
    """Pearson r (with a 95 % interval by Fisher's z), errors, limits of agreement, in mm."""
    a, b = np.asarray(measured), np.asarray(told)
    d, r = a - b, float(np.corrcoef(a, b)[0, 1])
    ranks = [np.argsort(np.argsort(x)) for x in (a, b)]
    z, half = np.arctanh(r), 1.96 / np.sqrt(len(a) - 3)
    return {
        "n": len(a),
        "pearson_r": r,
        "pearson_r_low": float(np.tanh(z - half)),
        "pearson_r_high": float(np.tanh(z + half)),
        "spearman_rho": float(np.corrcoef(*ranks)[0, 1]),
        "median_absolute_mm": float(np.median(np.abs(d))),
        "mean_absolute_mm": float(np.abs(d).mean()),
        "median_mm": float(np.median(d)),
        "bias_mm": float(d.mean()),
        "limits_low_mm": float(d.mean() - 1.96 * d.std(ddof=1)),
        "limits_high_mm": float(d.mean() + 1.96 * d.std(ddof=1)),
    }


def stage_table(cases: Sequence[Mapping[str, Any]], records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Rows: pathology; columns: stage by size."""
    counts: dict[str, dict[str, int]] = {}
    for case in cases:
        row = str(records[case["case"]]["pathology_t_stage"])
        counts.setdefault(row, dict.fromkeys(STAGES, 0))[case["t_by_size"]] += 1
    same = [(f"T{row}", column, n) for row, columns in counts.items() for column, n in columns.items()]
    sized = [x for x in same if x[0] in STAGES]
    return {
        "counts": {row: counts[row] for row in sorted(counts)},
        "sized_by_pathology": sum(n for _, _, n in sized),
        "of_these_equal": sum(n for a, b, n in sized if a == b),
    }


def figures(out: Path, cases: Sequence[Mapping[str, Any]], records: Mapping[str, Mapping[str, Any]]) -> None:
    """Sizes, Bland-Altman and eGFR as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sized = [x for x in cases if records[x["case"]]["radiographic_size"] is not None]
    a = np.array([x["sizes_mm"]["long_axis"] for x in sized])
    b = np.array([10 * records[x["case"]]["radiographic_size"] for x in sized])
    facts = agreement(a, b)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    left.scatter(b, a, s=14, color="#0072B2", alpha=0.7, edgecolors="none")
    left.plot([0, 160], [0, 160], color="#999999", lw=1)
    left.set(xlabel="radiographic size of the record, mm", ylabel="long axis by hilum, mm")
    left.set_title(f"KiTS23, {facts['n']} cases, r = {facts['pearson_r']:.3f}")
    right.scatter((a + b) / 2, a - b, s=14, color="#0072B2", alpha=0.7, edgecolors="none")
    for value, style in ((facts["bias_mm"], "-"), (facts["limits_low_mm"], "--"), (facts["limits_high_mm"], "--")):
        right.axhline(value, color="#D55E00", ls=style, lw=1)
        right.annotate(f"{value:+.1f}", (right.get_xlim()[1], value), ha="right", va="bottom", fontsize=8)
    right.set(
        xlabel="mean of both, mm", ylabel="hilum less record, mm", title="Bland-Altman: bias, limits of agreement"
    )
    for n in np.argsort(-np.abs(a - b))[:10]:
        right.annotate(sized[n]["case"][-3:], ((a[n] + b[n]) / 2, a[n] - b[n]), fontsize=7)
    figure.savefig(out / "sizes.png", dpi=110)
    egfr = [(x["parenchyma_ml"], _egfr(records[x["case"]])) for x in cases]
    points = np.array([(v, g) for v, g in egfr if g is not None])
    figure, axis = plt.subplots(figsize=(5.5, 4.4), layout="constrained")
    axis.scatter(points[:, 0], points[:, 1], s=14, color="#009E73", alpha=0.7, edgecolors="none")
    r = np.corrcoef(points.T)[0, 1]
    axis.set(xlabel="parenchyma of both kidneys, mL", ylabel="last eGFR before surgery, mL/min/1.73 m2")
    axis.set_title(f"{len(points)} cases, r = {r:.2f}")
    figure.savefig(out / "egfr.png", dpi=110)


def _egfr(record: Mapping[str, Any]) -> float | None:
    """The last eGFR before surgery; ">=90" is 90."""
    value = (record.get("last_preop_egfr") or {}).get("value")
    try:
        return None if value is None else float(str(value).lstrip(">= "))
    except ValueError:
        return None


def main() -> None:
    """Measure all cases, compare, draw, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    records = {x["case_id"]: x for x in json.loads((options.data / "kits23_clinical.json").read_text(encoding="utf-8"))}
    paths = [p for p in sorted((options.data / "kits23_labels").glob("*.nii.gz")) if p.name.split(".")[0] in records]
    with ProcessPoolExecutor(options.workers) as pool:
        cases = list(pool.map(one_case, paths))
    sized = [x for x in cases if records[x["case"]]["radiographic_size"] is not None]
    told = [10 * records[x["case"]]["radiographic_size"] for x in sized]
    pairs = [(x, t) for x, t in zip(sized, told, strict=True) if _near_pathology(records[x["case"]])]
    worst = sorted(zip(sized, told, strict=True), key=lambda p: -abs(p[0]["sizes_mm"]["long_axis"] - p[1]))[:10]
    egfr = np.array([(x["parenchyma_ml"], g) for x in cases if (g := _egfr(records[x["case"]])) is not None])
    report = {
        "benchmark": "kits23_sizes",
        "date": datetime.date.today().isoformat(),
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent
        ).stdout.strip(),
        "cases": len(cases),
        "without_radiographic_size": len(cases) - len(sized),
        "against_radiographic_size": {
            name: agreement([x["sizes_mm"][name] for x in sized], told) for name in sized[0]["sizes_mm"]
        },
        "pearson_r_without_the_worst": [
            agreement(*zip(*kept, strict=True))["pearson_r"]
            for count in range(1, 6)
            if (
                kept := [
                    (x["sizes_mm"]["long_axis"], t)
                    for x, t in zip(sized, told, strict=True)
                    if (x, t) not in worst[:count]
                ]
            )
        ],
        "record_within_25_percent_of_pathology": {
            name: agreement([x["sizes_mm"][name] for x, _ in pairs], [t for _, t in pairs])
            for name in ("long_axis", "equivalent_sphere")
        },
        "record_against_pathology": agreement(
            *zip(
                *[
                    (10 * r["radiographic_size"], 10 * r["pathologic_size"])
                    for x in sized
                    if (r := records[x["case"]])["pathologic_size"] is not None
                ],
                strict=True,
            )
        ),
        "t_stage": stage_table(cases, records),
        "parenchyma_against_egfr": {"n": len(egfr), "pearson_r": float(np.corrcoef(egfr.T)[0, 1])},
        "sinus_found_percent": 100 * float(np.mean([f for x in cases for f in x["sinus_found"]])),
        "worst": [
            {"case": x["case"], "long_axis_mm": x["sizes_mm"]["long_axis"], "record_mm": t, "tumours": x["tumours"]}
            for x, t in worst
        ],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "cases.json").write_text(json.dumps(cases), encoding="utf-8")
    text = json.dumps(report, indent=1)
    (options.out / "sizes.json").write_text(text + "\n", encoding="utf-8")
    if options.keep:
        (RESULTS / f"{report['date']}_kits23_sizes.json").write_text(text + "\n", encoding="utf-8")
    figures(options.out, cases, records)
    print(json.dumps(report))


def _near_pathology(record: Mapping[str, Any]) -> bool:
    size, specimen = record["radiographic_size"], record["pathologic_size"]
    return specimen is not None and specimen > 0 and abs(size - specimen) <= 0.25 * specimen


if __name__ == "__main__":
    main()
