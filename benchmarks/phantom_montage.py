"""Draws the montage of phantoms in docs/explanation/phantom.jpg.

    python benchmarks/phantom_montage.py docs/explanation/phantom.jpg

Six rows: one patient in five phases; renal masses; liver lesions and anomalies of the kidneys; the trunk from chest to
pelvis; randomised appearance; other bodies painted around label maps of phantoms, as ``hilum data paint`` does around
real ones, whose licence keeps them out of here. Soft tissue window, -160 to 240 HU, the patient's right on the left.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hilum.phantom import PhantomCase, make_case
from hilum.phantom.kidneys import ANOMALIES
from hilum.phantom.paint import paint_around
from hilum.phantom.patient import Patient, draw_patient
from hilum.phantom.tissues import PHASES

TILE = 300
PLANE = 320


def case_of(seed: int, slices: int = 44, thick: float = 4.0, **options: Any) -> PhantomCase:
    """A patient on a grid for pictures."""
    return make_case(seed, shape=(PLANE, PLANE, slices), spacing_mm=(1.22, 1.22, thick), **options)


def tile(plane_HU: np.ndarray, tall: float = 1.0) -> np.ndarray:
    """One windowed picture; ``tall`` is the height of a pixel over its width."""
    grey = Image.fromarray((np.clip((plane_HU.astype(float) + 160) / 400, 0, 1) * 255).astype(np.uint8))
    high, wide = plane_HU.shape[0] * tall, float(plane_HU.shape[1])
    scale = TILE / max(high, wide)
    grey = grey.resize((max(1, round(wide * scale)), max(1, round(high * scale))), Image.Resampling.BILINEAR)
    out = Image.new("L", (TILE, TILE))
    out.paste(grey, ((TILE - grey.width) // 2, (TILE - grey.height) // 2))
    return np.array(out)


def axial(case: PhantomCase, z_mm: float) -> np.ndarray:
    """The axial slice at a height (mm)."""
    ct = case.ct.oriented("SPL")
    k = round(float(ct.grid.index([0.0, 0.0, z_mm])[0]))
    return tile(ct.array[int(np.clip(k, 0, len(ct.array) - 1))])


def lesion(subtype: str, phase: str, fits: Callable[[float], bool], first: int = 0, liver: bool = False) -> np.ndarray:
    """The slice through the first lesion of a kind and size (mL)."""
    for seed in range(first, first + 400):
        patient = draw_patient(seed, liver=liver)
        if patient.anomaly or not any(x.subtype == subtype and fits(ml(x, patient)) for x in patient.lesions):
            continue
        case = case_of(seed, phase=phase, labels="lits" if liver else "kits")
        there = [x for x in case.facts["lesions"] if x["subtype"] == subtype]
        if there:
            return axial(case, max(there, key=lambda x: float(x["volume_ml"]))["centre_mm"][2])
    raise SystemExit(f"no {subtype} in 400 patients")


def ml(mass: Any, patient: Patient) -> float:
    """Volume of a lesion's outline."""
    return float(np.prod(mass.shape.radii)) * 4.18879 * patient.torso.scale**3 / 1000


def anomaly(kind: str) -> np.ndarray:
    """A slice through an anomalous kidney."""
    seed = next(s for s in range(3000) if draw_patient(s).anomaly == kind)
    case = case_of(seed, slices=70, phase="nephrographic")
    labels = case.labels.oriented("SPL")
    area = (labels.array > 0).sum(axis=(1, 2)).astype(float)
    z = labels.world([[k, 0, 0] for k in range(len(area))])[:, 2]
    where = {"horseshoe": -88.0, "ectopic": -135.0, "absent": 0.0}[kind]
    return axial(case, float(z[np.argmax(area - 1e9 * (np.abs(z - where) > 25))]))


def painted(seed: int, phase: str) -> np.ndarray:
    """Another body around the label map of a phantom, where most is labelled."""
    labels = case_of(seed, slices=70).labels
    ct = paint_around(labels, seed + 1, phase=phase).ct.oriented("SPL")
    area = (labels.oriented("SPL").array > 0).sum(axis=(1, 2))
    return tile(ct.array[int(np.argmax(area))])


def seed_with(fits: Callable[[Patient], bool]) -> int:
    """The first seed of a patient."""
    return next(s for s in range(3000) if fits(draw_patient(s)))


def main() -> None:
    """Paint and save."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("out", type=Path)
    options = words.parse_args()
    rows = [[axial(case_of(11, phase=phase), 2.0) for phase in PHASES]]
    rows.append(
        [
            lesion("clear_cell", "arterial", lambda v: 60 < v < 160),
            lesion("papillary", "nephrographic", lambda v: 15 < v < 90),
            lesion("chromophobe", "nephrographic", lambda v: 20 < v < 120),
            lesion("fat_rich", "nephrographic", lambda v: 15 < v < 120),
            lesion("complex", "nephrographic", lambda v: 20 < v < 150),
        ]
    )
    rows.append(
        [
            lesion("metastasis", "nephrographic", lambda v: 8 < v < 60, liver=True),
            lesion("hcc", "arterial", lambda v: 15 < v < 80, liver=True),
            lesion("haemangioma", "arterial", lambda v: 8 < v < 60, liver=True),
            *(anomaly(kind) for kind in ANOMALIES if kind != "absent"),
        ]
    )
    whole = case_of(21, slices=150, thick=5.0, phase="nephrographic")
    ct = whole.ct.oriented("SPL")
    rows.append([axial(whole, z) for z in (180.0, 110.0, -165.0)])
    rows[-1].append(tile(ct.array[::-1, round(PLANE * 0.56)], 5.0 / 1.22))
    rows[-1].append(tile(ct.array[::-1, :, PLANE // 2], 5.0 / 1.22))
    rows.append([axial(case_of(seed, appearance="random"), 2.0) for seed in range(31, 36)])
    bulky = seed_with(lambda p: not p.anomaly and any(ml(x, p) > 250 for x in p.lesions if x.kind == "tumour"))
    cystic = seed_with(lambda p: not p.anomaly and sum(x.kind == "cyst" for x in p.lesions) >= 4)
    several = seed_with(lambda p: not p.anomaly and sum(x.kind == "tumour" for x in p.lesions) >= 3)
    odd = [seed_with(lambda p, kind=kind: p.anomaly == kind) for kind in ("horseshoe", "absent")]
    phases = ("arterial", "nephrographic", "arterial", "nephrographic", "excretory")
    rows.append([painted(s, phase) for s, phase in zip((bulky, cystic, several, *odd), phases, strict=True)])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.vstack([np.hstack(row) for row in rows])).save(options.out, quality=82, optimize=True)


if __name__ == "__main__":
    main()
