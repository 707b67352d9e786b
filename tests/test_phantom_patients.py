"""What phantoms are drawn from: brightness by phase, anomalies, masses, extents, exact arithmetic."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.phantom import make_case
from hilum.phantom.acquisition import acquire, draw_scanner, make_grid
from hilum.phantom.contrast import draw_contrast
from hilum.phantom.exact import arctangent, blur, cosine, gain, gaussian_weights
from hilum.phantom.extent import draw_extent
from hilum.phantom.kidneys import ANOMALIES
from hilum.phantom.lesions import Lesion, tissue_hu
from hilum.phantom.patient import ANOMALY_SHARE, Patient, draw_patient, stream
from hilum.phantom.shapes import Ellipsoid
from hilum.phantom.tissues import ENHANCED, ENHANCED_BY, PHASES, PLAIN, SOURCES, expected

COARSE = {"shape": (64, 56, 44), "spacing_mm": (6.0, 6.0, 6.0)}


def test_every_row_of_the_table_names_a_source() -> None:
    assert PHASES == ("none", "arterial", "nephrographic", "delayed", "excretory")
    assert {source for _, _, source in PLAIN.values()} | set(ENHANCED_BY.values()) <= set(SOURCES)
    assert all(set(added) <= set(PLAIN) for added in ENHANCED.values()) and not ENHANCED["none"]
    assert expected("liver", "none")[0] == PLAIN["liver"][0]
    assert expected("cortex", "arterial")[0] - expected("medulla", "arterial")[0] > 100, "corticomedullary"
    assert expected("urine", "excretory")[0] > 400 > 100 > expected("urine", "nephrographic")[0]
    assert expected("clear_cell", "arterial")[0] > 2 * expected("papillary", "arterial")[0]


@pytest.mark.parametrize("phase", PHASES)
def test_drawn_hu_follow_the_table(phase: str) -> None:
    drawn = [draw_contrast(np.random.default_rng(k), phase, 0.0).hu for k in range(150)]
    for tissue in ("spleen", "aorta", "cortex", "medulla", "muscle", "pancreas", "clear_cell", "urine"):
        values = np.array([hu[tissue] for hu in drawn])
        mean, spread = expected(tissue, phase)
        assert abs(values.mean() - mean) < 0.4 * spread + 1, tissue
        assert 0.6 * spread < values.std() < 1.4 * spread, tissue


def test_painted_organs_have_the_hu_that_were_drawn() -> None:
    for phase in ("none", "excretory"):
        case = make_case(3, labels="ircadb", phase=phase, shape=(100, 88, 36), spacing_mm=(3.8, 3.8, 6.0))
        drawn = draw_patient(3, phase=phase, liver=True).contrast.hu
        for tissue, value in (("liver", 1), ("spleen", 6)):
            assert np.median(case.ct.array[case.labels.array == value]) == pytest.approx(drawn[tissue], abs=7)


def test_random_appearance_goes_beyond_people() -> None:
    usual = np.array([draw_contrast(np.random.default_rng(k), None, 0.1).hu["liver"] for k in range(150)])
    wide = [draw_contrast(np.random.default_rng(k), None, 0.1, appearance="random") for k in range(150)]
    livers = np.array([contrast.hu["liver"] for contrast in wide])
    assert livers.std() > usual.std() and {contrast.phase for contrast in wide} == {"random"}
    for contrast in wide:  # and yet it is CT
        assert contrast.hu["fat"] < -60 and contrast.hu["lung"] < -600 and contrast.hu["cortical"] > 350


@pytest.mark.parametrize("anomaly", ANOMALIES)
def test_anomalies_are_told(anomaly: str) -> None:
    patient = draw_patient(11, anomaly=anomaly)
    assert patient.anomaly == anomaly and len(patient.kidneys) == (1 if anomaly == "absent" else 2)
    lowest = min(kidney.centre[2] for kidney in patient.kidneys)
    assert (lowest < -100) == (anomaly == "ectopic")


@pytest.fixture(scope="module")
def patients() -> list[Patient]:
    return [draw_patient(seed) for seed in range(70)]


def test_anomalies_are_drawn_now_and_then(patients: list[Patient]) -> None:
    drawn = [patient.anomaly for patient in patients]
    assert 0 < sum(map(bool, drawn)) < 14
    seed = next(s for s in range(70) if drawn[s])
    assert not draw_patient(seed, small=True).anomaly
    case = make_case(seed, **COARSE)  # type: ignore[arg-type]
    assert case.facts["anomaly"] == drawn[seed]


def test_a_horseshoe_is_one_piece() -> None:
    import cc3d

    odd = (s for s in range(400) if stream(s, 6).uniform(size=2)[0] < ANOMALY_SHARE)
    seed = next(s for s in odd if draw_patient(s).anomaly == "horseshoe")
    case = make_case(seed, shape=(120, 104, 60), spacing_mm=(3.2, 3.2, 4.0))
    pieces, count = cc3d.connected_components((case.labels.array > 0).astype(np.uint8), return_N=True)
    sizes = np.bincount(pieces.ravel())[1:]
    assert sizes.max() > 0.9 * sizes.sum(), sizes[:count]


def test_masses_are_of_all_kinds(patients: list[Patient]) -> None:
    drawn = [draw_patient(seed, liver=True) for seed in range(20)]
    lesions = [lesion for patient in (*patients, *drawn) for lesion in patient.lesions]
    kinds = {lesion.subtype for lesion in lesions}
    assert kinds == {
        "clear_cell", "papillary", "chromophobe", "fat_rich", "simple", "complex", "metastasis", "hcc", "haemangioma"
    }  # fmt: skip
    outward = [lesion.exophytic for lesion in lesions if lesion.kind == "tumour"]
    assert min(outward) < 0.2 and max(outward) > 0.7
    with_liver = [any(x.kind == "liver tumour" for x in patient.lesions) for patient in drawn]
    assert np.mean(with_liver) > 0.6
    assert not any(x.kind == "tumour" for patient in drawn for x in patient.lesions)


def test_subtypes_look_like_themselves() -> None:
    rng = np.random.default_rng(0)
    ripple, texture = (rng.standard_normal(4000).astype(np.float32) for _ in range(2))
    distance = -rng.uniform(0, 20, 4000).astype(np.float32)
    hu = draw_contrast(np.random.default_rng(1), "arterial", 0.0).hu
    nowhere = Ellipsoid((0, 0, 0), (20, 20, 20))

    def inside(subtype: str, necrosis: float = 0.0) -> np.ndarray:
        lesion = Lesion("tumour", subtype, 1, nowhere, mottle=8.0, necrosis=necrosis)  # type: ignore[arg-type]
        dead = distance + np.float32(10) if necrosis else None
        return tissue_hu(lesion, distance, dead, ripple, texture, hu)

    assert np.median(inside("clear_cell")) > np.median(inside("chromophobe")) > np.median(inside("papillary"))
    assert np.percentile(inside("fat_rich"), 10) < -30, "fat shows"
    deep = distance < -14
    assert np.median(inside("clear_cell", 0.5)[deep]) < 60 < np.median(inside("clear_cell", 0.5)[distance > -6])
    assert np.median(inside("simple")) < 20 and inside("complex").max() > np.median(inside("simple")) + 15
    rim = distance > -3
    assert np.median(inside("haemangioma")[rim]) > np.median(inside("haemangioma")[~rim]) + 25


def test_extents_are_those_of_kits() -> None:
    extents = [draw_extent(np.random.default_rng(k), 1.0, -60.0) for k in range(400)]
    spacings = np.array([extent.spacing_mm for extent in extents])
    slices = [(e.top_mm - e.bottom_mm) / e.spacing_mm for e in extents]
    assert (spacings.min(), float(np.median(spacings)), spacings.max()) == (0.5, 3.0, 5.0)
    assert min(slices) < 40 and 80 < np.median(slices) < 180 and max(slices) > 700
    assert all(extent.bottom_mm <= -72 and extent.top_mm >= 70 for extent in extents)


@given(st.floats(-50, 50), st.floats(-50, 50))
def test_exact_functions_are_near_the_real_ones(y: float, x: float) -> None:
    a, b = np.float32([y]), np.float32([x])
    assert cosine(a)[0] == pytest.approx(np.cos(np.float64(a[0])), abs=2e-4)
    if abs(x) + abs(y) > 1e-3:
        assert arctangent(a, b)[0] == pytest.approx(np.arctan2(a[0] + np.float32(0), b[0]), abs=3e-4)


def test_blur_keeps_the_mean_and_shrinks_noise_as_told() -> None:
    assert gaussian_weights(0.1) == [1.0]
    assert sum(gaussian_weights(1.3)) * 2 - gaussian_weights(1.3)[0] == pytest.approx(1, abs=1e-4)
    noise = np.random.default_rng(0).standard_normal((300, 300), dtype=np.float32)
    soft = blur(noise, 1.5, 0.8)
    assert soft[10:-10, 10:-10].std() == pytest.approx(gain(1.5, 0.8), rel=0.05)
    assert blur(np.full((9, 9), np.float32(7)), 1.0, 2.0) == pytest.approx(np.full((9, 9), 7), abs=1e-3)


def test_noise_is_coloured_padding_is_round_and_streaks_run_along_rows() -> None:
    from dataclasses import replace

    planes = [np.full((96, 96), np.float32(40)) for _ in range(6)]
    plain = draw_scanner(np.random.default_rng(1), plain=True)
    assert plain.padding_hu is None and plain.streaks_hu == 0
    image = np.stack(list(acquire(planes, (0.8, 0.8, 2.5), plain, np.random.default_rng(0)))).astype(float)
    assert image.std() == pytest.approx(plain.noise_spread((0.8, 0.8, 2.5)), rel=0.12)
    coarse = np.stack(list(acquire(planes, (5.0, 5.0, 5.0), plain, np.random.default_rng(0)))).astype(float)
    assert coarse.std() == pytest.approx(plain.noise_spread((5.0, 5.0, 5.0)), rel=0.12), "on any grid"
    power = np.mean([np.abs(np.fft.fft2(plane - plane.mean())) ** 2 for plane in image], axis=0)
    low, middle = power[1:4, 0].mean(), power[14:24, 0].mean()
    assert low < 0.6 * middle, "low frequencies are weak, as after filtered back-projection"
    round_field = replace(plain, padding_hu=-2048)
    image = np.stack(list(acquire(planes, (0.8, 0.8, 2.5), round_field, np.random.default_rng(0))))
    assert (image[:, 0, 0] == -2048).all() and image[0, 48, 0] > -500 and image[0, 48, 48] > -500
    wide = [np.full((64, 512), np.float32(40)) for _ in range(2)]
    streaky = replace(plain, streaks_hu=25.0, noise_hu=0.0)
    image = np.stack(list(acquire(wide, (0.9, 0.9, 2.5), streaky, np.random.default_rng(0)))).astype(float)
    along = np.corrcoef(image[0, :, :-6].ravel(), image[0, :, 6:].ravel())[0, 1]
    across = np.corrcoef(image[0, :-6].ravel(), image[0, 6:].ravel())[0, 1]
    assert along > 0.4 > across + 0.2


def test_grids_are_centred() -> None:
    grid = make_grid((10, 12, 8), (1.0, 2.0, 3.0), (5.0, 6.0, 7.0))
    assert grid.world([4.5, 5.5, 3.5]) == pytest.approx([5, 6, 7])


VOXELS = """
import hashlib, sys
import numpy as np
from numpy._core import _multiarray_umath as inside
from hilum.phantom import make_case
from hilum.phantom.paint import paint_around
from hilum.volume import Volume
assert len(sys.argv) < 2 or not any(inside.__cpu_features__[name] for name in inside.__cpu_dispatch__), "still fast"
case = make_case(6, shape=(72, 64, 20), spacing_mm=(5.5, 5.5, 8.0))
other = make_case(3, small=True, labels="trunk", appearance="random")
scans = [case.ct, case.labels, other.ct, other.labels, paint_around(case.labels, 5).ct]
print(hashlib.sha256(b"".join(np.ascontiguousarray(scan.array).tobytes() for scan in scans)).hexdigest())
"""
# of what VOXELS paints; whoever changes what phantoms look like writes a new one, and trains the shipped model again
DIGEST = "94e0cf432a54bb251bcb927a370ac99d346921b165fbf691707b05d30a0a7619"


@pytest.mark.skipif(not hasattr(np, "_core"), reason="NumPy below 2 hides what it dispatches")
@pytest.mark.parametrize("slow", [False, True])
def test_the_processor_changes_no_voxel(slow: bool) -> None:
    """NumPy's and the C library's fast paths differ in the last bit of some functions; what is painted must not."""
    from numpy._core._multiarray_umath import __cpu_dispatch__

    table = {
        "NPY_DISABLE_CPU_FEATURES": " ".join(__cpu_dispatch__), "OPENBLAS_CORETYPE": "Prescott", "OMP_NUM_THREADS": "1",
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX,-AVX2,-FMA,-FMA4,-AVX512F,-AVX2_Usable,-FMA_Usable",
    }  # fmt: skip
    words = [sys.executable, "-W", "ignore", "-c", VOXELS, *(["slow"] if slow else [])]
    env = {**os.environ, **(table if slow else {})}
    found = subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout
    assert found.strip() == DIGEST
