"""A prepared case to labels on the scan's own grid, by a sliding window.

Comes in: a Model (network weights, plan, label scheme) once, then Cases or Volumes. Goes out: label Volumes on each
scan's own grid, and probabilities if asked for. It knows no files but the model's, no reports and no challenge.

Shapes: B tiles at a time, C=1 channel, K classes; D, H, W voxels of the prepared grid, d, h, w of a patch.

Tiles run bottom to top, are weighted with a Gaussian and added up in a buffer as high as one patch (``slabs``), and
finished planes go through ``export`` into the label map at once. Logits are averaged, not probabilities (over
overlapping tiles, mirrored copies and the weights of several folds alike), as nnU-Net v2 does.

A tile in which no voxel lies above ``air_below`` is not given to the network: it is background. Half of a typical scan
is the air around the patient, and few organs are as light as -500 HU; for those that are (lungs, gas in the bowel) the
plan's normalisation tells. ``skip_air=False`` turns this off.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import torch

from hilum import device as devices
from hilum.inference import postprocess
from hilum.inference.export import LabelExporter
from hilum.inference.slabs import RollingLogits, Start
from hilum.patches.tiles import check_overlap, gaussian_weights, tile_starts
from hilum.prepare.plan import Plan
from hilum.prepare.preprocess import Case, prepare_scan
from hilum.progress import SILENT, Progress
from hilum.volume import Volume

if TYPE_CHECKING:
    from hilum.model import Model

AIR_HU = -500.0
PADDING_HU = -1024
# Beyond this many tiles at a time GPUs gain nothing more.
_MOST_TILES = {2: 32, 3: 8}


@dataclass(frozen=True)
class Prediction:
    """What came out for one case.

    Attributes:
        labels: uint8 label values on the scan's own grid and in its axis order, not post-processed.
        probabilities: by label name (by region name for a network of regions), uint8 with 255 meaning 1, on the same grid; empty unless asked for.
        tiles: how many windows the scan has.
        skipped: how many of them held only air and were not computed.
        seconds: ``{"predict": network and accumulation, "export": interpolation and argmax}``.
    """

    labels: Volume
    probabilities: dict[str, Volume]
    tiles: int
    skipped: int
    seconds: dict[str, float]


class Predictor:
    """A model on a device, ready for any number of scans.

    Args:
        model: from ``hilum.model.load_model``.
        device: "auto", "cpu", "cuda", "cuda:1".
        mirror: average over mirrored copies of every tile; None takes the model's own choice. The left-right axis is
            never mirrored for schemes that tell left from right.
        overlap: share of a patch that neighbouring tiles share, 0 to below 1; None takes the model's own choice.
        batch: tiles at a time; 0 decides by the device's memory (1 on a CPU).
        skip_air: leave out tiles without a voxel above ``air_below(plan)``.

    Raises:
        UsageError: no such device.
        ModelError: the weights do not fit the network, or (at the first scan) give NaN.
        RecipeError: the model names a post-processing step that does not exist.
    """

    def __init__(
        self,
        model: Model,
        device: str = "auto",
        *,
        mirror: bool | None = None,
        overlap: float | None = None,
        batch: int = 0,
        skip_air: bool = True,
    ):
        postprocess.check(model.postprocess, model.scheme)
        self.model, self.plan, self.scheme, self.outputs = model, model.plan, model.scheme, model.spec.out_channels
        classes = self.scheme.class_lookup()
        pairs = self.scheme.writers() if model.spec.head == "regions" else ()
        self.writers = tuple((output, int(classes[value])) for output, value in pairs)
        self.device = devices.choose(device)
        self.mirror = bool(model.inference.mirror if mirror is None else mirror)
        self.overlap = float(model.inference.overlap if overlap is None else overlap)
        self.batch, self.skip_air, self.air_hu = batch, skip_air, air_below(self.plan)
        check_overlap(self.overlap)
        # On a CPU convolutions take 10 to 40 % less time with channels last (2D and 3D U-Net, fp32 and bf16).
        last = {2: torch.channels_last, 3: torch.channels_last_3d}[self.plan.dims]
        self._memory_format = last if self.device.type == "cpu" else None
        self._networks = [self._network(fold) for fold in range(len(model.weights))]
        self._weights_dhw = torch.from_numpy(np.array(gaussian_weights(self.plan.patch), np.float32))
        self._flips = mirror_axes(self.plan.dims, self.scheme.sided) if self.mirror else [()]

    @property
    def precision(self) -> str:
        """The type in which convolutions run: "bf16", "fp16" or "fp32"."""
        short = {torch.bfloat16: "bf16", torch.float16: "fp16", None: "fp32"}
        return short[devices.autocast_dtype(self.device)]

    def segment(self, volume: Volume, *, progress: Progress = SILENT) -> Volume:
        """A scan in HU to its label map: prepared, predicted and post-processed as the model says."""
        prediction = self.predict(prepare_scan(volume, self.plan), progress=progress)
        return postprocess.apply(prediction.labels, self.scheme, self.model.postprocess)[0]

    def predict(self, case: Case, *, probabilities: bool = False, progress: Progress = SILENT) -> Prediction:
        """The labels of one prepared case, without post-processing."""
        image_DHW, before = _padded(case.image_DHW, self.plan.patch)
        starts = tile_starts(image_DHW.shape, self.plan.patch, self.overlap)
        wanted = [start for start in starts if not (self.skip_air and self._is_air(image_DHW, start))]
        exporter = LabelExporter(
            case.grid.shape, case.source_inside.shape, self.outputs, probabilities=probabilities, writers=self.writers
        )
        weights_dhw = self._weights_dhw.to(self._buffer_device(image_DHW.shape))
        slab = RollingLogits(self.outputs, image_DHW.shape, weights_dhw, before, exporter)
        bar = progress.stage("Predicting", len(wanted))
        begin = time.perf_counter()
        with torch.inference_mode():
            for batch, logits_BKdhw in self._batches(image_DHW, wanted):
                for start, logits_Kdhw in zip(batch, logits_BKdhw, strict=True):
                    slab.add(start, logits_Kdhw)
                bar.step(len(batch), case.name)
            slab.finish()
        seconds = time.perf_counter() - begin
        return Prediction(
            self._on_source(case, self.scheme.value_lookup()[exporter.classes_ZYX]),
            self._probabilities(case, exporter.probabilities_KZYX),
            len(starts),
            len(starts) - len(wanted),
            {"predict": seconds - slab.export_seconds, "export": slab.export_seconds},
        )

    def _batches(self, image_DHW: np.ndarray, starts: list[Start]) -> Iterator[tuple[list[Start], torch.Tensor]]:
        """Logits of all wanted tiles in order, in batches; the first tile alone tells what fits on a GPU."""
        image = torch.from_numpy(image_DHW).to(self.device)
        before = _start_measuring(self.device)
        place = 0
        while place < len(starts):
            batch = starts[place : place + max(1, self.batch)]
            tiles_Bdhw = torch.stack([image[_box(start, self.plan.patch)] for start in batch])
            yield batch, self._logits(tiles_Bdhw[:, None])
            place += len(batch)
            if self.batch == 0:
                self.batch = _tiles_that_fit(self.device, before, _MOST_TILES[self.plan.dims])

    def _logits(self, tiles_BCdhw: torch.Tensor) -> torch.Tensor:
        """Mean logits over folds and mirrored copies: float32 (B, K, d, h, w)."""
        images = self.plan.normalisation.apply(tiles_BCdhw.float())
        if self.plan.dims == 2:
            images = images[:, :, 0]
        if self._memory_format is not None:
            images = images.contiguous(memory_format=self._memory_format)
        total: torch.Tensor | None = None
        for network in self._networks:
            for axes in self._flips:
                with devices.autocast(self.device):
                    out = network(images.flip(axes) if axes else images)
                out = (out.flip(axes) if axes else out).float()
                total = out if total is None else total.add_(out)
        assert total is not None
        mean = total / (len(self._networks) * len(self._flips))
        return mean[:, :, None] if self.plan.dims == 2 else mean

    def _network(self, fold: int) -> torch.nn.Module:
        network: torch.nn.Module = self.model.network(fold, self.device).eval()
        if self._memory_format is not None:
            network.to(memory_format=self._memory_format)  # type: ignore[call-overload]
        return network

    def _buffer_device(self, shape: tuple[int, ...]) -> torch.device:
        """Where tiles are added up: the network's device if the buffer takes less than a third of what is free."""
        if self.device.type == "cpu":
            return self.device
        needed = 4 * (self.outputs + 1) * self.plan.patch[0] * shape[1] * shape[2]
        # handing on makes a copy of the finished planes, so that the need is up to twice the buffer
        return self.device if 2 * needed < torch.cuda.mem_get_info(self.device)[0] / 3 else torch.device("cpu")

    def _is_air(self, image_DHW: np.ndarray, start: Start) -> bool:
        return bool(image_DHW[_box(start, self.plan.patch)].max() <= self.air_hu)

    def _probabilities(self, case: Case, shares_KZYX: np.ndarray | None) -> dict[str, Volume]:
        if shares_KZYX is None:
            return {}
        parts = self.scheme.regions if self.writers else self.scheme.labels
        names = [part.name for part in parts]
        return {name: self._on_source(case, shares) for name, shares in zip(names, shares_KZYX, strict=True)}

    @staticmethod
    def _on_source(case: Case, array_ZYX: np.ndarray) -> Volume:
        """An array in SPL order back in the file's axis order, on exactly the file's grid."""
        turned = Volume.on(case.source_inside, array_ZYX).oriented(case.source.codes)
        assert turned.grid.same_as(case.source), (turned.grid, case.source)
        return Volume.on(case.source, turned.array)


def mirror_axes(dims: int, sided: bool) -> list[tuple[int, ...]]:
    """The combinations of tensor axes to flip, beginning with none: 8 in 3D, 4 in 2D; half of that for sided schemes.

    Axes count from the end (-1 is W, left-right), so that they hold with and without a batch.
    """
    axes = [axis for axis in range(-dims, 0) if not (sided and axis == -1)]
    return [chosen for count in range(len(axes) + 1) for chosen in combinations(axes, count)]


def air_below(plan: Plan) -> float:
    """HU up to which a tile holds nothing to be found: ``AIR_HU``, or less where labelled voxels are as light as air.

    ``low`` is where normalisation clips (the 0.5 percentile of labelled HU for kind "ct"): a tile that nowhere exceeds
    it is one grey to the network. Where nothing is clipped, nothing is known, and no tile is left out.
    """
    return min(AIR_HU, plan.normalisation.low)


def _padded(image_DHW: np.ndarray, patch: tuple[int, ...]) -> tuple[np.ndarray, Start]:
    """The image at least as large as a patch, air on both sides, and how much was put before it on each axis."""
    missing = [max(0, p - n) for n, p in zip(image_DHW.shape, patch, strict=True)]
    d, h, w = (n // 2 for n in missing)
    if any(missing):
        widths = [(before, n - before) for before, n in zip((d, h, w), missing, strict=True)]
        image_DHW = np.pad(image_DHW, widths, constant_values=PADDING_HU)
    # torch shares the memory and warns of arrays that are read-only (memory-mapped) or turned
    return np.require(image_DHW, requirements=["C", "W"]), (d, h, w)


def _box(start: Start, patch: tuple[int, ...]) -> tuple[slice, slice, slice]:
    d, h, w = (slice(first, first + n) for first, n in zip(start, patch, strict=True))
    return d, h, w


def _start_measuring(device: torch.device) -> int:
    """Bytes in use on a GPU; from now on the peak is measured anew."""
    if device.type == "cpu":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return int(torch.cuda.memory_allocated(device))


def _tiles_that_fit(device: torch.device, before: int, most: int) -> int:
    """How many tiles a GPU takes at a time, after one was computed; 1 on a CPU."""
    if device.type == "cpu":
        return 1
    need = max(1, torch.cuda.max_memory_allocated(device) - before)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(min(most, max(1, 0.7 * (torch.cuda.mem_get_info(device)[0] + unused) // need)))
