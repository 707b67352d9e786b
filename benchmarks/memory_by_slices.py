"""Seconds and peak memory of ``hilum segment`` against the number of slices.

    python benchmarks/memory_by_slices.py --scan ct.nii.gz [--slices 60 120 300 600 1059] [--max-memory 3GB] [--out DIR]

Each length is one run in a process of its own. The scan is made longer by mirroring it up and down, so that its
noise and its share of air stay real; without ``--scan`` a synthetic patient is taken. Writes a table, JSON and an SVG;
the last line of output is the JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from hilum.scans import read_scan, write_scan
from hilum.volume import Volume

RUN = """
import json, resource, sys, time
begin = time.perf_counter()
from hilum.cli import main
code = main(["segment", sys.argv[1], "--model", sys.argv[2], "--out", sys.argv[3], "--quiet", "--json", *sys.argv[4:]])
print(json.dumps([code, time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""


def main() -> None:
    """Measure, print, write."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--scan", help="a CT of 512x512 in plane; default: a synthetic patient")
    words.add_argument("--slices", type=int, nargs="+", default=[60, 120, 300, 600, 1059])
    words.add_argument("--model", default="demo")
    words.add_argument("--max-memory", default="")
    words.add_argument("--slice-mm", type=float, default=0.8)
    words.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = words.parse_args()
    scan = patient(options.scan)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in options.slices:
            file = Path(folder) / f"scan_{count}.nii.gz"
            write_scan(file, longer(scan, count, options.slice_mm))
            rows.append(measured(file, count, Path(folder) / f"out_{count}", options) | {"shape": list(scan.shape[:2])})
            file.unlink()
            print(line(rows[-1]), flush=True)
    result = {
        "benchmark": "memory_by_slices",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}",
        "max_memory": options.max_memory or None,
        "model": options.model,
        "rows": rows,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    name = options.out / f"{result['date']}_memory_by_slices"
    name.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    draw(rows, name.with_suffix(".svg"))
    print(json.dumps(result))


def patient(path: str | None) -> Volume:
    """A scan with slices along its last axis."""
    if path:
        return read_scan(path).oriented("RAS")
    from hilum.phantom import make_case

    return make_case(1).ct.oriented("RAS")


def longer(scan: Volume, count: int, slice_mm: float) -> Volume:
    """``count`` slices, there and back again."""
    there, total = scan.array, scan.array.shape[2]
    copies = [there if n % 2 == 0 else there[:, :, ::-1] for n in range(-(-count // total))]
    affine = np.array(scan.affine)
    affine[:3, 2] *= slice_mm / np.linalg.norm(affine[:3, 2])
    return Volume(np.asfortranarray(np.concatenate(copies, axis=2)[:, :, :count]), affine)


def measured(file: Path, count: int, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One run in a process of its own."""
    more = ["--max-memory", options.max_memory] if options.max_memory else []
    words = [sys.executable, "-c", RUN, str(file), options.model, str(out), *more]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    code, seconds, peak = json.loads(done.stdout.splitlines()[-1])
    if code:
        raise SystemExit(done.stderr)
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    case = record["cases"][file.name.removesuffix(".nii.gz")]
    return {
        "slices": count,
        "seconds": round(seconds, 2),
        "peak_gb": round(peak / 1e9, 3),
        "planned_gb": record["memory"]["planned_gb"],
        "stages_s": case["seconds"],
    }


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    return (
        f"{row['slices']:5} slices {row['seconds']:8.1f} s {row['peak_gb']:6.2f} GB (planned {row['planned_gb']:.2f})"
    )


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Seconds and GB against slices."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    slices = [row["slices"] for row in rows]
    left.plot(slices, [row["seconds"] for row in rows], "o-", color="#2b6cb0")
    left.set(xlabel="slices", ylabel="seconds", title="hilum segment, start to end")
    right.plot(slices, [row["peak_gb"] for row in rows], "o-", color="#2b6cb0", label="measured")
    right.plot(slices, [row["planned_gb"] for row in rows], "--", color="#888888", label="planned")
    right.set(xlabel="slices", ylabel="GB (10⁹ bytes)", title="peak memory of the process")
    right.legend(frameon=False)
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    figure.savefig(path)


if __name__ == "__main__":
    main()
