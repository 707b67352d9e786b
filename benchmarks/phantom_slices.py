"""What a model learnt from synthetic CT finds on single real slices, published as 8-bit pictures.

    python benchmarks/phantom_slices.py --slices ../shared/data/slices --model RUN/model --out found

Grey goes back to HU first. ``kits19_slices.npz``: a straight window from 0 HU up, taken as 0 to 300: muscle lies near
grey 48 and fluid in one tumour near 10, fat and air are all 0, and noise is equally strong from grey 20 to 60, so that
nothing was bent. ``ircadb_slices.npz``: each slice was stretched by itself; air, or the grey around the circle of
reconstruction, is -1024 HU and the first peak of the histogram above it is fat, -100 HU. Each becomes a scan of one
slice; then ``hilum segment`` and ``hilum evaluate``, protocol plain, scheme trunk. The last line of output is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

from hilum.cli import main as hilum
from hilum.scans import write_labels, write_scan
from hilum.volume import Volume

REGIONS = {"kits19": ("kidney_and_mass", "tumor"), "ircadb": ("liver",)}
LIVER = 4
Slice = tuple[str, np.ndarray, np.ndarray, tuple[float, float]]  # name, HU, labels, mm between rows and columns


def kits19(file: Path) -> Iterator[Slice]:
    """KiTS19's slices; cysts count as kidney there."""
    table = np.load(file)
    for i, case in enumerate(table["case"]):
        grey = table["image"][i].astype(float)
        dy, dx = (float(mm) for mm in table["spacing_mm"][i])
        hu = np.where(grey > 0, grey / 255 * 300, -100)
        yield f"{case}_{int(table['slice_index'][i]):03d}", hu, table["label"][i], (dy, dx)


def ircadb(file: Path) -> Iterator[Slice]:
    """3D-IRCADb's slices, with whole livers; spacing is not told and does not matter to a network of one size."""
    table = np.load(file)
    for i, case in enumerate(table["case"]):
        grey = table["gray"][i]
        air, fat = landmarks(grey)
        hu = np.clip(-1024 + (grey.astype(float) - air) * 924 / (fat - air), -1024, 3000)
        yield f"case_{int(case):02d}_{int(table['z'][i]):03d}", hu, table["liver"][i] * LIVER, (0.7, 0.7)


def landmarks(grey: np.ndarray) -> tuple[float, float]:
    """Grey of air and of fat."""
    counts = gaussian_filter1d(np.bincount(grey.ravel(), minlength=256).astype(float), 1.2)
    counts[:40] = 0  # lungs
    peaks = [int(p) for p in find_peaks(counts, prominence=0.05 * counts.max())[0]]
    first = peaks[0]
    ring = first < 100 and counts[first] > 0.8 * counts.max() and peaks[-1] > first + 50  # darker than air around it
    air = first if ring else 0
    return air, next(p for p in peaks if p > air + 40)


def main() -> None:
    """Write, segment, evaluate, print."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--slices", type=Path, required=True, help="folder with kits19_slices.npz and ircadb_slices.npz")
    words.add_argument("--model", required=True)
    words.add_argument("--out", type=Path, required=True)
    options = words.parse_args()
    table: dict[str, dict[str, object]] = {}
    for name, read in (("kits19", kits19), ("ircadb", ircadb)):
        place = options.out / name
        for case, hu, labels, (dy, dx) in read(options.slices / f"{name}_slices.npz"):
            # rows run to the patient's back, columns to the left
            affine = np.array([[0, -dx, 0, 0], [-dy, 0, 0, 0], [0, 0, 5.0, 0], [0, 0, 0, 1.0]])
            write_scan(place / "scans" / f"{case}.nii.gz", Volume(np.rint(hu)[:, :, None].astype(np.int16), affine))
            write_labels(place / "truth" / f"{case}.nii.gz", Volume(labels[:, :, None].astype(np.uint8), affine))
        found, scores = str(place / "found"), place / "scores"
        hilum(["segment", str(place / "scans"), "--model", options.model, "--out", found, "--quiet"])
        judge = ["--protocol", "plain", "--scheme", "trunk", "--out", str(scores), "--quiet"]
        hilum(["evaluate", "--truth", str(place / "truth"), "--prediction", found, *judge])
        answer = json.loads((scores / "scores.json").read_text())
        for region in REGIONS[name]:
            rows = {kind: answer[kind][region]["dice"] for kind in ("mean", "pooled")}
            table[f"{name} {region}"] = rows
            text = "; ".join(f"{k} {r['value']:.3f} ({r['low']:.3f} to {r['high']:.3f})" for k, r in rows.items())
            print(f"{name:8}{region:18}{text}")
    print(json.dumps(table))


if __name__ == "__main__":
    main()
