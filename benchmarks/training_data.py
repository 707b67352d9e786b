"""Cases for ``training_vs_nnunet.py``: synthetic CT painted around real kidney shapes, small enough for two CPU cores.

    python benchmarks/training_data.py LABELS OUT [--cases 60] [--test 20] [--spacing 3] [--small-tumours]

LABELS holds KiTS23 label maps as ``case_XXXXX.nii.gz``. They are drawn by a seed, one a patient, brought to a coarser
grid and painted (``hilum data paint``). Goes out, under OUT: ``painted/NAME/{imaging,segmentation}.nii.gz`` as KiTS23
has them, ``folds.json`` (fold 0: the test cases, fold 1: the cases to learn from) and ``truth/`` with the test cases'
label maps. A second call goes on where the first one ended.

``--small-tumours`` fills the masses of each map with kidney, keeps its largest tumour, and puts two to five round
tumours of 0.3 to 1.9 mL into the kidneys' rims: cases in which nearly all tumour voxels belong to one large tumour and
nearly all tumours are small.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import numpy as np
from scipy import ndimage

from hilum.datasets.folds import write_folds
from hilum.labels import SCHEMES
from hilum.phantom.painting import paint_set
from hilum.prepare.resample import resample_labels
from hilum.progress import Progress
from hilum.scans import read_labels, write_labels
from hilum.volume import Volume

KIDNEY, TUMOUR, CYST = 1, 2, 3
SMALL_ML = (0.3, 1.9)
SMALL_COUNT = (2, 5)


def coarse(volume: Volume, spacing_mm: float) -> Volume:
    """A label map on a grid of even spacing, axes as NIfTI files usually have them."""
    volume = volume.oriented("RAS")
    grid = volume.grid.respaced((spacing_mm,) * 3)
    return Volume.on(grid, resample_labels(volume.array, grid.shape, threads=1))


def with_small_tumours(volume: Volume, rng: np.random.Generator) -> Volume:
    """The kidneys with their largest tumour and some small ones; no cysts."""
    labels, spacing = np.where(volume.array > 0, KIDNEY, 0).astype(np.uint8), np.array(volume.spacing_mm)
    pieces, count = ndimage.label(volume.array == TUMOUR)
    taken = np.zeros(labels.shape, bool)
    if count:
        largest = 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
        taken = pieces == largest
        labels[taken] = TUMOUR
    inside_mm = ndimage.distance_transform_edt(labels > 0, spacing)
    for _ in range(int(rng.integers(SMALL_COUNT[0], SMALL_COUNT[1] + 1))):
        ml = float(np.exp(rng.uniform(*np.log(SMALL_ML))))
        radius_mm = (3 * ml * 1000 / (4 * np.pi)) ** (1 / 3)
        room_mm = ndimage.distance_transform_edt(~taken, spacing) if taken.any() else np.full(labels.shape, 1e3)
        # half out of the kidney to well inside, at least 4 mm of kidney between two tumours
        places = np.argwhere((inside_mm > 0.3 * radius_mm) & (inside_mm < 2 * radius_mm) & (room_mm > radius_mm + 4))
        if not len(places):
            continue
        offset = (np.indices(labels.shape).transpose(1, 2, 3, 0) - places[rng.integers(len(places))]) * spacing
        ball = (offset**2).sum(-1) < radius_mm**2
        labels[ball] = TUMOUR
        taken |= ball
    return Volume.on(volume.grid, labels)


def main() -> int:
    """Draw, bring to the coarse grid, paint, split."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("labels", type=Path, help="KiTS23 label maps, case_XXXXX.nii.gz")
    words.add_argument("out", type=Path)
    words.add_argument("--cases", type=int, default=60)
    words.add_argument("--test", type=int, default=20, help="of these, kept back")
    words.add_argument("--spacing", type=float, default=3.0, help="mm")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--small-tumours", action="store_true")
    words.add_argument("--workers", type=int, default=1)
    options = words.parse_args()
    files = sorted(options.labels.glob("case_*.nii.gz"))
    rng = np.random.default_rng(options.seed)
    drawn = [files[i].name.removesuffix(".nii.gz") for i in rng.permutation(len(files))[: options.cases]]
    for number, name in enumerate(drawn):
        target = options.out / "labels" / f"{name}.nii.gz"
        if target.is_file():
            continue
        volume = coarse(read_labels(options.labels / f"{name}.nii.gz", SCHEMES["kits"]), options.spacing)
        if options.small_tumours:
            volume = with_small_tumours(volume, np.random.default_rng([options.seed, number]))
        target.parent.mkdir(parents=True, exist_ok=True)
        write_labels(target, volume)
    made = paint_set(
        options.out / "labels",
        options.out / "painted",
        seed=options.seed,
        workers=options.workers,
        progress=Progress(stream=sys.stderr),
    )
    test, rest = sorted(drawn[: options.test]), sorted(drawn[options.test :])
    write_folds(options.out / "folds.json", (tuple(test), tuple(rest)))
    (options.out / "truth").mkdir(exist_ok=True)
    for name in test:
        shutil.copy(options.out / "painted" / name / "segmentation.nii.gz", options.out / "truth" / f"{name}.nii.gz")
    print(json.dumps({"painted": len(made.cases), "test": len(test), "failed": made.failures}))
    return 1 if made.failures else 0


if __name__ == "__main__":
    sys.exit(main())
