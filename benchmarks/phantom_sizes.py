"""Sizes of phantoms beside those of real KiTS23 label maps.

    python benchmarks/phantom_sizes.py --cases 100 --kits ../shared/data/kits23_labels

Prints, side by side, the 5th, 50th and 95th percentile of kidney, tumour and cyst volume, tumour components, slice
spacing and number of slices: of the challenge's 489 training cases, of the label maps in ``--kits``, of phantoms. These
are painted on a coarse grid of 3.2 mm, their slices are counted as drawn. The last line of output is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import cc3d
import numpy as np

from hilum.components import nonzero_box
from hilum.labels import SCHEMES, count_labels
from hilum.phantom import make_case
from hilum.phantom.extent import draw_extent
from hilum.phantom.patient import draw_patient, stream
from hilum.scans import read_labels

# 5th, 50th, 95th percentile of the 489 training cases
KITS23 = {
    "kidneys, mL": (249, 395, 612),
    "tumours, mL": (2.9, 32, 664),
    "tumour components": (1, 1, 3),
    "slice spacing, mm": (0.5, 3, 5),
    "slices": (29, 104, 1059),
}
Row = dict[str, float]


def real(folder: Path) -> Iterator[Row]:
    """Measures of each label map."""
    for path in sorted(folder.glob("*.nii.gz")):
        labels = read_labels(path, SCHEMES["kits"])
        axis = [code in "IS" for code in labels.codes].index(True)
        yield measured(labels.array, labels.voxel_ml, labels.spacing_mm[axis], labels.shape[axis])


def phantoms(count: int, seed: int) -> Iterator[Row]:
    """Measures of phantoms, as many as asked for."""
    for k in range(count):
        own = int(np.random.SeedSequence([seed, k]).generate_state(1)[0])
        patient = draw_patient(own)
        extent = draw_extent(stream(own, 7), patient.torso.scale, patient.lowest_mm)
        case = make_case(own, shape=(140, 120, 110), spacing_mm=(3.2, 3.2, 3.2))
        slices = round((extent.top_mm - extent.bottom_mm) / extent.spacing_mm)
        yield measured(case.labels.array, case.labels.voxel_ml, extent.spacing_mm, slices)


def measured(array: np.ndarray, ml: float, spacing_mm: float, slices: int) -> Row:
    """One case's numbers."""
    box = nonzero_box(array)
    array = np.ascontiguousarray(array[box] if box is not None else array)
    counts = count_labels(array)[1:4].tolist()
    _, pieces = cc3d.connected_components(array == 2, return_N=True)
    return {
        "kidneys, mL": counts[0] * ml,
        "tumours, mL": counts[1] * ml,
        "tumour components": pieces,
        "cysts, mL": counts[2] * ml,
        "slice spacing, mm": spacing_mm,
        "slices": slices,
    }


def percentiles(rows: list[Row], name: str) -> list[float]:
    """5th, 50th and 95th; of cysts only where there are any."""
    values = [row[name] for row in rows if row[name] > 0]
    return [round(float(v), 1) for v in np.percentile(values, (5, 50, 95))] if values else []


def main() -> None:
    """Measure and print."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--cases", type=int, default=100)
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--kits", type=Path, help="folder of KiTS23 label maps, to measure them too")
    options = words.parse_args()
    groups = {"phantoms": list(phantoms(options.cases, options.seed))}
    if options.kits:
        groups["label maps"] = list(real(options.kits))
    table: dict[str, dict[str, object]] = {}
    head = "".join(f"{f'{group} ({len(rows)})':24}" for group, rows in groups.items())
    print(f"{'5th / 50th / 95th percentile':28} {'KiTS23, 489 cases':24}{head}")
    for name in groups["phantoms"][0]:
        cells = {"KiTS23": list(KITS23.get(name, ()))} | {g: percentiles(rows, name) for g, rows in groups.items()}
        table[name] = dict(cells)
        print(f"{name:28} " + "".join(f"{' / '.join(f'{v:g}' for v in cell) or '-':24}" for cell in cells.values()))
    share = {g: round(float(np.mean([row["cysts, mL"] > 0 for row in rows])), 2) for g, rows in groups.items()}
    table["share with cysts"] = {"KiTS23": 0.5, **share}
    print(f"{'share with cysts':28} {'about 0.5':24}" + "".join(f"{v:<24}" for v in share.values()))
    print(json.dumps(table))


if __name__ == "__main__":
    main()
