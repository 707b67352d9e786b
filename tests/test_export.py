from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch.nn import functional

from hilum.inference import export
from hilum.inference.export import Axis, LabelExporter, background_logits

Shape = tuple[int, int, int]
SIZES = st.tuples(*[st.integers(1, 9)] * 3)


def everything_at_once(logits_KDHW: torch.Tensor, target: Shape) -> np.ndarray:
    """The straightforward way: interpolate all logits at full size, then take the argmax."""
    depth = logits_KDHW.shape[1]
    planes = functional.interpolate(
        logits_KDHW.transpose(0, 1), size=target[1:], mode="bilinear", align_corners=False
    )  # (D, K, Y, X)
    if logits_KDHW.shape[2:] == target[1:]:
        planes = logits_KDHW.transpose(0, 1)
    axis = Axis.between(depth, target[0])
    share = torch.from_numpy(axis.share)[:, None, None, None]
    full = planes[axis.low] * (1 - share) + planes[axis.high] * share
    return full.argmax(1).numpy().astype(np.uint8)


def exported(logits_KDHW: torch.Tensor, target: Shape, cuts: list[int]) -> np.ndarray:
    exporter = LabelExporter(tuple(logits_KDHW.shape[1:]), target, len(logits_KDHW))
    for slab in torch.tensor_split(logits_KDHW, sorted(cuts), dim=1):
        memory = slab.clone()
        exporter.take(memory)
        memory.fill_(float("nan"))  # the caller may reuse it
    assert exporter.done
    return exporter.classes_ZYX


@given(SIZES, SIZES, st.integers(1, 5), st.lists(st.integers(0, 9), max_size=4), st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_slabs_of_any_size_equal_everything_at_once(prepared, target, classes, cuts, seed):
    logits = torch.randn((classes, *prepared), generator=torch.Generator().manual_seed(seed))
    logits[0] += 1.0  # some background, so that the box of the foreground matters
    expected = everything_at_once(logits, target)
    assert np.array_equal(exported(logits, target, [min(cut, prepared[0]) for cut in cuts]), expected)


def test_a_large_map_with_little_foreground_equals_everything_at_once():
    logits = torch.zeros((4, 20, 70, 90))
    logits[0] = 5
    logits[:, 6:9, 20:40, 50:75] = torch.randn((4, 3, 20, 25), generator=torch.Generator().manual_seed(1))
    target = (47, 131, 171)
    labels = exported(logits, target, [7, 8, 13])
    assert labels.any() and np.array_equal(labels, everything_at_once(logits, target))


@given(st.integers(1, 12), st.integers(1, 30))
def test_an_axis_is_what_torch_means(old, new):
    line = np.random.default_rng(old * 31 + new).normal(size=old).astype(np.float32)
    axis = Axis.between(old, new)
    mine = line[axis.low] * (1 - axis.share) + line[axis.high] * axis.share
    theirs = functional.interpolate(torch.from_numpy(line)[None, None], size=new, mode="linear", align_corners=False)
    assert np.allclose(mine, theirs[0, 0].numpy(), atol=1e-5)


def test_an_axis_by_hand():
    axis = Axis.between(2, 4)  # outer edges coincide: samples at -0.25, 0.25, 0.75, 1.25, clamped to 0..1
    assert axis.low.tolist() == [0, 0, 0, 1] and axis.high.tolist() == [1, 1, 1, 1]
    assert axis.share.tolist() == [0, 0.25, 0.75, 0]


def test_the_same_grid_is_plain_argmax():
    logits = torch.randn((3, 5, 6, 7), generator=torch.Generator().manual_seed(0))
    assert np.array_equal(exported(logits, (5, 6, 7), [2]), logits.argmax(0).numpy())


def test_ties_go_to_the_lowest_class():
    assert not exported(torch.ones((3, 2, 3, 4)), (4, 5, 6), []).any()
    logits = torch.zeros((3, 2, 3, 4))
    logits[1:] = 1
    assert (exported(logits, (4, 5, 6), []) == 1).all()


def test_labels_stay_where_they_were_when_the_grid_becomes_finer():
    truth = np.zeros((8, 12, 10), np.uint8)
    truth[2:6, 3:9, 2:7] = 1
    logits = torch.from_numpy(np.stack([truth == 0, truth == 1]).astype(np.float32))
    labels = exported(logits, (24, 36, 30), [3])
    expected = np.kron(truth, np.ones((3, 3, 3), np.uint8))
    assert np.array_equal(ndimage.center_of_mass(labels), ndimage.center_of_mass(expected))
    assert (labels != expected).sum() < 0.02 * labels.size


def test_probabilities_are_the_softmax_of_interpolated_logits():
    logits = torch.randn((3, 4, 5, 6), generator=torch.Generator().manual_seed(3)) * 3
    exporter = LabelExporter((4, 5, 6), (7, 9, 8), 3, probabilities=True)
    exporter.take(logits)
    full = functional.interpolate(logits[None], size=(7, 9, 8), mode="trilinear", align_corners=False)[0]
    expected = full.softmax(0)[1:].numpy() * 255
    assert exporter.probabilities_KZYX is not None
    assert np.abs(exporter.probabilities_KZYX - expected).max() <= 0.51


def test_planes_that_are_not_needed_are_not_kept():
    exporter = LabelExporter((40, 4, 4), (2, 4, 4), 2)
    for _ in range(40):
        exporter.take(torch.zeros((2, 1, 4, 4)))
        assert len(exporter._planes) <= 2
    assert exporter.done


def test_wrong_shapes_are_programmers_faults():
    exporter = LabelExporter((2, 4, 4), (2, 4, 4), 2)
    with pytest.raises(AssertionError):
        exporter.take(torch.zeros((2, 1, 4, 5)))
    with pytest.raises(AssertionError):
        exporter.take(torch.zeros((2, 3, 4, 4)))


def regions_at_once(logits_KDHW: torch.Tensor, target: Shape, writers: list[tuple[int, int]]) -> np.ndarray:
    """The straightforward way: interpolate everything, sigmoid, 0.5, write one over the other."""
    full = functional.interpolate(logits_KDHW[None], size=target, mode="trilinear", align_corners=False)[0]
    labels = np.zeros(target, np.uint8)
    for output, value in writers:
        labels[(full[output].double().sigmoid() > 0.5).numpy()] = value
    return labels


@given(SIZES, SIZES, st.integers(1, 3), st.lists(st.integers(0, 9), max_size=3), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_regions_are_written_one_over_the_other(prepared, target, count, cuts, seed):
    logits = torch.randn((count, *prepared), generator=torch.Generator().manual_seed(seed)) - 0.5
    writers = [(k, count - k) for k in range(count)]
    exporter = LabelExporter(prepared, target, count, writers=writers, probabilities=True)
    for slab in torch.tensor_split(logits, sorted(min(cut, prepared[0]) for cut in cuts), dim=1):
        exporter.take(slab)
    full = functional.interpolate(logits[None], size=target, mode="trilinear", align_corners=False)[0]
    clear = full.abs().amin(0).numpy() > 1e-5  # rounding decides at 0
    assert np.array_equal(exporter.classes_ZYX[clear], regions_at_once(logits, target, writers)[clear])
    assert exporter.probabilities_KZYX is not None
    assert np.abs(exporter.probabilities_KZYX / 255 - full.sigmoid().numpy()).max() < 0.003


def test_where_no_region_was_asked_for_there_is_none():
    exporter = LabelExporter((1, 2, 2), (1, 2, 2), 2, writers=[(0, 1), (1, 2)])
    exporter.take(torch.tensor(background_logits(2, regions=True))[:, None, None, None].expand(2, 1, 2, 2))
    assert not exporter.classes_ZYX.any()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_along_one_axis_the_nearest_logits_can_be_taken(axis):
    logits = torch.randn((3, 4, 5, 6), generator=torch.Generator().manual_seed(axis))
    target = (7, 8, 9)
    exporter = LabelExporter((4, 5, 6), target, 3, nearest_axis=axis)
    exporter.take(logits[:, :3])
    exporter.take(logits[:, 3:])
    sharp = list(logits.shape[1:])
    sharp[axis] = target[axis]
    picked = functional.interpolate(logits[None], size=sharp, mode="nearest-exact")
    full = functional.interpolate(picked, size=target, mode="trilinear", align_corners=False)[0]
    assert np.array_equal(exporter.classes_ZYX, full.argmax(0).numpy())


def test_the_lowest_class_wins_ties():
    logits = torch.randint(0, 2, (4, 6, 40, 33), generator=torch.Generator().manual_seed(2)).float()
    exporter = LabelExporter((6, 40, 33), (6, 40, 33), 4)
    exporter.take(logits)
    assert np.array_equal(exporter.classes_ZYX, logits.numpy().argmax(0))


@pytest.mark.parametrize("writers", [(), ((0, 1), (2, 2))])
def test_rows_at_a_time_and_threads_change_nothing(monkeypatch, writers):
    logits = torch.randn((3, 5, 20, 9), generator=torch.Generator().manual_seed(1))
    made, before = [], torch.get_num_threads()
    for rows, threads in ((2, 1), (64, 3)):
        monkeypatch.setattr(export, "_ROWS", rows)
        torch.set_num_threads(threads)
        exporter = LabelExporter((5, 20, 9), (9, 33, 14), 3, writers=writers)
        exporter.take(logits.clone())
        assert torch.get_num_threads() == threads
        made.append(exporter.classes_ZYX)
    torch.set_num_threads(before)
    assert len(np.unique(made[0])) == 3 and np.array_equal(*made)
