"""Noise and histogram of phantoms beside real scans.

    python benchmarks/phantom_noise.py --real ../shared/data/real --cases 8

Noise: in the liver (phantoms: by label; real scans: by the label map where there is one, else the largest piece of soft
tissue that is bright and even), squares of 24 x 24 mm are cut, a plane is subtracted from each, and their power spectra
are averaged over directions (Riederer et al. 1978; ICRU report 87). Told are the spread (HU), the frequency of the peak
and the mean frequency (1/mm). Histogram: shares of voxels inside the body that are lung or gas, fat, soft tissue,
enhanced or bone. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_erosion, binary_fill_holes, gaussian_filter, label

from hilum.phantom import make_case
from hilum.scans import read_scan, read_volume
from hilum.volume import Volume

SIDE_MM = 24.0
BANDS = {
    "gas and lung": (-1100, -300),
    "fat": (-150, -50),
    "soft": (-10, 90),
    "enhanced": (90, 250),
    "bone": (250, 3000),
}


def liver_like(hu_SPL: np.ndarray) -> np.ndarray:
    """The largest even piece of soft tissue, for scans without labels."""
    smooth = gaussian_filter(hu_SPL.astype(np.float32), (1, 3, 3))
    pieces, count = label(binary_erosion((smooth > 40) & (smooth < 150), iterations=4))
    if not count:
        return np.zeros(hu_SPL.shape, bool)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    found: np.ndarray = pieces == sizes.argmax()
    return found


def noise(scan: Volume, mask: np.ndarray) -> dict[str, float]:
    """Spread and frequencies of the noise in squares that lie wholly in the mask."""
    array, (_, dy, dx) = scan.array.astype(np.float64), scan.spacing_mm
    n = max(8, round(SIDE_MM / dx))
    y, x = np.mgrid[0:n, 0:n]
    plane = np.stack([np.ones(n * n), y.ravel(), x.ravel()], axis=1)
    power, count = np.zeros((n, n)), 0
    for k in range(len(array)):
        for i in range(0, array.shape[1] - n, n):
            for j in range(0, array.shape[2] - n, n):
                if mask[k, i : i + n, j : j + n].mean() < 0.98:
                    continue
                square = array[k, i : i + n, j : j + n].ravel()
                square = square - plane @ np.linalg.lstsq(plane, square, rcond=None)[0]
                if square.std() < 60:
                    power += np.abs(np.fft.fft2(square.reshape(n, n))) ** 2 * dx * dy / (n * n)
                    count += 1
    if not count:
        return {}
    power /= count
    radius = np.hypot(np.fft.fftfreq(n, dy)[:, None], np.fft.fftfreq(n, dx)[None, :])
    edges = np.arange(0.5 / (n * dx), 0.5 / dx, 1 / (n * dx))
    which = np.digitize(radius.ravel(), edges)
    ring = np.array([power.ravel()[which == b].mean() for b in range(1, len(edges))])
    middle = (edges[1:] + edges[:-1]) / 2
    spread = float(np.sqrt(power.sum() / (n * n * dx * dy)))
    mean = float((ring * middle * middle).sum() / (ring * middle).sum())
    return {
        "spread_hu": round(spread, 1),
        "peak_per_mm": round(float(middle[ring.argmax()]), 3),
        "mean_per_mm": round(mean, 3),
        "squares": count,
        "pixel_mm": round(dx, 3),
        "slice_mm": round(scan.spacing_mm[0], 2),
    }


def histogram(scan: Volume) -> dict[str, float]:
    """Shares of voxels in the body by HU."""
    body = scan.array > -300
    for plane in body:
        pieces, count = label(plane)
        if count:
            sizes = np.bincount(pieces.ravel())
            sizes[0] = 0
            plane[...] = binary_fill_holes(pieces == sizes.argmax())
    values = scan.array[body]
    return {name: round(float(((values >= low) & (values < high)).mean()), 3) for name, (low, high) in BANDS.items()}


def main() -> None:
    """Measure and print."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--cases", type=int, default=8)
    words.add_argument("--real", type=Path, help="folder with totalsegmentator_ct, ircadb01_dicom, cptac_pda_dicom")
    options = words.parse_args()
    table: dict[str, dict[str, float]] = {}
    for seed in range(options.cases):
        case = make_case(seed, shape=(512, 512, 24), spacing_mm=(0.8, 0.8, 2.5), labels="abdomen")
        scan, labels = case.ct.oriented("SPL"), case.labels.oriented("SPL")
        mask = binary_erosion(labels.array == 3, iterations=3)
        table[f"phantom {seed}, {case.facts['phase']}"] = noise(scan, mask) | histogram(scan)
    for name in ("totalsegmentator_ct/ct.nii.gz", "ircadb01_dicom", "cptac_pda_dicom"):
        if options.real and (options.real / name).exists():
            scan = read_scan(options.real / name).oriented("SPL")
            given = options.real / Path(name).parent / "labels.nii.gz"
            known = name.endswith("ct.nii.gz") and given.exists()
            mask = (
                binary_erosion(read_volume(given).oriented("SPL").array == 3, iterations=1)
                if known
                else liver_like(scan.array)
            )
            table[f"real {Path(name).parts[0]}"] = noise(scan, mask) | histogram(scan)
    for name, row in table.items():
        print(f"{name:34}" + "  ".join(f"{key} {value}" for key, value in row.items()))
    print(json.dumps(table))


if __name__ == "__main__":
    main()
