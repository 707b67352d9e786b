"""What an earlier model found, as channels of a patch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from hilum.config import PatchOptions
from hilum.errors import InputError
from hilum.patches import earlier as module
from hilum.patches.augment import apply_item, draw_item, settings_from, source_box
from hilum.patches.earlier import EarlierParameters, channels, draw_earlier, packed, unpacked
from hilum.patches.sampling import cut
from hilum.prepare.earlier import EarlierStore
from test_batches import FakeStore
from test_batches import batches as make_batches


def ball(radius: float) -> np.ndarray:
    n = int(radius)
    return (np.mgrid[-n : n + 1, -n : n + 1, -n : n + 1] ** 2).sum(0) <= radius**2


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1.0, 1.5, 2.0, 3.3, 5.0]), st.sampled_from([0.003, 0.3, 0.97]))
def test_balls_are_exact(seed: int, radius: float, share: float) -> None:
    """Against SciPy; what lies beyond the patch is taken as background by dilation and as the mask by erosion."""
    mask = np.random.default_rng(seed).random((9, 12, 7)) < share
    grown = ndimage.binary_dilation(mask, ball(radius))
    shrunk = ~ndimage.binary_dilation(~mask, ball(radius))
    tensor = torch.from_numpy(mask)
    assert np.array_equal(module.dilated(tensor, radius).numpy(), grown)
    assert np.array_equal(module.eroded(tensor, radius).numpy(), shrunk)
    opened = ndimage.binary_dilation(shrunk, ball(radius))
    closed = ~ndimage.binary_dilation(~grown, ball(radius))
    assert np.array_equal(module.SHAPES["open"](tensor, radius).numpy(), opened)
    assert np.array_equal(module.SHAPES["close"](tensor, radius).numpy(), closed)


def test_what_grows_takes_from_the_others() -> None:
    classes = torch.zeros((1, 1, 9), dtype=torch.uint8)
    classes[..., 2:4], classes[..., 4:7] = 1, 2
    plain = channels(classes, 2)
    assert plain.dtype == torch.bool and torch.equal(plain[0], classes == 1) and torch.equal(plain[1], classes == 2)
    grown = channels(classes, 2, EarlierParameters(((1, "dilate", 1.9),)))
    assert grown[0, 0, 0].nonzero().flatten().tolist() == [1, 2, 3, 4]
    assert grown[1, 0, 0].nonzero().flatten().tolist() == [5, 6]
    assert torch.equal(plain[0], classes == 1)  # what was given is left alone
    both = channels(classes, 2, EarlierParameters(((1, "dilate", 1.0), (2, "dilate", 1.0))))
    assert both[0, 0, 0].nonzero().flatten().tolist() == [1, 2, 3] and not (both[0] & both[1]).any()


def test_one_component_goes_if_it_is_small() -> None:
    classes = torch.zeros((10, 10, 10), dtype=torch.uint8)
    classes[0:2, 0:2, 0:2] = 1  # 8 voxels of 1000
    classes[5:10, 5:10, 4:10] = 1  # 150: not less than 15 %
    classes[9, 0, 0] = 2
    for which in (0.0, 0.99):
        left = channels(classes, 2, EarlierParameters(removals=((1, which), (2, which))))
        assert int(left[0].sum()) == 150 and not left[1].any()
    classes[5, 5, 4] = 0  # 149
    gone = [int(channels(classes, 2, EarlierParameters(removals=((1, which),)))[0].sum()) for which in (0.0, 0.99)]
    assert gone == [149, 8]


def test_it_is_drawn_as_often_as_nnunet_does() -> None:
    drawn = [draw_earlier(2, np.random.default_rng(seed)) for seed in range(4000)]
    shaped = [item for parameters in drawn for item in parameters.shapes]
    removed = [item for parameters in drawn for item in parameters.removals]
    assert len(shaped) / 8000 == pytest.approx(0.4 * 0.5, abs=0.02)
    assert len(removed) / 8000 == pytest.approx(0.2 * 0.5, abs=0.015)
    assert {name for _, name, _ in shaped} == {"dilate", "erode", "open", "close"} and {k for k, _, _ in shaped} == {
        1,
        2,
    }
    radii = [radius for _, _, radius in shaped]
    assert 1 <= min(radii) < 1.3 and 7.7 < max(radii) <= 8
    first = [parameters.shapes[0][0] for parameters in drawn if len(parameters.shapes) == 2]
    assert 0.4 < first.count(1) / len(first) < 0.6  # in random order


def test_truth_and_finding_travel_together() -> None:
    rng = np.random.default_rng(0)
    truth, found = (rng.integers(0, top, (6, 7, 8), np.uint8) for top in (3, 255))
    one, other = unpacked(torch.from_numpy(packed(truth, found)))
    assert np.array_equal(one.numpy(), truth) and np.array_equal(other.numpy(), found)


class Found:
    """An earlier model that was right everywhere, or found the classes in another order."""

    labels = 3

    def __init__(self, swapped: bool = False):
        self.swapped = swapped

    def classes(self, name: str) -> np.ndarray:
        labels = np.array(FakeStore().case(name).labels_DHW)
        return np.array([0, 2, 1], np.uint8)[labels] if self.swapped else labels


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("augment", ["none", "default"])
def test_batches_carry_it_on_the_patch_s_own_grid(monkeypatch: pytest.MonkeyPatch, augment: str, swapped: bool) -> None:
    """However a patch is turned, bent and mirrored, a right finding stays the truth voxel by voxel."""
    monkeypatch.setattr("hilum.patches.batches.draw_earlier", lambda *_: EarlierParameters())
    options = PatchOptions(augment=augment)
    with make_batches(options=options, earlier=Found(swapped)) as batches, make_batches(options=options) as without:
        for step in range(6):
            batch, plain = batches.batch(step), without.batch(step)
            assert batch.images.shape[1] == 4 and torch.equal(batch.images[:, :1], plain.images)
            assert torch.equal(batch.labels, plain.labels) and not batch.images[:, 3].any()
            for index in (1, 2):
                channel = batch.images[:, 3 - index if swapped else index]
                assert torch.equal(channel, (batch.labels == index).float())


def test_it_is_spoilt_while_learning_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHAPE_PROBABILITY", 1.0)
    monkeypatch.setattr(module, "LABEL_PROBABILITY", 1.0)

    def is_right(**options: Any) -> bool:
        with make_batches(earlier=Found(), **options) as batches:
            batch, again = batches.batch(1), batches.batch(1)
        assert torch.equal(batch.images, again.images)
        right = torch.stack([batch.labels == index for index in (1, 2, 3)], 1).float()
        return torch.equal(batch.images[:, 1:], right)

    assert not is_right()
    assert is_right(augmented=False) and is_right(options=PatchOptions(augment="none"))


def test_a_patch_over_the_edge_gets_background(monkeypatch: pytest.MonkeyPatch) -> None:
    item = draw_item(settings_from("none", {}), 3, np.random.default_rng(0))
    shape = source_box(item, (8, 8, 8))
    both = packed(
        cut(np.ones((4, 4, 4), np.uint8), (-2, -2, -2), shape, 0), cut(np.full((4, 4, 4), 2), (-2, -2, -2), shape, 0)
    )
    _, label = apply_item(item, torch.zeros((1, *shape)), torch.from_numpy(both), (8, 8, 8))
    truth, found = unpacked(label)
    assert int((truth == 1).sum()) == int((found == 2).sum()) == 64


def test_the_store_keeps_what_fits_its_key(tmp_path: Path) -> None:
    store = EarlierStore(tmp_path / "earlier", 2)
    classes = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) % 3
    assert not store.has("a", "k1") and store.facts("a") == {}
    store.save("a", "k1" * 20, classes, {"dice": 0.5})
    store.save("a.b", "k1" * 20, classes, {})
    assert store.has("a", "k1" * 20) and not store.has("a", "k2" * 20) and store.facts("a") == {"dice": 0.5}
    assert np.array_equal(store.classes("a"), classes)
    store.save("a", "k2" * 20, classes[::-1].copy(), {})
    assert np.array_equal(store.classes("a"), classes[::-1]) and len(list(store.folder.glob("a.k*.npy"))) == 1
    assert store.has("a.b", "k1" * 20)
    next(store.folder.glob("a.k*.npy")).write_bytes(b"cut off")
    assert not store.has("a", "k2" * 20)
    (tmp_path / "earlier").rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"cannot be read.*only what is damaged is redone"):
        EarlierStore(tmp_path / "moved", 2).classes("a")
