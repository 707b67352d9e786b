"""Label maps of labelled cases by full inference, with their truths beside them, so that an evaluation can follow.

    OUT/predictions/<case>.nii.gz    what the model says, post-processed, on the scan's own grid
    OUT/truth/<case>.nii.gz          the truth as uint8, whatever format and folder it came from
    OUT/predictions.json             model, seconds and failures; what is there already for this model is kept

Comes in: a model and cases. Goes out: those folders. It scores nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hilum.errors import InputError
from hilum.files import read_json, write_json
from hilum.inference import postprocess
from hilum.inference.predict import Prediction, Predictor
from hilum.inference.source import Prepared
from hilum.model import Model, load_model
from hilum.pipeline.casefolder import scan_stamp
from hilum.pipeline.stages import Failure, in_three_stages
from hilum.progress import SILENT, Progress
from hilum.scans import read_labels, read_scan, write_labels
from hilum.volume import require_same_grid

if TYPE_CHECKING:
    from hilum.datasets import CaseRef

FORMAT = 1


@dataclass(frozen=True)
class PredictedCases:
    """Where predictions and truths lie.

    Attributes:
        predictions: folder of ``<case>.nii.gz``.
        truth: folder of ``<case>.nii.gz`` for cases that have a truth.
        cases: names of those predicted, now or before.
        failed: case -> why, in one sentence.
    """

    predictions: Path
    truth: Path
    cases: tuple[str, ...]
    failed: Mapping[str, str]


def predict_cases(
    model: Model | str | Path,
    cases: Sequence[CaseRef],
    out: str | Path,
    *,
    device: str = "auto",
    mirror: bool | None = None,
    progress: Progress = SILENT,
) -> PredictedCases:
    """Segment cases for an evaluation; a case that fails is recorded and the others go on.

    Args:
        model: a loaded Model, a model folder or name.
        cases: scans, with label maps where there are such.
        out: the folder; predictions of the same model that are there already are kept.
        device: "auto", "cpu", "cuda", "cuda:1".
        mirror: average over mirrored copies; None takes the model's own choice.
        progress: where to tell.

    Raises:
        UsageError, ModelError: as for ``segment``.
        OutputError: the folder cannot be written.
    """
    model = model if isinstance(model, Model) else load_model(model)
    work = _Work(Path(out), Predictor(model, device, mirror=mirror), progress)
    kept = work.kept(cases)
    todo = [case for case in cases if case.name not in kept]
    bar = progress.stage("Predicting cases", len(todo))
    failed: dict[str, str] = {}
    for case, outcome in in_three_stages(todo, work.load, work.compute, work.finish):
        if isinstance(outcome, Failure):
            failed[case.name] = outcome.error
            progress.say(f"{case.name} failed: {outcome.error}")
        else:
            kept[case.name] = outcome
        work.write(kept, failed)
        bar.step(note=case.name)
    work.write(kept, failed)
    names = tuple(case.name for case in cases if case.name in kept)
    return PredictedCases(work.predictions, work.truth, names, failed)


@dataclass(frozen=True)
class _Work:
    """The three stages of a case."""

    out: Path
    predictor: Predictor
    progress: Progress

    @property
    def predictions(self) -> Path:
        return self.out / "predictions"

    @property
    def truth(self) -> Path:
        return self.out / "truth"

    @property
    def _key(self) -> dict[str, Any]:
        model = self.predictor.model
        return {"format": FORMAT, "model": {"name": model.name, "hash": model.hash}, "mirror": self.predictor.mirror}

    def kept(self, cases: Sequence[CaseRef]) -> dict[str, Any]:
        """What an earlier run with this model has left of these cases."""
        try:
            record = read_json(self.out / "predictions.json")
        except InputError:
            return {}
        if not isinstance(record, dict) or any(record.get(key) != value for key, value in self._key.items()):
            return {}
        return {
            case.name: record["cases"][case.name]
            for case in cases
            if record["cases"].get(case.name, {}).get("stamps") == _stamps(case)
            and (self.predictions / f"{case.name}.nii.gz").is_file()
            and (case.labels is None or (self.truth / f"{case.name}.nii.gz").is_file())
        }

    def load(self, case: CaseRef) -> Prepared:
        scan = read_scan(case.image)
        if case.labels is not None:
            truth = read_labels(case.labels, self.predictor.scheme)
            require_same_grid(scan.oriented(), truth.oriented())
            write_labels(self.truth / f"{case.name}.nii.gz", truth)
        return self.predictor.prepare(scan, case.name)

    def compute(self, case: CaseRef, prepared: Prepared) -> tuple[float, Prediction]:
        begin = time.perf_counter()
        prediction = self.predictor.predict(prepared, progress=self.progress)
        return time.perf_counter() - begin, prediction

    def finish(self, case: CaseRef, computed: tuple[float, Prediction]) -> dict[str, Any]:
        seconds, prediction = computed
        model = self.predictor.model
        labels, removed = postprocess.apply(prediction.labels, model.scheme, model.postprocess)
        write_labels(self.predictions / f"{case.name}.nii.gz", labels)
        return {"seconds": round(seconds, 3), "removed": removed, "stamps": _stamps(case)}

    def write(self, cases: Mapping[str, Any], failed: Mapping[str, str]) -> None:
        write_json(self.out / "predictions.json", {**self._key, "cases": dict(cases), "failures": dict(failed)})


def _stamps(case: CaseRef) -> list[dict[str, int]]:
    return [scan_stamp(path) for path in (case.image, case.labels) if path is not None]
