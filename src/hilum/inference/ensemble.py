"""Several models over one scan at once: their mean probability, or their vote.

Comes in: Predictors of models with the same labels; they may differ in network, spacing and patch. Goes out: what one
Predictor gives. The models move up the scan together: each gives its probabilities on the scan's own grid slice by
slice, and a slice is decided as soon as all have given it, so that no model's answer is ever kept whole.

Probabilities are averaged, not logits, as nnU-Net v2 does between configurations (within one model, folds' logits are).
A vote counts each model's own choice; ties go to the higher mean probability.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch

from hilum.errors import ModelError, UsageError
from hilum.inference import postprocess
from hilum.inference.cascade import with_earlier
from hilum.inference.export import LabelExporter, as_bytes, entropy
from hilum.inference.placing import by_name, in_place, on_source
from hilum.inference.predict import Prediction, Predictor
from hilum.inference.region import Border
from hilum.inference.search import Count, Search, first_search, wider_search
from hilum.inference.source import Prepared
from hilum.model import Model
from hilum.progress import SILENT, Progress
from hilum.volume import Volume

Decision = Literal["mean", "vote"]


class SharesExporter(LabelExporter):
    """Gives probabilities of all outputs on the scan's slices instead of choosing labels; ``ready`` holds them."""

    def __init__(self, predictor: Predictor, case: Prepared):
        target = case.source_inside.shape
        super().__init__(
            case.grid.shape, target, predictor.outputs, writers=predictor.writers, nearest_axis=case.nearest_axis
        )
        self.classes_ZYX = np.zeros((0, 0, 0), np.uint8)  # nobody writes there
        self.ready: deque[torch.Tensor] = deque()

    def _write_classes(self, z: int, low: int, high: int, share: float) -> None:
        self.ready.append(self._shares(low, high, share).cpu())


class Ensemble:
    """Several models as one; has what a Predictor has for the pipeline.

    Args:
        members: at least two, with the same labels and the same kind of head.
        decision: "mean" probability, or "vote".

    Raises:
        ModelError: the models' labels or heads differ.
        UsageError: an unknown decision.
    """

    def __init__(self, members: Sequence[Predictor], decision: str = "mean"):
        if decision not in ("mean", "vote"):
            raise UsageError(f"an ensemble by {decision!r}", wanted="mean or vote")
        assert len(members) > 1
        first = members[0]
        for other in members[1:]:
            if other.scheme != first.scheme or other.writers != first.writers:
                raise ModelError(
                    f"its labels are not those of {first.model.name!r}",
                    where=other.model.folder,
                    wanted="models of one label scheme and one kind of head",
                    fix="segment with each by itself",
                )
        self.members, self.decision = tuple(members), decision
        self.model, self.scheme, self.device, self.writers = first.model, first.scheme, first.device, first.writers
        self.mirror, self.overlap = first.mirror, first.overlap
        self.shown = first.shown

    @property
    def models(self) -> tuple[Model, ...]:
        """All models, in order; post-processing is the first one's."""
        return tuple(member.model for member in self.members)

    @property
    def precision(self) -> str:
        """The type in which convolutions run."""
        return self.members[0].precision

    @property
    def region(self) -> bool:
        """Whether organs are found first by any member."""
        return any(member.region for member in self.members)

    def prepare(self, volume: Volume, name: str = "", *, streamed: bool = False) -> tuple[Prepared, ...]:
        """The scan made ready for each model."""
        return tuple(member.prepare(volume, name, streamed=streamed) for member in self.members)

    def segment(self, volume: Volume, *, progress: Progress = SILENT) -> Volume:
        """A scan in HU to its label map, post-processed as the first model says."""
        prediction = self.predict(self.prepare(volume, streamed=self.device.type == "cpu"), progress=progress)
        return postprocess.apply(prediction.labels, self.scheme, self.model.postprocess)[0]

    def predict(
        self, cases: tuple[Prepared, ...], *, probabilities: bool = False, progress: Progress = SILENT
    ) -> Prediction:
        """The labels of one scan, prepared for each model, without post-processing."""
        begin, count = time.perf_counter(), Count()
        cases = tuple(
            case if member.first is None else with_earlier(case, member.first, progress)
            for member, case in zip(self.members, cases, strict=True)
        )
        searches = [first_search(m, case, count, progress) for m, case in zip(self.members, cases, strict=True)]
        shape = cases[0].source_inside.shape
        if any(
            case.source_inside.shape != shape or not case.source_inside.same_as(cases[0].source_inside)
            for case in cases
        ):
            raise ModelError(
                "the models look at different boxes of the scan or list its voxels in different orders",
                wanted="models of one way of preparing",
                fix="segment with each by itself",
            )
        while True:
            result = _Result(shape, len(self.shown), probabilities)
            borders = [None if s.found is None else Border(regions=bool(self.writers)) for s in searches]
            streams = [
                self._slices(member, case, search, count, border, progress if place == 0 else SILENT)
                for place, (member, case, search, border) in enumerate(
                    zip(self.members, cases, searches, borders, strict=True)
                )
            ]
            for z, shares in enumerate(zip(*streams, strict=True)):
                self._decide(z, torch.stack(shares), result)
            cut = [border is not None and bool(border.places) for border in borders]
            if not any(cut):
                break
            searches = [
                wider_search(member, case, search, border) if border is not None and border.places else search
                for member, case, search, border in zip(self.members, cases, searches, borders, strict=True)
            ]
        return Prediction(
            on_source(cases[0], in_place(result.classes_ZYX, self.scheme.value_lookup())),
            by_name(cases[0], self.shown, result.probabilities_KZYX),
            count.tiles,
            count.air,
            {"predict": time.perf_counter() - begin - result.seconds, "export": result.seconds},
            by_name(cases[0], ["entropy", "disagreement"], result.uncertainty()),
            searches[0].facts,
        )

    def _slices(
        self,
        member: Predictor,
        case: Prepared,
        search: Search,
        count: Count,
        border: Border | None,
        progress: Progress,
    ) -> Iterator[torch.Tensor]:
        """One model's probabilities (K, Y, X) of every slice of the scan, bottom to top."""
        exporter = SharesExporter(member, case)
        for planes in member.planes(case, search, count, progress=progress):
            if border is not None:
                border.look(planes.first, planes.logits_KSHW, planes.unasked_SHW)
            exporter.take(planes.logits_KSHW)
            while exporter.ready:
                yield exporter.ready.popleft()
        assert exporter.done

    def _decide(self, z: int, shares_MKYX: torch.Tensor, result: _Result) -> None:
        """One slice: M models' probabilities to classes, and what else is wanted."""
        at = time.perf_counter()
        mean_KYX = shares_MKYX.mean(0)
        points_KYX = mean_KYX
        if self.decision == "vote" and self.writers:
            votes_KYX = (shares_MKYX > 0.5).float().mean(0)
            points_KYX = votes_KYX + (mean_KYX - 0.5) / len(shares_MKYX) / 2  # a tie: the mean decides
        elif self.decision == "vote":
            chosen_MYX = shares_MKYX.argmax(1)
            votes_KYX = torch.stack([(chosen_MYX == k).sum(0) for k in range(shares_MKYX.shape[1])])
            points_KYX = votes_KYX + mean_KYX / 2
        if self.writers:
            there = (points_KYX > 0.5).numpy()
            for output, value in self.writers:
                result.classes_ZYX[z][there[output]] = value
        else:
            result.classes_ZYX[z] = points_KYX.argmax(0).to(torch.uint8).numpy()
        if result.probabilities_KZYX is not None:
            regions = bool(self.writers)
            off_KYX = (shares_MKYX - mean_KYX).abs().mean(0)
            result.probabilities_KZYX[:, z] = as_bytes(mean_KYX if regions else mean_KYX[1:])
            result.entropy_ZYX[z] = as_bytes(entropy(mean_KYX, regions=regions))
            result.disagreement_ZYX[z] = as_bytes(off_KYX.amax(0) if regions else off_KYX.sum(0) / 2)
        result.seconds += time.perf_counter() - at


class _Result:
    """Arrays on the scan's grid that fill up slice by slice."""

    def __init__(self, shape: tuple[int, int, int], shown: int, probabilities: bool):
        self.classes_ZYX = np.zeros(shape, np.uint8)
        self.probabilities_KZYX = np.zeros((shown, *shape), np.uint8) if probabilities else None
        self.entropy_ZYX, self.disagreement_ZYX = (
            np.zeros(shape if probabilities else (0, 0, 0), np.uint8) for _ in "ed"
        )
        self.seconds = 0.0

    def uncertainty(self) -> list[np.ndarray]:
        return [] if self.probabilities_KZYX is None else [self.entropy_ZYX, self.disagreement_ZYX]


def identity(predictor: Predictor | Ensemble) -> dict[str, str]:
    """Name and hash of what segments: a model's own, or the members' names and a hash that changes with any of them."""
    models = predictor.models
    if len(models) == 1:
        return {"name": models[0].name, "hash": models[0].hash}
    text = "+".join(model.hash for model in models)
    return {
        "name": "+".join(model.name for model in models),
        "hash": hashlib.sha256(text.encode()).hexdigest()[:12],
    }
