"""What the scan says under a mask: HU statistics, enhancement, fluid, heterogeneity.

Comes in: HU values of the voxels of a mask, or a cut-out of the scan with the mask. Goes out: plain numbers, null
where there is no scan. It knows no labels and no organs.

Fluid and necrosis. Homogeneous contents of -9 to 20 HU are fluid by the Bosniak classification of 2019 (Silverman et
al., Radiology 292, 2019, 475-488). Noise is averaged over 3 x 3 voxels of the same lesion in the slice, and voxels
within ``RIM_MM`` of the lesion's border, which are partly something else, are left out. With two phases a voxel is
necrotic if it does not enhance (below ``UNEQUIVOCAL_HU`` of change, same source); with one phase if it is as dense as
fluid. Either is a density, not histology: blood, gas or calcification in a dead core are missed,
and averaging takes about a voxel off its border.

Enhancement: 20 HU and more is unequivocal, 10 to 20 HU equivocal (Bosniak 2019).
"""

from __future__ import annotations

from typing import Any

import edt
import numpy as np
from scipy.ndimage import uniform_filter

from hilum.volume import Grid

PERCENTILES = (5, 25, 50, 75, 95)
FLUID_HU = (-9.0, 20.0)
EQUIVOCAL_HU, UNEQUIVOCAL_HU = 10.0, 20.0
ENTROPY_BIN_HU = 25
RIM_MM = 2.0
FEWEST_CORE_VOXELS = 10
CYSTIC_SHARE, SOLID_SHARE = 0.75, 0.25


def hu_statistics(hu: np.ndarray | None) -> dict[str, Any]:
    """``hu_mean``, ``hu_sd`` and ``hu_percentiles`` (5, 25, 50, 75, 95, to 1 HU); all null without a scan.

    Args:
        hu: HU of the voxels, any shape.
    """
    if hu is None or hu.size == 0:
        return {"hu_mean": None, "hu_sd": None, "hu_percentiles": None}
    lowest, counts = _histogram(hu)
    values = lowest + np.arange(len(counts))
    if hu.dtype.kind in "iu":
        mean = float(values @ counts / hu.size)
        sd = float(np.sqrt((values - mean) ** 2 @ counts / hu.size))
    else:
        mean, sd = float(hu.mean(dtype=np.float64)), float(hu.std(dtype=np.float64))
    ranks = np.searchsorted(np.cumsum(counts), [p / 100 * hu.size for p in PERCENTILES])
    percentiles = {f"p{p}": float(values[rank]) for p, rank in zip(PERCENTILES, ranks, strict=True)}
    return {"hu_mean": mean, "hu_sd": sd, "hu_percentiles": percentiles}


def _histogram(hu: np.ndarray) -> tuple[int, np.ndarray]:
    """The lowest HU and how many voxels have it, the next one, ..."""
    flat = hu.ravel()
    whole = (flat if flat.dtype.kind in "iu" else np.round(np.clip(flat, -32768, 32767))).astype(np.int32)
    lowest = int(whole.min())
    return lowest, np.bincount(whole - lowest)


def enhancement(hu: np.ndarray | None, second: np.ndarray | None) -> dict[str, Any] | None:
    """How the density changes from the scan to the second phase; None unless both are there.

    Returns:
        ``hu_mean_second``, ``hu_sd_second``, ``change_hu`` (second less first) and ``judgement``: "enhancing",
        "equivocal" or "none", by the size of the change, whichever scan came first.
    """
    if hu is None or second is None or hu.size == 0:
        return None
    mean = float(second.mean(dtype=np.float64))
    change = mean - float(hu.mean(dtype=np.float64))
    size = abs(change)
    judgement = "enhancing" if size >= UNEQUIVOCAL_HU else "equivocal" if size >= EQUIVOCAL_HU else "none"
    return {
        "hu_mean_second": mean,
        "hu_sd_second": float(second.std(dtype=np.float64)),
        "change_hu": change,
        "judgement": judgement,
    }


def texture(
    mask_DHW: np.ndarray, grid: Grid, hu_DHW: np.ndarray | None, second_DHW: np.ndarray | None
) -> dict[str, Any]:
    """Heterogeneity, fluid and necrosis of one lesion.

    Args:
        mask_DHW: the lesion, cut out.
        grid: of the cut-out.
        hu_DHW: the scan in the same box, or None.
        second_DHW: a second phase in the same box, or None.

    Returns:
        ``heterogeneity``: ``iqr_hu``, ``entropy_bits`` (bins of 25 HU), ``core_minus_rim_hu`` (mean of the voxels
        deeper than half of the greatest depth less that of the others); ``fluid_percent`` of the core between -9 and
        20 HU; ``necrosis``: ``percent`` and ``basis`` ("no enhancement" or "density of fluid"). Null without a scan;
        percentages null with fewer than ten voxels deeper than 2 mm.
    """
    if hu_DHW is None:
        return {"heterogeneity": None, "fluid_percent": None, "necrosis": None}
    depth_mm = edt.edt(np.pad(mask_DHW, 1), anisotropy=grid.spacing_mm)[1:-1, 1:-1, 1:-1]
    hu = hu_DHW[mask_DHW]
    lowest, counts = _histogram(hu)
    bins = (lowest + np.arange(len(counts))) // ENTROPY_BIN_HU
    share = np.bincount(bins - bins[0], counts) / hu.size
    share = share[share > 0]
    deep = depth_mm[mask_DHW] > depth_mm.max() / 2
    quartiles = hu_statistics(hu)["hu_percentiles"]
    heterogeneity = {
        "iqr_hu": quartiles["p75"] - quartiles["p25"],
        "entropy_bits": float(-(share * np.log2(share)).sum()),
        "core_minus_rim_hu": None if deep.all() else float(hu[deep].mean() - hu[~deep].mean()),
    }
    core = depth_mm > RIM_MM
    if int(core.sum()) < FEWEST_CORE_VOXELS:
        return {"heterogeneity": heterogeneity, "fluid_percent": None, "necrosis": None}
    smooth = _averaged(hu_DHW, mask_DHW)[core]
    fluid_percent = 100.0 * float(((smooth >= FLUID_HU[0]) & (smooth <= FLUID_HU[1])).mean())
    dead, basis = fluid_percent, "density of fluid"
    if second_DHW is not None:
        change = _averaged(second_DHW, mask_DHW)[core] - smooth
        dead, basis = 100.0 * float((np.abs(change) < UNEQUIVOCAL_HU).mean()), "no enhancement"
    return {
        "heterogeneity": heterogeneity,
        "fluid_percent": fluid_percent,
        "necrosis": {"percent": dead, "basis": basis},
    }


def _averaged(hu_DHW: np.ndarray, mask_DHW: np.ndarray) -> np.ndarray:
    """Each voxel's mean over the 3 x 3 voxels around it in the slice that belong to the mask."""
    size = (1, 3, 3)
    weight = uniform_filter(mask_DHW.astype(np.float32), size, mode="constant")
    total = uniform_filter(np.where(mask_DHW, hu_DHW, 0).astype(np.float32), size, mode="constant")
    mean: np.ndarray = total / np.maximum(weight, 1e-6)
    return mean


def composition(fluid_percent: float | None, kind: str) -> dict[str, Any]:
    """Solid or cystic, and what says so.

    With a scan: "cystic" if at least 75 % of the core is fluid (Bosniak 2019 calls a mass cystic if less than 25 % of
    it enhances), "solid" if at most 25 % is, else "mixed"; ``basis`` "HU". Without: a cyst is "cystic" because its
    label says so, a tumour is null.
    """
    if fluid_percent is None:
        return {"value": "cystic", "basis": "label"} if kind == "cyst" else {"value": None, "basis": None}
    share = fluid_percent / 100
    value = "cystic" if share >= CYSTIC_SHARE else "solid" if share <= SOLID_SHARE else "mixed"
    return {"value": value, "basis": "HU"}
