"""A prepared case to labels on the scan's own grid, by a sliding window.

Comes in: a Model (network weights, plan, label scheme) once, then Cases or Volumes. Goes out: label Volumes on each
scan's own grid; probabilities and uncertainty if asked for. It knows no files but the model's, no reports and no
challenge.

Shapes: B tiles at a time, K outputs; D, H, W voxels of the prepared grid, d, h, w of a patch.

Tiles run bottom to top (``source``), go through all folds and mirrored copies (``folds``), are weighted with a Gaussian
and added up in a buffer as high as one patch (``slabs``), and finished planes go through ``export`` into the label map
at once. What ``region`` adds is another list of tiles; the way is the same.

A tile in which no voxel lies above ``air_below`` is not given to the network: it is background. Half of a typical scan
is the air around the patient, and few organs are as light as -500 HU; for those that are (lungs, gas in the bowel) the
plan's normalisation tells. ``skip_air=False`` turns this off.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hilum.inference import postprocess
from hilum.inference.cascade import with_earlier
from hilum.inference.engines import choose_device
from hilum.inference.export import LabelExporter, MapExporter, background_logits
from hilum.inference.folds import Folds
from hilum.inference.placing import by_name, in_place, on_source
from hilum.inference.region import Border
from hilum.inference.search import Count, Search, first_search, wider_search
from hilum.inference.slabs import Planes, RollingLogits
from hilum.inference.source import Prepared, Start, TileSource
from hilum.patches.tiles import check_overlap, window_weights
from hilum.prepare.plan import Plan
from hilum.prepare.preprocess import prepare_scan, stream_scan
from hilum.progress import SILENT, Progress
from hilum.volume import Volume

if TYPE_CHECKING:
    from hilum.model import Model

AIR_HU = -500.0
# Beyond this many tiles at a time GPUs gain nothing more.
_MOST_TILES = {2: 32, 3: 8}


@dataclass(frozen=True)
class Prediction:
    """What came out for one case.

    Attributes:
        labels: uint8 label values on the scan's own grid and in its axis order, not post-processed.
        probabilities: by label name (by region name for a network of regions), uint8 with 255 meaning 1, on the same
            grid; empty unless asked for.
        tiles: how many windows were looked at.
        skipped: how many of them held only air and were not computed.
        seconds: ``{"predict": network and accumulation, "export": interpolation and argmax}``.
        uncertainty: "entropy" of the probabilities and, of several folds or models, their "disagreement"; uint8 with
            255 meaning 1, on the same grid; empty unless probabilities are asked for.
        region: what region-first did (``Search.facts``); empty where it was not asked for.
    """

    labels: Volume
    probabilities: dict[str, Volume]
    tiles: int
    skipped: int
    seconds: dict[str, float]
    uncertainty: dict[str, Volume] = field(default_factory=dict)
    region: dict[str, Any] = field(default_factory=dict)


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
        precision: of convolutions: "auto", "fp32", "bf16", "fp16".
        region: find organs first and do only what lies there; None takes the model's own choice.
        threads: for resampling on the way; 0 means one for each core.

    Raises:
        UsageError: no such device, or a precision that it has not.
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
        precision: str = "auto",
        region: bool | None = None,
        threads: int = 0,
    ):
        postprocess.check(model.postprocess, model.scheme)
        self.model, self.plan, self.scheme, self.outputs = model, model.plan, model.scheme, model.spec.out_channels
        classes = self.scheme.class_lookup()
        pairs = self.scheme.writers() if model.spec.head == "regions" else ()
        self.writers = tuple((output, int(classes[value])) for output, value in pairs)
        self.device = choose_device(model, device)
        self.mirror = bool(model.inference.mirror if mirror is None else mirror)
        self.overlap = float(model.inference.overlap if overlap is None else overlap)
        self.batch, self.skip_air, self.air_hu, self.threads = batch, skip_air, air_below(self.plan), threads
        check_overlap(self.overlap)
        self.folds = Folds(model, self.device, precision, self.mirror)
        self.locator = self._locator(precision)
        self.region = bool((model.inference.region or self.locator is not None) if region is None else region)
        self.first = None if model.first is None else Predictor(
            model.first, device, mirror=mirror, overlap=overlap, batch=batch, skip_air=skip_air, precision=precision,
            region=region, threads=threads,
        )  # fmt: skip
        weights = window_weights(self.plan.patch, self.plan.conventions.window)
        self._weights_dhw = torch.from_numpy(np.array(weights, np.float32))

    @property
    def models(self) -> tuple[Model, ...]:
        """The model, as an ensemble has several."""
        return (self.model,)

    @property
    def precision(self) -> str:
        """The type in which convolutions run: "bf16", "fp16", "fp32" or "int8"."""
        return self.folds.precision

    @property
    def disagreeing(self) -> bool:
        """Whether there is more than one fold."""
        return len(self.folds.networks) > 1

    @property
    def shown(self) -> list[str]:
        """Names of what probabilities are given for: labels, or regions for a network of regions."""
        return [part.name for part in (self.scheme.regions if self.writers else self.scheme.labels)]

    def prepare(self, volume: Volume, name: str = "", *, streamed: bool = False) -> Prepared:
        """A scan made ready for ``predict``: now and as a whole, or slab by slab when its turn comes."""
        streamed = streamed or self.first is not None  # a cascade looks at the same scan at two spacings
        return stream_scan(volume, self.plan, name) if streamed else prepare_scan(volume, self.plan, name)

    def segment(self, volume: Volume, *, progress: Progress = SILENT) -> Volume:
        """A scan in HU to its label map: prepared, predicted and post-processed as the model says."""
        prediction = self.predict(self.prepare(volume, streamed=self.device.type == "cpu"), progress=progress)
        return postprocess.apply(prediction.labels, self.scheme, self.model.postprocess)[0]

    def predict(self, case: Prepared, *, probabilities: bool = False, progress: Progress = SILENT) -> Prediction:
        """The labels of one prepared case, without post-processing."""
        begin, export_seconds, count = time.perf_counter(), 0.0, Count()
        if self.first is not None:
            case = with_earlier(case, self.first, progress)
        search, target = first_search(self, case, count, progress), case.source_inside.shape
        while True:
            exporter = LabelExporter(
                case.grid.shape,
                target,
                self.outputs,
                probabilities=probabilities,
                writers=self.writers,
                nearest_axis=case.nearest_axis,
            )
            wanted = probabilities and self.disagreeing
            contradiction = MapExporter(case.grid.shape, target, case.nearest_axis) if wanted else None
            border = Border(regions=bool(self.writers)) if search.found is not None else None
            for planes in self.planes(case, search, count, disagreement=contradiction is not None, progress=progress):
                at = time.perf_counter()
                exporter.take(planes.logits_KSHW[: self.outputs])
                if contradiction is not None:
                    contradiction.take(planes.logits_KSHW[self.outputs])
                if border is not None:
                    border.look(planes.first, planes.logits_KSHW[: self.outputs], planes.unasked_SHW)
                export_seconds += time.perf_counter() - at
            assert exporter.done
            if border is None or not border.places:
                break
            search = wider_search(self, case, search, border)
        seconds = time.perf_counter() - begin
        unsure = [exporter.entropy_ZYX, contradiction.map_ZYX if contradiction is not None else None]
        return Prediction(
            on_source(case, in_place(exporter.classes_ZYX, self.scheme.value_lookup())),
            by_name(case, self.shown, exporter.probabilities_KZYX),
            count.tiles,
            count.air,
            {"predict": seconds - export_seconds, "export": export_seconds},
            by_name(
                case,
                ["entropy", "disagreement"],
                [array for array in unsure if array is not None],
            ),
            search.facts,
        )

    def planes(
        self,
        case: Prepared,
        search: Search,
        count: Count,
        *,
        disagreement: bool = False,
        progress: Progress = SILENT,
    ) -> Iterator[Planes]:
        """Mean logits on the prepared grid, a few finished planes at a time, bottom to top.

        Args:
            case: the prepared scan.
            search: which tiles to do.
            count: tiles are added here.
            disagreement: one more output, how far the folds contradict each other (0 to 1).
            progress: counts tiles.
        """
        source = TileSource(case, self.plan.patch, self.threads, self.plan.context)
        extra = 1 if disagreement else 0
        background = (*background_logits(self.outputs, regions=bool(self.writers)), *[0.0] * extra)
        slab = RollingLogits(
            self.outputs + extra,
            source.shape,
            self._weights_dhw.to(self._buffer_device(source.shape)),
            source.before,
            case.grid.shape,
            background,
        )
        # region first tells cut organs by what was not asked about: there, air is asked about like anything else
        skip_air = self.skip_air and search.found is None
        for start, logits_Kdhw in self.tiles(
            source, search.starts, count, "Predicting", progress, disagreement=disagreement, skip_air=skip_air
        ):
            yield from slab.add(start, logits_Kdhw)
        yield from slab.finish()

    def tiles(
        self,
        source: TileSource,
        starts: Sequence[Start],
        count: Count,
        title: str,
        progress: Progress = SILENT,
        *,
        disagreement: bool = False,
        first_only: bool = False,
        skip_air: bool | None = None,
    ) -> Iterator[tuple[Start, torch.Tensor]]:
        """Logits (K, d, h, w) of all tiles but those of air, in order; computed in batches.

        On a GPU the first tile alone tells how many fit.
        """
        skip_air = self.skip_air if skip_air is None else skip_air
        before, bar = _start_measuring(self.device), progress.stage(title, len(starts))
        batch: list[Start] = []
        tiles: list[torch.Tensor] = []
        earlier: list[torch.Tensor] = []
        for place, start in enumerate(starts):
            tile_dhw = source.tile(start)
            count.tiles += 1
            if skip_air and tile_dhw.max() <= self.air_hu:
                count.air += 1
                bar.step()
            else:
                batch.append(start)
                tiles.append(torch.from_numpy(tile_dhw))
                if (found_dhw := source.earlier(start)) is not None:
                    earlier.append(torch.from_numpy(found_dhw))
            if batch and (len(batch) >= max(1, self.batch) or place + 1 == len(starts)):
                with torch.inference_mode():
                    logits_BKdhw = self.folds.logits(
                        torch.stack(tiles).to(self.device),
                        disagreement=disagreement,
                        first_only=first_only,
                        normalisation=source.normalisation,
                        earlier_Bdhw=torch.stack(earlier).to(self.device) if earlier else None,
                    )
                yield from zip(batch, logits_BKdhw, strict=True)
                bar.step(len(batch))
                batch, tiles, earlier = [], [], []
                if self.batch == 0:
                    self.batch = _tiles_that_fit(self.device, before, _MOST_TILES[self.plan.dims])

    def _locator(self, precision: str) -> Predictor | None:
        """The small model in the model's folder that finds organs, where there is one."""
        from hilum.model import load_model

        folder = self.model.folder / "locator"
        if not (folder / "model.json").is_file():
            return None
        return Predictor(load_model(folder), str(self.device), precision=precision, region=False, threads=self.threads)

    def _buffer_device(self, shape: tuple[int, ...]) -> torch.device:
        """Where tiles are added up: the network's device if the buffer takes less than a third of what is free."""
        if self.device.type == "cpu":
            return self.device
        needed = 4 * (self.outputs + 1) * self.plan.patch[0] * shape[1] * shape[2]
        return self.device if needed < torch.cuda.mem_get_info(self.device)[0] / 3 else torch.device("cpu")


def air_below(plan: Plan) -> float:
    """HU up to which a tile holds nothing to be found: ``AIR_HU``, or less where labelled voxels are as light as air.

    ``low`` is where normalisation clips (the 0.5 percentile of labelled HU for kind "ct"): a tile that nowhere exceeds
    it is one grey to the network. Where nothing is clipped, nothing is known, and no tile is left out.
    """
    return min(AIR_HU, plan.normalisation.low)


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
