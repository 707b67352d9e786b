"""What must hold of every score of protocol plain, whatever the masks: hypothesis looks for counterexamples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from hilum.judge.evaluate import score_case
from hilum.judge.pair import make_pair
from hilum.judge.scoring import ScoreOptions
from hilum.volume import Volume

PAIRS = hnp.array_shapes(min_dims=3, max_dims=3, min_side=2, max_side=6).flatmap(
    lambda shape: st.tuples(*(hnp.arrays(np.uint8, shape, elements=st.sampled_from((0, 0, 0, 1, 2, 3))),) * 2)
)
SPACINGS = st.tuples(*(st.sampled_from((0.7, 1.0, 2.5, 5.0)),) * 3)
MIRRORED = {  # what becomes what when truth and prediction change places
    "precision": "sensitivity",
    "asd_gt_to_pred_mm": "asd_pred_to_gt_mm",
    "surface_area_gt_mm2": "surface_area_pred_mm2",
    "volume_gt_ml": "volume_pred_ml",
    "lesions_gt": "lesions_pred",
    "lesion_precision": "lesion_sensitivity",
    "lesion_precision_any": "lesion_sensitivity_any",
}
MIRRORED |= {b: a for a, b in MIRRORED.items()}
SAME = ("dice", "iou", "mcc", "accuracy", "nsd_1mm", "nsd_5mm", "robust_hd95_mm", "medpy_hd95_mm", "medpy_assd_mm")
SAME += ("medpy_hd_mm", "medpy_rmsd_mm", "lesion_f1", "panoptic_quality")


def scores(truth: np.ndarray, prediction: np.ndarray, affine: np.ndarray) -> dict[str, dict[str, float]]:
    return score_case(Volume(truth, affine), Volume(prediction, affine), "plain", options=ScoreOptions())


def diagonal(spacing: tuple[float, ...]) -> np.ndarray:
    return np.diag([*spacing, 1.0])


@given(PAIRS, SPACINGS)
@settings(max_examples=40, deadline=None)
def test_truth_and_prediction_may_change_places(
    pair: tuple[np.ndarray, np.ndarray], spacing: tuple[float, ...]
) -> None:
    there, back = scores(*pair, diagonal(spacing)), scores(*pair[::-1], diagonal(spacing))
    for region, metrics in there.items():
        for metric in (*SAME, *MIRRORED):
            if metric in metrics:
                other = back[region][MIRRORED.get(metric, metric)]
                assert metrics[metric] == pytest.approx(other, rel=1e-9, nan_ok=True), (region, metric)


@given(PAIRS, SPACINGS)
@settings(max_examples=30, deadline=None)
def test_a_perfect_prediction_is_perfect(pair: tuple[np.ndarray, np.ndarray], spacing: tuple[float, ...]) -> None:
    for region, metrics in scores(pair[0], pair[0], diagonal(spacing)).items():
        for metric, value in metrics.items():
            shares = metric.startswith(("dice", "iou", "nsd", "lesion_f1", "panoptic", "lesion_dice", "mcc"))
            if shares and not np.isnan(value):
                assert value == pytest.approx(1), (region, metric)
            if metric.endswith(("hd95_mm", "hd_mm", "assd_mm", "error_ml")) and not np.isnan(value):
                assert value == 0, (region, metric)


@given(PAIRS, SPACINGS, st.permutations(range(3)), st.tuples(*(st.booleans(),) * 3))
@settings(max_examples=40, deadline=None)
def test_axes_may_be_turned_and_flipped_in_memory(
    pair: tuple[np.ndarray, np.ndarray], spacing: tuple[float, ...], axes: list[int], flips: tuple[bool, ...]
) -> None:
    """Both the array and its affine: the same voxels at the same places, listed in another order."""
    old = scores(*pair, diagonal(spacing))
    turned = [array.transpose(axes)[tuple(slice(None, None, -1 if f else 1) for f in flips)] for array in pair]
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for new, axis in enumerate(axes):
        affine[axis, new] = -spacing[axis] if flips[new] else spacing[axis]
        affine[axis, 3] = spacing[axis] * (pair[0].shape[axis] - 1) if flips[new] else 0
    for region, metrics in scores(turned[0], turned[1], affine).items():
        for metric, value in metrics.items():
            assert value == pytest.approx(old[region][metric], rel=1e-9, nan_ok=True), (region, metric)


@given(PAIRS, SPACINGS)
@settings(max_examples=40, deadline=None)
def test_lesions_agree_with_brute_force(pair: tuple[np.ndarray, np.ndarray], spacing: tuple[float, ...]) -> None:
    ready, _ = make_pair(*(Volume(array, diagonal(spacing)) for array in pair), same_grid=True)
    lesions = ready.region((2, 3)).lesions()
    sides = [ndimage.label(np.isin(array, (2, 3)), np.ones((3, 3, 3))) for array in pair]
    assert [len(lesions.truth_voxels), len(lesions.prediction_voxels)] == [count for _, count in sides]
    masks = [[labels == k + 1 for k in range(count)] for labels, count in sides]
    touched = sum(any((t & p).any() for p in masks[1]) for t in masks[0])
    assert int(lesions.touched()[0].sum()) == touched
    good = [(t & p).sum() / (t | p).sum() for t in masks[0] for p in masks[1]]
    matched = [iou for iou in good if iou > 0.5]  # above one half no two can claim the same
    assert len(lesions.matches(0.5)[0]) == len(matched)
    assert lesions.matches(0.5)[1].sum() == pytest.approx(sum(matched))
    places = sorted(tuple(np.argwhere(mask).mean(axis=0) * spacing) for mask in masks[0])
    assert np.allclose(sorted(map(tuple, lesions.truth_mm)), places) if places else not len(lesions.truth_mm)


@given(PAIRS, SPACINGS)
@settings(max_examples=30, deadline=None)
def test_shares_grow_with_the_tolerance(pair: tuple[np.ndarray, np.ndarray], spacing: tuple[float, ...]) -> None:
    tolerances = (0.0, 0.5, 1.0, 2.0, 2.5, 4.0, 9.0)
    volumes = [Volume(array, diagonal(spacing)) for array in pair]
    found = score_case(*volumes, "plain", options=ScoreOptions(tolerances_mm=tolerances))
    for metrics in found.values():
        shares = [metrics[f"nsd_{tolerance:g}mm"] for tolerance in tolerances]
        assert np.isnan(shares).all() or (np.diff(shares) >= -1e-12).all()
