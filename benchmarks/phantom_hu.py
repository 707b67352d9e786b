"""HU of phantoms' organs in every phase beside the table they are drawn from.

    python benchmarks/phantom_hu.py --cases 12

Paints ``--cases`` patients without renal tumours in each of the five phases on a grid of 2.2 x 2.2 x 3 mm and measures
the median HU of each organ, its outermost voxels left off. "table" is the mean and spread between patients of
``hilum.phantom.tissues`` with its source; "painted" the mean and spread of the medians. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
from scipy.ndimage import binary_erosion

from hilum.phantom import make_case
from hilum.phantom.tissues import ENHANCED_BY, PHASES, PLAIN, expected

ORGANS = {"liver": 1, "spleen": 6, "cortex and medulla": 4}


def medians(seed: int, phase: str) -> dict[str, float]:
    """Median HU of each organ of one patient."""
    case = make_case(seed, shape=(170, 150, 80), spacing_mm=(2.2, 2.2, 3.0), labels="ircadb", phase=phase)
    found = {}
    for name, value in ORGANS.items():
        inside = binary_erosion(case.labels.array == value, iterations=2)
        if inside.sum() > 50:
            found[name] = float(np.median(case.ct.array[inside]))
    return found


def main() -> None:
    """Measure and print."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--cases", type=int, default=12)
    options = words.parse_args()
    table = []
    print(f"{'organ':20}{'phase':16}{'table':>12}{'painted':>14}   source")
    for phase in PHASES:
        rows = [medians(seed, phase) for seed in range(options.cases)]
        for name in ORGANS:
            values = [row[name] for row in rows if name in row]
            tissue = "cortex" if name.startswith("cortex") else name
            mean, spread = expected(tissue, phase)
            if tissue == "cortex":
                other = expected("medulla", phase)
                mean, spread = (mean + other[0]) / 2, (spread + other[1]) / 2
            source = f"{PLAIN[tissue][2]}" + (f", {ENHANCED_BY[tissue]}" if tissue in ENHANCED_BY else "")
            got = (round(float(np.mean(values)), 1), round(float(np.std(values)), 1))
            print(f"{name:20}{phase:16}{mean:6.0f} ({spread:3.0f}){got[0]:8.1f} ({got[1]:4.1f})   {source}")
            table.append({"organ": name, "phase": phase, "table": [round(mean, 1), round(spread, 1)], "painted": got})
    print(json.dumps({"cases": options.cases, "rows": table}))


if __name__ == "__main__":
    main()
