"""What scoring a case costs: hilum beside the official KiTS23 procedure, surface-distance, MedPy and MONAI.

    pip install --target PEERS --no-deps medpy surface-distance absl-py
    python benchmarks/scoring.py --peers PEERS [--cases made_clean ...] [--tasks kits23 same] [--rounds 3] [--keep]

Four pairs of label maps: two full-size pairs of the golden set, where ``../shared`` is there, and a made pair of 300
slices of 512 x 512, clean and with stray blobs. All ways begin with both uint8 arrays in memory and end with numbers:

* ``kits23``: Dice and surface Dice of three regions. hilum's protocol against *the KiTS23 official procedure on the
  surface-distance package*: the challenge's evaluation written anew here, step by step as it calls that package
  (boolean masks of the whole volume for every region, Dice, ``compute_surface_distances``, surface Dice).
* ``same``: one region, the four numbers of surface-distance by hilum and by that package.
* ``surface``: one region. hilum's whole table of both surface models (NSD at five tolerances, robust and plain
  Hausdorff, averages, areas) against surface-distance (NSD, robust HD95, averages), MedPy (HD95 alone, whole volume as
  the function takes it) and MONAI (HD95, average surface distance and surface Dice, which crop by themselves).

The ways alternate, round by round, so that other load falls on all; medians are reported. Memory is the growth of the
peak of a fresh process over input and imports (Linux), once each. NSD and Dice must agree to 1e-9, MedPy's HD95 to 1e-6
(hilum's table takes its spacing from the truth); MONAI has another surface model, its numbers are shown only. The last
line is JSON; ``--keep`` adds the cases to benchmarks/results too.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hilum.judge.evaluate import score_case
from hilum.judge.general import surface_metrics
from hilum.judge.kits import REGIONS
from hilum.judge.pair import make_pair
from hilum.judge.scoring import ScoreOptions
from hilum.scans import read_volume
from hilum.volume import Volume

Spacing = tuple[float, float, float]
Way = Callable[[np.ndarray, np.ndarray, Spacing], dict[str, float]]
RESULTS = Path(__file__).parent / "results"
GOLDEN = Path(__file__).parents[2] / "shared" / "data" / "golden_metrics"
SURFACE_REGION = (1, 2, 3)
TOLERANCE_MM = 2.0


def made_pair(blobs: int) -> tuple[np.ndarray, np.ndarray, Spacing]:
    """Two kidneys with a tumour and a cyst at 1 x 0.78 x 0.78 mm, and a prediction whose border waves by 2 mm."""
    shape, spacing = (300, 512, 512), (1.0, 0.78, 0.78)
    axes = [np.arange(n, dtype=np.float32) * s for n, s in zip(shape, spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    truth = _labels(z, y, x)
    prediction = _labels(z + 1.5 * np.sin(y / 7 + x / 9), y + 1.5 * np.sin(x / 6 + z / 8), x + np.sin(z / 5))
    rng = np.random.default_rng(0)
    for _ in range(blobs):
        centre, radius = rng.uniform((60, 100, 80), (240, 400, 430)), rng.uniform(1, 6)
        box = tuple(slice(max(0, int(c - 7)), int(c + 8)) for c in centre)
        near = np.meshgrid(
            *[np.arange(s.start, min(s.stop, n)) for s, n in zip(box, shape, strict=True)], indexing="ij"
        )
        inside = sum((g - c) ** 2 for g, c in zip(near, centre, strict=True)) < radius**2
        prediction[box][inside] = 2
    return truth, prediction, spacing


def _labels(z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    out = np.zeros(np.broadcast_shapes(z.shape, y.shape, x.shape), np.uint8)
    for side in (130.0, 270.0):
        out[((z - 150) / 55) ** 2 + ((y - 220) / 28) ** 2 + ((x - side) / 30) ** 2 < 1] = 1
    out[(z - 170) ** 2 + (y - 205) ** 2 + (x - 250) ** 2 < 20**2] = 2
    out[(z - 120) ** 2 + (y - 225) ** 2 + (x - 110) ** 2 < 9**2] = 3
    return out


def golden_pair(name: str) -> tuple[np.ndarray, np.ndarray, Spacing]:
    """A pair of the golden set as its files say."""
    rows = json.loads((GOLDEN / "pairs.json").read_text())["pairs"]
    row = next(r for r in rows if r["id"] == name)
    truth, prediction = (read_volume(GOLDEN / row[side]) for side in ("gt", "pred"))
    arrays = [np.ascontiguousarray(volume.array, dtype=np.uint8) for volume in (truth, prediction)]
    return arrays[0], arrays[1], prediction.spacing_mm


PAIRS: dict[str, Callable[[], tuple[np.ndarray, np.ndarray, Spacing]]] = {
    "golden_case_00061": lambda: golden_pair("pub_02_shift"),
    "golden_case_00527": lambda: golden_pair(_largest_change("case_00527")),
    "made_clean": lambda: made_pair(0),
    "made_blobs": lambda: made_pair(60),
}


def _largest_change(case: str) -> str:
    """Of a case's pairs with tumour on both sides the one whose prediction has most foreground."""
    rows = json.loads((GOLDEN / "pairs.json").read_text())["pairs"]
    rows = [r for r in rows if r["case"] == case and r["full_size"] and min(r["gt_voxels"]["2"], r["pred_voxels"]["2"])]
    return str(max(rows, key=lambda r: sum(r["pred_voxels"].values()))["id"])


def _volumes(truth: np.ndarray, prediction: np.ndarray, spacing: Spacing) -> tuple[Volume, Volume]:
    affine = np.diag([*spacing, 1.0])
    return Volume(truth, affine), Volume(prediction, affine)


def hilum_kits23(truth: np.ndarray, prediction: np.ndarray, spacing: Spacing) -> dict[str, float]:
    """``hilum evaluate --protocol kits23`` of one case."""
    values = score_case(*_volumes(truth, prediction, spacing), "kits23")
    return {f"{region}/{metric}": v for region, metrics in values.items() for metric, v in metrics.items()}


def official_kits23(truth: np.ndarray, prediction: np.ndarray, spacing: Spacing) -> dict[str, float]:
    """The KiTS23 official procedure on the surface-distance package."""
    import surface_distance

    values = {}
    for region, (labels, tolerance_mm) in REGIONS.items():
        masks = []
        for array in (prediction, truth):
            mask = np.zeros(array.shape, bool)
            for label in labels:
                mask[array == label] = True
            masks.append(mask)
        sizes = [np.count_nonzero(mask) for mask in masks]
        if not all(sizes):
            values[f"{region}/dice"] = values[f"{region}/surface_dice"] = float(not any(sizes))
            continue
        common = np.count_nonzero(masks[0] & masks[1])
        values[f"{region}/dice"] = 2 * common / (np.count_nonzero(masks[0]) + np.count_nonzero(masks[1]))
        found = surface_distance.compute_surface_distances(masks[1], masks[0], spacing)
        near = surface_distance.compute_surface_dice_at_tolerance(found, tolerance_mm=tolerance_mm)
        values[f"{region}/surface_dice"] = float(near)
    return values


def hilum_surface(truth: np.ndarray, prediction: np.ndarray, spacing: Spacing) -> dict[str, float]:
    """Everything that protocol ``plain`` says about surfaces, of one region."""
    pair, _ = make_pair(*_volumes(truth, prediction, spacing), same_grid=True)
    return surface_metrics(pair.region(SURFACE_REGION), ScoreOptions(threads=-1))


def surface_distance_way(truth: np.ndarray, prediction: np.ndarray, spacing: Spacing) -> dict[str, float]:
    """NSD, robust HD95 and averages by google-deepmind's package."""
    import surface_distance

    found = surface_distance.compute_surface_distances(truth > 0, prediction > 0, spacing)
    there, back = surface_distance.compute_average_surface_distance(found)
    return {
        "nsd_2mm": float(surface_distance.compute_surface_dice_at_tolerance(found, TOLERANCE_MM)),
        "robust_hd95_mm": float(surface_distance.compute_robust_hausdorff(found, 95)),
        "asd_gt_to_pred_mm": float(there),
        "asd_pred_to_gt_mm": float(back),
    }


def medpy_way(truth: np.ndarray, prediction: np.ndarray, spacing: Spacing) -> dict[str, float]:
    """``medpy.metric.binary.hd95``."""
    from medpy.metric import binary

    return {"medpy_hd95_mm": float(binary.hd95(prediction > 0, truth > 0, voxelspacing=spacing))}


def monai_way(truth: np.ndarray, prediction: np.ndarray, spacing: Spacing) -> dict[str, float]:
    """HD95, average surface distance, surface Dice by MONAI's functions, region in channel 1."""
    import torch
    from monai import metrics

    masks = [torch.from_numpy(np.stack([a == 0, a > 0])[None]).to(torch.uint8) for a in (prediction, truth)]
    keys = {"include_background": False, "spacing": list(spacing)}
    return {
        "monai_hd95_mm": float(metrics.compute_hausdorff_distance(*masks, percentile=95, **keys)),
        "monai_assd_mm": float(metrics.compute_average_surface_distance(*masks, symmetric=True, **keys)),
        "monai_nsd_2mm": float(metrics.compute_surface_dice(*masks, class_thresholds=[TOLERANCE_MM], **keys)),
    }


def hilum_same(truth: np.ndarray, prediction: np.ndarray, spacing: Spacing) -> dict[str, float]:
    """What ``surface_distance_way`` gives, and nothing else."""
    pair, _ = make_pair(*_volumes(truth, prediction, spacing), same_grid=True)
    found = pair.region(SURFACE_REGION).surfels(threads=-1)
    there, back = found.average_mm()
    return {
        "nsd_2mm": found.nsd(TOLERANCE_MM),
        "robust_hd95_mm": found.robust_hausdorff_mm(95),
        "asd_gt_to_pred_mm": there,
        "asd_pred_to_gt_mm": back,
    }


WAYS: dict[str, dict[str, Way]] = {
    "kits23": {"hilum": hilum_kits23, "official procedure": official_kits23},
    "same": {"hilum": hilum_same, "surface-distance": surface_distance_way},
    "surface": {
        "hilum": hilum_surface,
        "surface-distance": surface_distance_way,
        "medpy": medpy_way,
        "monai": monai_way,
    },
}


def peak_mib(task: str, name: str, file: Path, peers: Path) -> float:
    """How far one run in a process of its own raises the peak memory."""
    command = [sys.executable, __file__, "--peers", str(peers), "--peak-of", task, name, str(file)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def _peak_of(task: str, name: str, file: str) -> None:
    with np.load(file) as stored:
        truth, prediction, spacing = stored["truth"], stored["prediction"], tuple(stored["spacing"].tolist())
    small = np.zeros((12, 12, 12), np.uint8)
    small[3:8, 3:8, 3:8] = 2
    WAYS[task][name](small, small, spacing)  # imports and thread pools
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew: it was inherited from the parent
    before = _peak_kib()
    WAYS[task][name](truth, prediction, spacing)
    print((_peak_kib() - before) / 1024)


def _peak_kib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def measure(case: str, tasks: Sequence[str], rounds: int, peers: Path) -> dict[str, Any]:
    """Seconds, memory and differences of every way on one pair."""
    truth, prediction, spacing = PAIRS[case]()
    result: dict[str, Any] = {"shape": list(truth.shape), "spacing_mm": list(spacing)}
    result["runs"] = {task: {"commit": _commit(), "load_before": _load(), "rounds": rounds} for task in tasks}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pair.npz"
        np.savez(file, truth=truth, prediction=prediction, spacing=spacing)
        for task in tasks:
            ways = WAYS[task]
            seconds: dict[str, list[float]] = {name: [] for name in ways}
            values: dict[str, dict[str, float]] = {}
            for _ in range(rounds):
                for name, way in ways.items():
                    gc.collect()
                    start = time.perf_counter()
                    values[name] = way(truth, prediction, spacing)
                    seconds[name].append(time.perf_counter() - start)
                    print(f"{case:18} {task:8} {name:20} {seconds[name][-1]:8.3f} s", flush=True)
            peaks = {name: peak_mib(task, name, file, peers) for name in ways}
            result[task] = _table(seconds, peaks, values)
    return result


def _table(
    seconds: dict[str, list[float]], peaks: dict[str, float], values: dict[str, dict[str, float]]
) -> dict[str, Any]:
    base = statistics.median(seconds["hilum"])
    table: dict[str, Any] = {}
    for name, times in seconds.items():
        row = {"seconds": [round(s, 4) for s in times], "median_s": round(statistics.median(times), 4)}
        row |= {"peak_mib": round(peaks[name], 1), "values": values[name]}
        if name != "hilum":
            row["times_hilum"] = round(statistics.median(times) / base, 1)
            row["memory_times_hilum"] = round(peaks[name] / max(peaks["hilum"], 0.1), 1)
            shared = [key for key in values[name] if key in values["hilum"]]
            row["largest_difference"] = max((abs(values[name][k] - values["hilum"][k]) for k in shared), default=None)
            for key in shared:
                limit = 1e-6 if key.startswith("medpy") else 1e-9
                assert abs(values[name][key] - values["hilum"][key]) <= limit, (name, key, values)
        table[name] = row
    return table


def _load() -> float:
    return round(os.getloadavg()[0], 2)


def _commit() -> str:
    """The commit measured, with a mark if files of the package's scoring differ from it."""
    git = ["git", "-C", str(Path(__file__).parents[1])]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "src/hilum/judge"]).returncode
    return head + ("+changes" if changed else "")


def _facts() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    packages = ("numpy", "scipy", "medpy", "surface-distance", "monai", "torch")
    return {
        "benchmark": "scoring",
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "versions": {package: importlib.metadata.version(package) for package in packages},
    }


def main() -> None:
    """Measure, show, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True, help="folder that holds medpy and surface_distance")
    parser.add_argument("--cases", nargs="+", choices=PAIRS, default=None)
    parser.add_argument("--tasks", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--peak-of", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.append(str(options.peers))
    warnings.simplefilter("ignore")  # surface-distance uses names that SciPy has moved
    if options.peak_of:
        _peak_of(*options.peak_of)
        return
    cases = options.cases or [name for name in PAIRS if GOLDEN.is_dir() or name.startswith("made")]
    facts = _facts()
    facts["cases"] = {case: measure(case, options.tasks, options.rounds, options.peers) for case in cases}
    if options.keep:
        file = RESULTS / f"{facts['date']}_scoring.json"
        kept = json.loads(file.read_text()) if file.is_file() else {}
        for case, before in kept.get("cases", {}).items():  # each task of a case bears its own commit
            now = facts["cases"].get(case, {})
            facts["cases"][case] = before | now | {"runs": before.get("runs", {}) | now.get("runs", {})}
        file.write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
