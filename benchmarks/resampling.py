"""What resampling a CT to other voxels costs: hilum beside scipy and SimpleITK, all cubic B-splines.

    python benchmarks/resampling.py [--shape 300 512 512] [--spacing 1 0.78 0.78] [--to 1.5] [--rounds 3] [--keep]

All take int16 and give float32 over the same extent. ``scipy.ndimage.zoom(mode="nearest", grid_mode=True)`` is what
nnU-Net v2 computes by way of skimage (which adds copies to float64 of its own). hilum builds its matrices anew every
time. The peers alternate with hilum, round by round, so that other load falls on all; the median is reported.
Memory is the growth of a fresh process's peak over input and imports (Linux), once each. SimpleITK treats the edge
differently: its difference is taken 16 voxels inside. All are clipped to the range of the input. The
last line is JSON; ``--keep`` writes it to benchmarks/results too.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Shape = tuple[int, ...]
RESULTS = Path(__file__).parent / "results"


def synthetic_ct(shape: Shape) -> np.ndarray:
    """A body of soft tissue with bones and noise in air: sharp edges, and values at every frequency."""
    rng = np.random.default_rng(0)
    out = np.empty(shape, np.int16)
    y, x = np.ogrid[-1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
    for z in range(shape[0]):
        plane = np.where(x**2 / 0.7 + y**2 / 0.4 < 1, 40.0, -1000.0)
        plane[np.hypot(x - 0.3 * np.cos(z / 20), y - 0.3 * np.sin(z / 20)) < 0.1] = 900
        out[z] = plane + rng.normal(0, 25, plane.shape)
    return out


def hilum_way(image: np.ndarray, shape: Shape) -> np.ndarray:
    """``hilum.prepare.resample_image``."""
    from hilum.prepare import resample

    resample._matrix.cache_clear()
    return resample.resample_image(image, shape)


def scipy_way(image: np.ndarray, shape: Shape) -> np.ndarray:
    """``scipy.ndimage.zoom``, clipped as skimage does."""
    from scipy import ndimage

    zoom = [n / o for n, o in zip(shape, image.shape, strict=True)]
    out = ndimage.zoom(image.astype(np.float32), zoom, order=3, mode="nearest", grid_mode=True)
    return np.clip(out, image.min(), image.max(), out=out)


def sitk_way(image: np.ndarray, shape: Shape) -> np.ndarray:
    """``SimpleITK.Resample`` with ``sitkBSpline``."""
    import SimpleITK as sitk  # noqa: N813

    scale = [o / n for n, o in zip(shape, image.shape, strict=True)][::-1]
    origin = [0.5 * s - 0.5 for s in scale]
    source = sitk.GetImageFromArray(image)
    out = sitk.Resample(
        source, list(shape[::-1]), sitk.Transform(), sitk.sitkBSpline, origin, scale, np.eye(3).ravel().tolist(),
        -1000, sitk.sitkFloat32,
    )  # fmt: skip
    result = sitk.GetArrayFromImage(out)
    return np.clip(result, image.min(), image.max(), out=result)


WAYS: dict[str, Callable[[np.ndarray, Shape], np.ndarray]] = {
    "hilum": hilum_way,
    "scipy": scipy_way,
    "simpleitk": sitk_way,
}


def peak_mib(name: str, file: Path, shape: Shape) -> float:
    """How far one run in a process of its own raises the peak memory."""
    command = [sys.executable, __file__, "--peak-of", name, str(file), *map(str, shape)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def _peak_of(name: str, file: str, shape: Shape) -> None:
    image = np.load(file)
    WAYS[name](image[:8, :16, :16], (6, 12, 12))  # imports and thread pools
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew: it was inherited from the parent
    before = _peak_kib()
    WAYS[name](image, shape)
    print((_peak_kib() - before) / 1024)


def _peak_kib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def measure(image: np.ndarray, shape: Shape, rounds: int) -> dict[str, Any]:
    """Seconds, differences and memory of every way."""
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    results: dict[str, np.ndarray] = {}
    for _ in range(rounds):
        for name, way in WAYS.items():
            start = time.perf_counter()
            results[name] = way(image, shape)
            seconds[name].append(time.perf_counter() - start)
            print(f"{name:10} {seconds[name][-1]:7.2f} s", flush=True)
    inside = (slice(16, -16),) * 3
    found = {
        name: {
            "seconds": [round(s, 3) for s in times],
            "median_s": round(statistics.median(times), 3),
            "times_hilum": round(statistics.median(times) / statistics.median(seconds["hilum"]), 1),
        }
        for name, times in seconds.items()
    }
    found["scipy"]["max_difference_hu"] = float(np.abs(results["scipy"] - results["hilum"]).max())
    found["simpleitk"]["max_difference_inside_hu"] = float(
        np.abs(results["simpleitk"][inside] - results["hilum"][inside]).max()
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "image.npy"
        np.save(file, image)
        for name in WAYS:
            found[name]["peak_mib"] = round(peak_mib(name, file, shape))
    return found


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def main() -> None:
    """Measure, show, keep."""
    if sys.argv[1:2] == ["--peak-of"]:
        _peak_of(sys.argv[2], sys.argv[3], tuple(map(int, sys.argv[4:])))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(300, 512, 512))
    parser.add_argument("--spacing", type=float, nargs=3, default=(1.0, 0.78, 0.78))
    parser.add_argument("--to", type=float, default=1.5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    shape = tuple(max(1, round(n * s / options.to)) for n, s in zip(options.shape, options.spacing, strict=True))
    load = os.getloadavg()[0]
    result = {
        "benchmark": "resampling",
        "from": list(options.shape),
        "to": list(shape),
        "rounds": options.rounds,
        "ways": measure(synthetic_ct(tuple(options.shape)), shape, options.rounds),
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
        "cpu": _cpu(),
        "load_before": round(load, 1),
        "numpy": np.__version__,
    }
    if options.keep:
        file = RESULTS / f"{result['date']}_resampling.json"
        file.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
