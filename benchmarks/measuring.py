"""What shape costs: hilum beside pyradiomics, on the same masks, in one run.

    python -m venv PEER && PEER/bin/pip install "numpy<2" "setuptools<70" wheel versioneer cython
    PEER/bin/pip install --no-build-isolation pyradiomics
    python benchmarks/measuring.py --peer PEER/bin/python [--data ../shared/data] [--rounds 3] [--keep]

The masks are every kidney and every lesion of three KiTS23 label maps, where ``../shared`` is there (few, thick slices:
the peer takes minutes for more), and of two made pairs of kidneys with 1.5 and 3 mm slices. Both begin with uint8
arrays of the whole case in memory.

* ``shape``: pyradiomics' extractor with the class ``shape`` alone, mask by mask (14 features), against hilum's volume,
  surface, sphericity, own axes, RECIST axes and longest diameter in space of the same masks, the search for each mask's
  box included on both sides.
* ``report``: the same time of pyradiomics against hilum's whole ``measure`` of the case: sides, components, sizes,
  surroundings, sinus, renal scores.

Rounds alternate; medians are reported, both on one thread. Equal within their definitions: the voxel volumes must agree
to 1e-6. hilum's outline runs a quarter of a voxel beyond the outermost centres and pyradiomics' mesh half a voxel, so
diameters must be smaller, by half a voxel in the median (of the coarsest axis in the plane or in space). In the plane
the peer may also join vertices half-way between two slices, one of the slice above and one of the slice below: where a
shape drifts from slice to slice that exceeds the diameter of any slice, so only the median is held. The areas, of two
estimators, are shown as a ratio: the peer's mesh of a binary mask keeps stairs.

The last line is JSON; ``--keep`` writes it to benchmarks/results.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")

import numpy as np

RESULTS = Path(__file__).parent / "results"
CASES = ("case_00418", "case_00554", "case_00463")

PEER = """
import json, sys, time, logging
import numpy as np, SimpleITK as sitk, radiomics
from radiomics import featureextractor
logging.getLogger("radiomics").setLevel(logging.ERROR)
store = np.load(sys.argv[1])
extractor = featureextractor.RadiomicsFeatureExtractor(additionalInfo=False)
extractor.disableAllFeatures()
extractor.enableFeatureClassByName("shape")
print(json.dumps({"version": radiomics.__version__}), flush=True)
for line in sys.stdin:
    case, count = json.loads(line)
    spacing = [float(s) for s in store[case + "_spacing"][::-1]]
    rows, begin, spent = [], 0.0, 0.0
    for n in range(1, count + 1):
        mask = sitk.GetImageFromArray((store[case] == n).astype(np.uint8))
        image = sitk.GetImageFromArray(np.zeros(store[case].shape, np.int16))
        for it in (mask, image):
            it.SetSpacing(spacing)
        begin = time.perf_counter()
        found = extractor.execute(image, mask, label=1)
        spent += time.perf_counter() - begin
        rows.append({k.split("_")[-1]: float(v) for k, v in found.items() if "shape" in k})
    print(json.dumps({"seconds": spent, "rows": rows}), flush=True)
"""


def made(spacing_mm: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Two kidneys, two tumours and a cyst: a KiTS label map of 300 mm in plane, SPL order."""
    shape = tuple(round(e / s) for e, s in zip((180, 240, 320), spacing_mm, strict=True))
    z, y, x = np.meshgrid(
        *[np.arange(n) * s for n, s in zip(shape, spacing_mm, strict=True)], indexing="ij", sparse=True
    )
    out = np.zeros(shape, np.uint8)
    for side in (80.0, 240.0):
        out[((z - 90) / 55) ** 2 + ((y - 120) / 27) ** 2 + ((x - side) / 30) ** 2 < 1] = 1
    for value, (a, b, c, r) in ((2, (110, 140, 80, 26)), (2, (60, 110, 250, 11)), (3, (120, 100, 240, 8))):
        out[(z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2 < r * r] = value
    return out, np.array(spacing_mm)


def masks_of(labels: np.ndarray) -> np.ndarray:
    """Numbers 1, 2, ...: each kidney's parenchyma (largest two pieces), then each lesion of three voxels and more."""
    from hilum.components import components_of

    out, number = np.zeros(labels.shape, np.uint8), 0
    for values, most in (((1,), 2), ((2, 3), 60)):
        pieces, _ = components_of(np.where(np.isin(labels, values), labels, 0))
        counts = np.bincount(pieces.ravel())[1:]
        for piece in np.argsort(-counts)[:most]:
            if counts[piece] >= (30 if most > 2 else 1000):
                number += 1
                out[pieces == piece + 1] = number
    return out


def hilum_shapes(numbers: np.ndarray, count: int, spacing_mm: np.ndarray) -> list[dict[str, float]]:
    """The shape of each mask of a case."""
    import cc3d

    from hilum.results.diameters import diameters
    from hilum.results.shape import own_axes, sphericity, surface_of
    from hilum.volume import Grid

    boxes = cc3d.statistics(numbers)["bounding_boxes"]
    rows = []
    for n in range(1, count + 1):
        mask = numbers[boxes[n]] == n
        grid = Grid(mask.shape, np.diag([*spacing_mm, 1.0])[[2, 1, 0, 3]])  # type: ignore[arg-type]
        volume = float(mask.sum() * grid.voxel_volume_mm3)
        size, area, axes = diameters(mask, grid), surface_of(mask, grid).total_mm2, own_axes(mask, grid)
        rows.append(
            {
                "VoxelVolume": volume,
                "SurfaceArea": area,
                "Sphericity": sphericity(volume, area),
                "Maximum2DDiameterSlice": size.long_mm,
                "Maximum3DDiameter": size.any_direction_mm,
                "length": float(axes.extents_mm[0]),
            }
        )
    return rows


def main() -> None:
    """Alternate both, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="Python with pyradiomics")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()

    from hilum.labels import SCHEMES
    from hilum.results.measure import measure
    from hilum.scans import read_volume
    from hilum.volume import Volume

    cases = {f"made_{s[0]}mm": made(s) for s in ((1.5, 0.8, 0.8), (3.0, 0.8, 0.8))}
    for name in CASES:
        path = options.data / "kits23_labels" / f"{name}.nii.gz"
        if path.is_file():
            volume = read_volume(path).oriented()
            cases[name] = np.ascontiguousarray(volume.array.astype(np.uint8)), np.array(volume.spacing_mm)
    numbers = {name: masks_of(labels) for name, (labels, _) in cases.items()}
    counts = {name: int(array.max()) for name, array in numbers.items()}
    report: dict[str, Any] = {"cases": {}}
    with tempfile.TemporaryDirectory() as folder:
        store, script = Path(folder) / "masks.npz", Path(folder) / "peer.py"
        np.savez_compressed(store, **numbers, **{f"{name}_spacing": cases[name][1] for name in cases})  # type: ignore[arg-type]
        script.write_text(PEER)
        peer = subprocess.Popen(
            [options.peer, str(script), str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert peer.stdin and peer.stdout
        report["pyradiomics"] = json.loads(peer.stdout.readline())["version"]
        for name, (labels, spacing_mm) in cases.items():
            d, h, w = spacing_mm
            whole = Volume(labels, np.array([[0, 0, -w, 0], [0, -h, 0, 0], [d, 0, 0, 0], [0, 0, 0, 1]]))
            seconds: dict[str, list[float]] = {"pyradiomics": [], "hilum_shape": [], "hilum_measure": []}
            for _ in range(options.rounds):
                print(json.dumps([name, counts[name]]), file=peer.stdin, flush=True)
                answer = json.loads(peer.stdout.readline())
                seconds["pyradiomics"].append(answer["seconds"])
                begin = time.perf_counter()
                rows = hilum_shapes(numbers[name], counts[name], spacing_mm)
                seconds["hilum_shape"].append(time.perf_counter() - begin)
                begin = time.perf_counter()
                measure(whole, SCHEMES["kits"])
                seconds["hilum_measure"].append(time.perf_counter() - begin)
            report["cases"][name] = compared(rows, answer["rows"], spacing_mm, seconds, labels.shape)
            print(name, json.dumps(report["cases"][name]), file=sys.stderr, flush=True)
        peer.stdin.close()
        peer.wait()
    found = report["cases"].values()
    total = {
        key: sum(case["seconds"][key] for case in found) for key in ("pyradiomics", "hilum_shape", "hilum_measure")
    }
    report = {
        "benchmark": "measuring",
        "date": datetime.date.today().isoformat(),
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent
        ).stdout.strip(),
        "machine": platform.processor() or platform.machine(),
        "rounds": options.rounds,
        "masks": sum(counts.values()),
        "seconds": total,
        "shape_ratio": total["pyradiomics"] / total["hilum_shape"],
        "shape_ratio_lowest": min(case["shape_ratio"] for case in found),
        "report_ratio": total["pyradiomics"] / total["hilum_measure"],
        **report,
    }
    if options.keep:
        path = RESULTS / f"{report['date']}_measuring.json"
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report))


def compared(
    ours: list[dict[str, float]],
    theirs: list[dict[str, float]],
    spacing_mm: np.ndarray,
    seconds: dict[str, list[float]],
    shape: tuple[int, ...],
) -> dict[str, Any]:
    """One case: medians of the times, and how far the numbers lie apart; raises if they are not equal."""
    in_plane, space = float(spacing_mm[1:].max()), float(spacing_mm.max())
    volume = max(abs(a["VoxelVolume"] / b["VoxelVolume"] - 1) for a, b in zip(ours, theirs, strict=True))
    flat, deep = (
        [(b[key] - a[key]) / voxel for a, b in zip(ours, theirs, strict=True)]
        for key, voxel in (("Maximum2DDiameterSlice", in_plane), ("Maximum3DDiameter", space))
    )
    assert volume < 1e-6, volume
    assert min(flat) >= -1e-6 and statistics.median(flat) <= 0.75, flat
    assert min(deep) >= -1e-6 and statistics.median(deep) <= 0.75, deep
    large = [a["SurfaceArea"] / b["SurfaceArea"] for a, b in zip(ours, theirs, strict=True) if a["VoxelVolume"] > 1000]
    middle = {key: statistics.median(values) for key, values in seconds.items()}
    return {
        "shape": list(shape),
        "spacing_mm": spacing_mm.round(3).tolist(),
        "masks": len(ours),
        "seconds": middle,
        "shape_ratio": middle["pyradiomics"] / middle["hilum_shape"],
        "volume_largest_relative_difference": volume,
        "axial_diameter_smaller_by_voxels": [round(min(flat), 3), round(max(flat), 3)],
        "diameter_in_space_smaller_by_voxels": [round(min(deep), 3), round(max(deep), 3)],
        "area_ratio_above_1_ml": [round(min(large), 4), round(max(large), 4)] if large else None,
    }


if __name__ == "__main__":
    main()
