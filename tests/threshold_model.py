"""Models and scans for the tests of inference: what a network by thresholds says is known without running it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hilum.config import InferenceOptions
from hilum.labels import SCHEMES, LabelScheme
from hilum.model import Model, NetworkSpec, load_model, save_model
from hilum.prepare.conventions import OWN, Conventions
from hilum.prepare.plan import Normalisation, Plan
from hilum.volume import INSIDE, Grid, Volume

HU_OF_CLASS = (-100, 100, 200, 300)
EDGES_HU = (50.0, 150.0, 250.0)


def make_plan(patch: tuple[int, int, int], spacing_mm: tuple[float, float, float], dims: int = 3) -> Plan:
    strides = ((1, 1, 1), (1, 2, 2) if dims == 2 else (2, 2, 2))
    kernel = (1, 3, 3) if dims == 2 else (3, 3, 3)
    return Plan(
        dims=dims,
        spacing_mm=spacing_mm,
        patch=patch,
        batch=2,
        features=(4, 8),
        kernels=(kernel, kernel),
        strides=strides,
        convs_per_stage=(1, 1),
        normalisation=Normalisation("ct", -1000.0, 1000.0, 0.0, 100.0),
        separate_z=False,
        median_shape=patch,
    )


def threshold_model(
    folder: Path,
    *,
    patch: tuple[int, int, int] = (8, 12, 16),
    spacing_mm: tuple[float, float, float] = (2.0, 1.5, 1.0),
    dims: int = 3,
    folds: int = 1,
    scheme: LabelScheme = SCHEMES["kits"],
    postprocess: tuple[dict[str, Any], ...] = (),
    mirror: bool = False,
    edges_hu: tuple[float, ...] = EDGES_HU,
    conventions: Conventions = OWN,
    first: Path | None = None,
) -> Model:
    """Class k where HU lie between the edges k-1 and k; a little more of it where the model ``first`` found it."""
    edges = edges_hu[: scheme.class_count - 1]
    state = {"edges": torch.tensor(edges) / 100.0}
    channels = scheme.class_count if first else 1
    spec = NetworkSpec("own_networks.thresholds", {}, channels, scheme.class_count, dims)
    plan = replace(make_plan(patch, spacing_mm, dims), conventions=conventions)
    options = InferenceOptions(overlap=0.5, mirror=mirror)
    save_model(
        folder, spec, [state] * folds, plan, scheme, options, postprocess, {"description": "thresholds"}, first=first
    )
    return load_model(folder)


def blocks(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Class indices in coarse blocks, of any odd shape: (D, H, W) uint8, 0 to 3."""
    coarse = np.random.default_rng(seed).integers(0, 4, [n // 4 + 1 for n in shape]).astype(np.uint8)
    return np.kron(coarse, np.ones((4, 4, 4), np.uint8))[: shape[0], : shape[1], : shape[2]]


def scan_of(classes_DHW: np.ndarray, spacing_mm: tuple[float, float, float], codes: str = INSIDE) -> Volume:
    """The scan in which every class has its HU, with its axes listed in another order."""
    hu = np.array(HU_OF_CLASS, np.int16)[classes_DHW]
    return Volume.on(grid_of(classes_DHW.shape, spacing_mm), hu).oriented(codes)


def labels_of(classes_DHW: np.ndarray, spacing_mm: tuple[float, float, float], codes: str = INSIDE) -> Volume:
    """The label map of that scan."""
    return Volume.on(grid_of(classes_DHW.shape, spacing_mm), classes_DHW.astype(np.uint8)).oriented(codes)


def grid_of(shape: tuple[int, ...], spacing_mm: tuple[float, float, float]) -> Grid:
    """An SPL grid of (D, H, W) spacing."""
    d, h, w = spacing_mm
    affine = np.array([[0, 0, -w, 91.3], [0, -h, 0, 80.1], [d, 0, 0, -512.7], [0, 0, 0, 1]])
    grid = Grid((shape[0], shape[1], shape[2]), affine)
    assert grid.codes == INSIDE
    return grid
