"""Lesions one by one, and LiTS's correspondence of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from hilum.judge.detection import detect
from hilum.judge.lesions import (
    LISTED,
    bins,
    find_lesions,
    lesion_counts,
    lesion_lists,
    lesion_rates,
    sphere_mm,
)
from hilum.judge.lits import scan_order
from hilum.volume import Grid

DIAMETERS = (10.0, 20.0, 40.0)
NAMES = tuple(name for name, _, _ in bins(DIAMETERS))
MASKS = hnp.array_shapes(min_dims=3, max_dims=3, max_side=7).flatmap(
    lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape))
)


def grid(shape: tuple[int, ...], spacing: float = 1.0) -> Grid:
    a, b, c = shape
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = (-10, 20, 30)
    return Grid((a, b, c), affine)


def boxes(shape: tuple[int, int, int], *places: tuple[slice, slice, slice]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    for place in places:
        mask[place] = True
    return mask


def example() -> tuple[np.ndarray, np.ndarray]:
    """Three true lesions: one well found, one barely touched, one missed; and one invented."""
    cut = np.s_
    truth = boxes((20, 20, 20), cut[0:4, 0:4, 0:4], cut[8:12, 0:4, 0:4], cut[0:2, 10:12, 10:12])
    prediction = boxes((20, 20, 20), cut[0:4, 0:4, 0:5], cut[11:12, 0:4, 0:4], cut[15:18, 15:18, 15:18])
    return truth, prediction


def test_worked_numbers() -> None:
    truth, prediction = example()
    lesions = find_lesions(truth, prediction, grid(truth.shape))
    counts = lesion_counts(lesions, 0.5, DIAMETERS)
    rates = {name: float(value) for name, value in lesion_rates(counts, NAMES).items()}
    assert (counts["gt"], counts["pred"], counts["tp"], counts["touched"], counts["invented"]) == (3, 3, 1, 2, 1)
    assert rates["lesion_precision"] == rates["lesion_sensitivity"] == rates["lesion_f1"] == 1 / 3
    assert rates["panoptic_quality"] == pytest.approx(64 / 80 / 3)
    assert rates["lesion_sensitivity_any"] == rates["lesion_precision_any"] == rates["lesion_f1_any"] == 2 / 3
    assert rates["lesion_dice"] == pytest.approx((128 / 144 + 32 / 80 + 0) / 3)
    assert rates["lesion_sensitivity_under_10mm"] == 1 / 3  # 64 mm3 is a sphere of 5 mm
    assert math.isnan(rates["lesion_sensitivity_40mm_up"])


def test_missed_and_invented_lesions_are_listed_with_place_and_size() -> None:
    truth, prediction = example()
    lists = lesion_lists(find_lesions(truth, prediction, grid(truth.shape, 2.0)))
    assert [item["volume_ml"] for item in lists["missed"]] == [0.064]
    assert lists["missed"][0]["place_mm"] == [-10 + 2 * 0.5, 20 + 2 * 10.5, 30 + 2 * 10.5]
    assert lists["invented"][0]["place_mm"] == [-10 + 2 * 16, 20 + 2 * 16, 30 + 2 * 16]
    assert lists["invented"][0]["diameter_mm"] == pytest.approx(7.4, abs=0.05)
    assert [item["volume_ml"] for item in lists["found"]] == [0.512, 0.512]
    assert all("dice" in item for item in lists["found"])


def test_two_way_match_is_one_to_one() -> None:
    cut = np.s_
    truth = boxes((4, 4, 12), cut[:, :, 0:4], cut[:, :, 5:9])
    prediction = boxes((4, 4, 12), cut[:, :, 0:9])  # one prediction over both: overlap 4/9 of the union each
    lesions = find_lesions(truth, prediction, grid(truth.shape))
    assert lesion_counts(lesions, 0.4, DIAMETERS)["tp"] == 1
    assert lesion_counts(lesions, 0.5, DIAMETERS)["tp"] == 0
    assert lesion_counts(lesions, 0.5, DIAMETERS)["touched"] == 2


def test_connectivity_decides_what_is_one_lesion() -> None:
    mask = np.zeros((3, 3, 3), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    counts = [len(find_lesions(mask, mask, grid(mask.shape), c).truth_voxels) for c in (6, 18, 26)]
    assert counts == [2, 2, 1]


def test_bins_and_spheres() -> None:
    assert NAMES == ("under_10mm", "10_20mm", "20_40mm", "40mm_up")
    assert sphere_mm(np.array(4 / 3 * math.pi * 20**3 / 1000)) == pytest.approx(40.0)


def test_a_noisy_prediction_is_listed_in_part_and_counted_in_full() -> None:
    specks = np.zeros((24, 24, 24), bool)
    specks[::2, ::2, ::2] = True
    lesions = find_lesions(np.zeros_like(specks), specks, grid(specks.shape))
    assert lesion_counts(lesions, 0.5, DIAMETERS)["invented"] == 12**3
    assert len(lesion_lists(lesions)["invented"]) == LISTED


def test_empty_sides() -> None:
    none, some = np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool)
    rates = lesion_rates(lesion_counts(find_lesions(none, none, grid(none.shape)), 0.5, DIAMETERS), NAMES)
    assert all(np.isnan(value) for value in rates.values())
    missed = lesion_rates(lesion_counts(find_lesions(some, none, grid(none.shape)), 0.5, DIAMETERS), NAMES)
    assert missed["lesion_f1_any"] == missed["lesion_f1"] == missed["lesion_dice"] == 0
    invented = lesion_rates(lesion_counts(find_lesions(none, some, grid(none.shape)), 0.5, DIAMETERS), NAMES)
    assert invented["lesion_f1_any"] == invented["panoptic_quality"] == 0


@given(MASKS)
@settings(max_examples=60, deadline=None)
def test_overlaps_agree_with_brute_force(masks: tuple[np.ndarray, np.ndarray]) -> None:
    truth, prediction = masks
    lesions = find_lesions(truth, prediction, grid(truth.shape))
    labels, count = ndimage.label(truth, np.ones((3, 3, 3)))
    assert sorted(lesions.truth_voxels.tolist()) == sorted(np.bincount(labels.ravel())[1:].tolist())
    touched = sum(bool((prediction & (labels == i)).any()) for i in range(1, count + 1))
    assert lesions.touched()[0].sum() == touched
    assert lesions.shared.sum() == (truth & prediction).sum()
    rows, ious = lesions.matches(0.5)
    assert len(set(lesions.pairs[rows, 0].tolist())) == len(rows) == len(set(lesions.pairs[rows, 1].tolist()))
    assert ((ious > 0.5) & (ious <= 1)).all()
    same = lesion_rates(lesion_counts(find_lesions(truth, truth, grid(truth.shape)), 0.5, DIAMETERS), NAMES)
    assert not count or same["panoptic_quality"] == same["lesion_f1"] == same["lesion_dice"] == 1


@given(MASKS)
@settings(max_examples=60, deadline=None)
def test_components_are_numbered_as_scipy_does(masks: tuple[np.ndarray, np.ndarray]) -> None:
    want, count = ndimage.label(masks[0])
    got, number = scan_order(masks[0])
    assert number == count
    assert np.array_equal(got, want)


def table_of(truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels, n_truth = ndimage.label(truth)
    found, n_prediction = ndimage.label(prediction)
    table = np.zeros((n_prediction + 1, n_truth + 1), int)
    np.add.at(table, (found.ravel(), labels.ravel()), 1)
    return table[:, 1:].sum(axis=0), table[1:].sum(axis=1), table[1:, 1:]


def test_lits_bridging_counts_once_and_is_taken_away_many_times() -> None:
    cut = np.s_
    truth = boxes((9, 9, 30), cut[4:5, 4:5, 0:5], cut[4:5, 4:5, 10:15], cut[4:5, 4:5, 20:25])
    bridge = boxes((9, 9, 30), cut[4:5, 4:5, 0:25])
    fat = boxes((9, 9, 30), cut[:, :, 0:25])
    thin, thick = detect(*table_of(truth, bridge), 0.5), detect(*table_of(truth, fat), 0.5)
    assert (thin.tp, thin.fp, thin.fn) == (1, 0, 2)
    assert (thick.tp, thick.fp, thick.fn) == (-2, 3, 5)
    mended = detect(*table_of(truth, bridge), 0.5, official=False)
    assert (mended.tp, mended.fp, mended.fn, mended.hits) == (3, 0, 0, 1)
    rejected = detect(*table_of(truth, fat), 0.5, official=False)
    assert (rejected.tp, rejected.fp, rejected.fn, rejected.hits) == (0, 1, 3, 0)


def test_lits_split_prediction_is_one_detection_and_false_positives() -> None:
    cut = np.s_
    truth = boxes((3, 3, 12), cut[:, :, 0:11])
    split = boxes((3, 3, 12), cut[:, :, 0:5], cut[:, :, 6:11])
    official, mended = (detect(*table_of(truth, split), 0.5, official=o) for o in (True, False))
    assert (official.tp, official.fp, official.fn) == (1, 1, 0)
    assert (mended.tp, mended.fp, mended.fn, mended.hits) == (1, 0, 0, 2)
    assert official.groups == mended.groups == [([1, 2], [1])]


def test_lits_nothing_touches() -> None:
    nothing = detect(np.array([4, 5]), np.array([3]), np.zeros((1, 2), int), 0.0)
    assert (nothing.tp, nothing.fp, nothing.fn, nothing.groups) == (0, 1, 2, [])
    assert detect(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 0), int), 0.5).tp == 0


@given(MASKS)
@settings(max_examples=80, deadline=None)
def test_mended_detection_is_sound(masks: tuple[np.ndarray, np.ndarray]) -> None:
    sizes = table_of(*masks)
    loose, strict = detect(*sizes, 0.0, official=False), detect(*sizes, 0.5, official=False)
    assert 0 <= strict.tp <= loose.tp <= len(sizes[0])
    assert strict.fp >= loose.fp >= 0
    assert loose.tp + loose.fn == len(sizes[0])
    same = detect(*table_of(masks[0], masks[0]), 0.5, official=False)
    assert (same.fp, same.fn) == (0, 0)
