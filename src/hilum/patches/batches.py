"""Batches: what the training loop asks for, one step after the other.

Comes in: a store, case names, a plan, a recipe's patch options. Goes out: normalised, augmented tensors on the device
that trains. It knows no network and no loss.

Threads cut the int16 boxes of the next steps ahead of time; normalising and augmenting happen on the device, in the
caller's thread. A batch depends on (seed, step) alone, not on what was asked before: a run that resumes at any
step goes on with the batches that it would have had.

Shapes: images (B, C, D, H, W) with C = 1 and, of a cascade, one channel for each label of the model before; or
(B, C, H, W) for two-dimensional plans, C = 1 and neighbouring slices; labels (B, D, H, W) or (B, H, W).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

import torch

from hilum.config import PatchOptions
from hilum.labels import LabelScheme
from hilum.patches.augment import (
    PRESETS,
    AugmentParameters,
    ItemParameters,
    apply_item,
    draw_item,
    settings_from,
    source_box,
)
from hilum.patches.earlier import EarlierLike, EarlierParameters, channels, draw_earlier, packed, unpacked
from hilum.patches.own import check_labels, own_changes
from hilum.patches.sampling import AIR_HU, Place, Sampler, StoreLike, cut, random_numbers

if TYPE_CHECKING:
    from hilum.prepare.plan import Plan

STREAM = 2  # sets the augmentation's random numbers apart from the sampler's
OWN_STREAM = 3  # and those of anybody's own augmentations, so that adding one leaves all else as it was
EARLIER_STREAM = 4  # and those that spoil what the model before this one of a cascade found
THREADS = 2  # one waits for the disk while the other copies
LESION_WEIGHT = 2.0  # lesions are what networks miss, and a patch about a lesion shows its organ as well


@dataclass(frozen=True, eq=False)
class Batch:
    """One step's patches.

    Attributes:
        images: float32, normalised, (B, C, D, H, W) or (B, C, H, W).
        labels: int64 class index, (B, D, H, W) or (B, H, W).
        names: the case of each item.
    """

    images: torch.Tensor
    labels: torch.Tensor
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Boxes:
    """What a thread prepares: int16 and uint8 boxes on the CPU, as large as each item's augmentation needs."""

    step: int
    places: tuple[Place, ...]
    parameters: AugmentParameters
    images_DHW: tuple[torch.Tensor, ...]
    labels_DHW: tuple[torch.Tensor, ...]


class Batches:
    """Draws, cuts, normalises and augments; a context manager, because threads run behind it.

    Args:
        store: prepared cases (``prepare.store.Store``).
        names: the cases to draw from.
        plan: patch, batch size, spacing, normalisation.
        options: share of foreground, preset, its overrides, own augmentations.
        scheme: the labels; where left and right differ, nothing is mirrored along W.
        device: where the tensors shall be.
        seed: of the run.
        augmented: False leaves the patches as they are cut, for validation.
        prefetch: how many steps ahead are cut; 0 cuts when asked.
        rank: of ``world`` processes that share a batch ``world`` times as large; each cuts its own items of it.
        world: how many there are.
        earlier: of a cascade: what the model before this one found in the cases.

    Attributes:
        wait_seconds: how long callers of ``batch`` have waited for boxes so far.

    Raises:
        DatasetError: no cases.
        RecipeError: an unknown preset or setting, a value out of bounds, an own augmentation that cannot be found.
    """

    def __init__(
        self,
        store: StoreLike,
        names: Sequence[str],
        plan: Plan,
        options: PatchOptions,
        scheme: LabelScheme,
        device: torch.device | str,
        seed: int,
        *,
        augmented: bool = True,
        prefetch: int = 3,
        rank: int = 0,
        world: int = 1,
        earlier: EarlierLike | None = None,
    ):
        within = [round(options.within_mm / spacing) for spacing in plan.spacing_mm] if options.within_mm else None
        self.sampler = Sampler(
            store,
            names,
            plan.patch,
            options.foreground,
            seed,
            lesion_weights(scheme),
            options.sampling,
            options.cases,
            (within[0], within[1], within[2]) if within else None,
        )
        settings = settings_from(options.augment, options.augment_options)
        self.settings = settings if augmented else PRESETS["none"]
        self.own = own_changes(options.augment_own) if augmented else ()
        self._own_checked, self.classes = not self.own, scheme.class_count
        self.plan, self.device, self.seed, self.prefetch = plan, torch.device(device), seed, prefetch
        self.mirror_axes = mirror_axes(plan.dims, scheme)
        self.earlier, self._spoilt = earlier, augmented and options.augment != "none"
        self.in_plane = plan.separate_z  # thick slices are mixed neither in preparing nor here
        self.items, self.whole = range(rank * plan.batch, (rank + 1) * plan.batch), world * plan.batch
        self.wait_seconds = 0.0
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="patches")
        self._ahead: dict[int, Future[_Boxes]] = {}

    def batch(self, step: int) -> Batch:
        """The batch of this step; the next ones are prepared meanwhile.

        Raises:
            HilumError: whatever went wrong while reading, as it was raised in the thread.
        """
        wanted = range(step, step + 1 + self.prefetch)
        for old in [s for s in self._ahead if s not in wanted]:
            self._ahead.pop(old).cancel()
        for new in wanted:
            if new not in self._ahead:
                self._ahead[new] = self._threads.submit(self._boxes, new)
        start = time.perf_counter()
        try:
            boxes = self._ahead.pop(step).result()
        finally:
            self.wait_seconds += time.perf_counter() - start
        return self._finished(boxes)

    def close(self) -> None:
        """Stop the threads; boxes cut ahead are dropped."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._ahead.clear()

    def __enter__(self) -> Batches:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def parameters(self, step: int) -> AugmentParameters:
        """How the patches of this step are augmented."""
        return AugmentParameters(tuple(self._drawn(step, item) for item in self.items))

    def _drawn(self, step: int, item: int) -> ItemParameters:
        rng = random_numbers(self.seed, step, item, STREAM)
        return draw_item(
            self.settings, self.plan.dims, rng, self.mirror_axes, self.plan.spacing_mm, in_plane=self.in_plane
        )

    def _spoiling(self, step: int, item: int) -> EarlierParameters:
        """How the earlier labels of one patch are changed."""
        if self.earlier is None or not self._spoilt:
            return EarlierParameters()
        return draw_earlier(self.earlier.labels, random_numbers(self.seed, step, item, EARLIER_STREAM))

    def _boxes(self, step: int) -> _Boxes:
        """Runs in a thread: NumPy copies only, so that the device's own threads are left alone."""
        parameters = self.parameters(step)
        places = tuple(self.sampler.place(self.whole, step, item) for item in self.items)
        images, labels = [], []
        for place, item in zip(places, parameters.items, strict=True):
            shape = source_box(item, self.plan.patch)
            z, y, x = (c - (s - p) // 2 for c, s, p in zip(place.corner, shape, self.plan.patch, strict=True))
            case = self.sampler.case(place.name)
            n = self.plan.context
            images.append(self._tensor(cut(case.image_DHW, (z - n, y, x), (shape[0] + 2 * n, *shape[1:]), AIR_HU)))
            box = cut(case.labels_DHW, (z, y, x), shape, 0)
            if self.earlier is not None:
                box = packed(box, cut(self.earlier.classes(place.name), (z, y, x), shape, 0))
            labels.append(self._tensor(box))
        return _Boxes(step, places, parameters, tuple(images), tuple(labels))

    def _tensor(self, array_DHW: object) -> torch.Tensor:
        tensor = torch.as_tensor(array_DHW)
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    def _finished(self, boxes: _Boxes) -> Batch:
        """On the device: augment, normalise, stack."""
        images, labels = [], []
        normalise = self.plan.normalisation.apply
        of_items = zip(self.items, boxes.parameters.items, boxes.images_DHW, boxes.labels_DHW, strict=True)
        for index, item, image_DHW, label_DHW in of_items:
            hounsfield = image_DHW.to(self.device, non_blocking=True).float()[None]
            if self.plan.context:  # a slice and its neighbours are channels, augmented alike
                hounsfield = hounsfield.transpose(0, 1).contiguous()
            label_DHW = label_DHW.to(self.device, non_blocking=True)
            image, label = apply_item(item, hounsfield, label_DHW, self.plan.patch, normalise)
            if self.earlier is not None:
                label, found = unpacked(label)
                there = channels(found, self.earlier.labels, self._spoiling(boxes.step, index))
                image = torch.cat([image, there.to(image.dtype)])
            for change in self.own:
                image, label = change(image, label, random_numbers(self.seed, boxes.step, index, OWN_STREAM))
            images.append(image)
            labels.append(label)
        images_BCDHW, labels_BDHW = torch.stack(images), torch.stack(labels).long()
        if not self._own_checked:
            check_labels(labels_BDHW, self.classes, self.own)
            self._own_checked = True
        names = tuple(place.name for place in boxes.places)
        if self.plan.dims == 2:
            return Batch(images_BCDHW[:, :, 0], labels_BDHW[:, 0], names)
        return Batch(images_BCDHW, labels_BDHW, names)


def mirror_axes(dims: int, scheme: LabelScheme) -> tuple[int, ...]:
    """Axes of (D, H, W) that may be reversed: D only in 3-D, W only where left and right carry the same labels."""
    axes = (1, 2) if dims == 2 else (0, 1, 2)
    return tuple(axis for axis in axes if axis != 2 or not scheme.sided)


def lesion_weights(scheme: LabelScheme) -> Mapping[int, float]:
    """How often each class index is chosen relative to others: lesions ``LESION_WEIGHT`` times as often as the rest."""
    return {index: LESION_WEIGHT if label.is_lesion else 1.0 for index, label in enumerate(scheme.labels, 1)}
