"""Scans and a model to a folder of label maps, measurements and pages.

    DIR/<case>/labels.nii.gz, measurements.json, report.html, case.json     see ``casefolder``
    DIR/summary.csv                                                         one row a case, earlier runs' too
    DIR/run.json              versions, model, options, seconds and peak memory by stage, failures

Comes in: paths, folders or globs, one or more models (folders or names), an output folder. Goes out: the files above
and a SegmentRun. A case that fails is recorded and the others go on; a case whose results are there already is left as
it is, so that a run that was killed resumes where it was. It knows no command line and prints nothing.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from hilum import __version__
from hilum import device as devices
from hilum.errors import OutputError, UsageError
from hilum.files import plain, write_json
from hilum.inference import postprocess
from hilum.inference.ensemble import Ensemble, identity
from hilum.inference.memory import MemoryPlan, Way, give_back_memory, lend_pages, parse_memory, plan_memory
from hilum.inference.predict import Prediction, Predictor
from hilum.model import Model, load_model
from hilum.pipeline.casefolder import CaseFolder, finished_cases, refuse_other_results, refuse_other_tables
from hilum.pipeline.meter import Meter
from hilum.pipeline.stages import Failure, in_three_stages
from hilum.progress import SILENT, Progress, clock
from hilum.scans import ScanRef, find_scans, read_scan, write_labels
from hilum.scans.peek import Peek, peek
from hilum.volume import Volume

FORMAT = 1


@dataclass(frozen=True)
class SegmentRun:
    """What became of a run.

    Attributes:
        out: the output folder.
        done: cases computed now.
        skipped: cases whose results were there already.
        failed: case -> why, in one sentence.
        seconds: wall time.
    """

    out: Path
    done: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: Mapping[str, str]
    seconds: float

    @property
    def exit_code(self) -> int:
        """0, or 1 if a case failed."""
        return 1 if self.failed else 0

    def text(self) -> str:
        """The end of the run, for people."""
        lines = [f"{len(self.done)} done in {clock(self.seconds)}: {self.out}"]
        if self.skipped:
            lines.append(f"{len(self.skipped)} were there already and stay as they are (--overwrite makes them again)")
        if self.failed:
            lines.append(f"{len(self.failed)} failed:")
            lines += [f"  {name}: {why}" for name, why in self.failed.items()]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "out": str(self.out),
            "done": list(self.done),
            "skipped": list(self.skipped),
            "failed": dict(self.failed),
            "seconds": round(self.seconds, 3),
        }


def segment(
    scans: Sequence[str | Path | ScanRef],
    model: Model | str | Path | Sequence[Model | str | Path],
    out: str | Path,
    *,
    device: str = "auto",
    mirror: bool | None = None,
    precision: str = "auto",
    region: bool | None = None,
    ensemble: str = "mean",
    probabilities: bool = False,
    max_memory: str = "",
    overwrite: bool = False,
    series: str | None = None,
    resample_tilt: bool = False,
    progress: Progress = SILENT,
) -> SegmentRun:
    """Segment scans.

    Args:
        scans: files, DICOM folders, zips, globs, or ScanRefs.
        model: a loaded Model, a model folder, or the name of a model that ships with hilum; or several of these, whose
            answers are put together.
        out: the folder for results.
        device: "auto", "cpu", "cuda", "cuda:1".
        mirror: average over mirrored copies; None takes the model's own choice.
        precision: of convolutions: "auto" (fp32 on a processor, a short type on a GPU), "fp32", "bf16", "fp16".
        region: find organs first and do only what lies there; False does the whole scan; None takes the model's choice.
        ensemble: of several models: "mean" probability or "vote".
        probabilities: also write the probability of each label, their entropy, and the disagreement of folds or models.
        max_memory: main memory that may be used, such as "3GB"; "" sets no limit. The results do not depend on it.
        overwrite: compute every case anew, whatever is there.
        series: for DICOM folders with several series: which.
        resample_tilt: for DICOM from a tilted gantry: straighten it instead of refusing it.
        progress: where to tell.

    Raises:
        UsageError: no scans, no such model or device, or a limit of memory that cannot be kept.
        ModelError: a damaged model.
        OutputError: ``out`` holds results of another model, other options or other scans of the same names, or files
            that hilum did not write, or cannot be written at all.
    """
    begin = time.perf_counter()
    refs = _refs(scans)
    limit = parse_memory(max_memory) if max_memory else None
    predictor = _predictor(model, ensemble, device=device, mirror=mirror, precision=precision, region=region)
    if predictor.device.type == "cpu":
        devices.use_threads()
        lend_pages()
    options = {
        "mirror": predictor.mirror,
        "overlap": predictor.overlap,
        "precision": predictor.precision,
        "region": predictor.region,
        "ensemble": ensemble if len(predictor.models) > 1 else None,
        "probabilities": probabilities,
        "series": series,
        "resample_tilt": resample_tilt,
    }
    run = _Run(Path(out), predictor, options, progress)
    folders = {ref.name: run.folder(ref) for ref in refs}
    if not overwrite:
        refuse_other_tables(run.out)
        refuse_other_results(list(folders.values()), run.out)
    whole = {} if overwrite else {name: folder for name, folder in folders.items() if folder.state() == "done"}
    run.skipped = {name: folder.record() or {} for name, folder in whole.items()}
    if run.skipped:
        progress.say(f"{len(run.skipped)} of {len(refs)} cases are there already and stay as they are")
    todo = [ref for ref in refs if ref.name not in run.skipped]
    run.plan(todo, limit)
    run.write_record(refs, time.perf_counter() - begin)  # before hours of work: can this folder be written at all?
    with run.meter:
        for place, (ref, outcome) in enumerate(
            in_three_stages(todo, run.load, run.compute, run.finish, together=run.memory.way.together)
        ):
            run.note(ref, outcome, f"{place + 1}/{len(todo)}")
            run.write_record(refs, time.perf_counter() - begin)
    run.write_summary()
    run.write_record(refs, time.perf_counter() - begin)
    return SegmentRun(run.out, tuple(run.done), tuple(run.skipped), dict(run.failed), time.perf_counter() - begin)


@dataclass
class _Run:
    """The three stages of a case and what is written down about them."""

    out: Path
    predictor: Predictor | Ensemble
    options: dict[str, Any]
    progress: Progress
    meter: Meter = field(default_factory=Meter)
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    skipped: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    memory: MemoryPlan = field(default_factory=lambda: MemoryPlan(Way(True, False), None, 0.0, {}, 0.0))
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def folder(self, ref: ScanRef) -> CaseFolder:
        return CaseFolder(self.out / ref.name, ref.path, identity(self.predictor), self.options)

    def plan(self, refs: Sequence[ScanRef], limit_bytes: float | None) -> None:
        """Decide, from the scans' headers alone, how to go about them; say so where a limit was given."""
        facts = {ref.name: peek(ref.path, self.options["series"]) for ref in refs}
        known = {name: fact for name, fact in facts.items() if fact is not None}
        self.memory = plan_memory(
            self.predictor, known, probabilities=self.options["probabilities"], limit_bytes=limit_bytes
        )
        if limit_bytes is not None and refs:
            self.progress.say(self.memory.describe())

    def load(self, ref: ScanRef) -> tuple[Volume, Any]:
        with self.meter.stage(ref.name, "read"):
            scan = read_scan(ref.path, series=self.options["series"], resample_tilt=self.options["resample_tilt"])
        self._check(ref, scan)
        with self.meter.stage(ref.name, "prepare"):
            return scan, self.predictor.prepare(scan, ref.name, streamed=self.memory.way.streamed)

    def _check(self, ref: ScanRef, scan: Volume) -> None:
        """Scans whose headers told nothing are planned once they are read."""
        if self.memory.limit_bytes is None:
            return
        give_back_memory()
        if ref.name not in self.memory.stages:
            facts = {ref.name: Peek(scan.grid, 0, 0)}  # its voxels are there already
            wants = self.options["probabilities"]
            plan_memory(self.predictor, facts, probabilities=wants, limit_bytes=self.memory.limit_bytes)

    def compute(self, ref: ScanRef, loaded: tuple[Volume, Any]) -> tuple[Volume, Prediction]:
        scan, case = loaded
        with self.meter.stage(ref.name, "predict"):
            prediction = self.predictor.predict(
                case, probabilities=self.options["probabilities"], progress=self.progress
            )
            # they take turns, so that only the predictor can tell their seconds apart
            self.meter.add(ref.name, "export", prediction.seconds["export"])
            self.meter.add(ref.name, "predict", -prediction.seconds["export"])
        if self.memory.limit_bytes is not None:
            give_back_memory()
        return scan, prediction

    def finish(self, ref: ScanRef, computed: tuple[Volume, Prediction]) -> dict[str, Any]:
        from hilum.pages.case import case_report
        from hilum.results.everything import measure_all
        from hilum.results.measure import write_measurements

        scan, prediction = computed
        model, folder = self.predictor.model, self.folder(ref)
        with self.meter.stage(ref.name, "postprocess"):
            cleaned, removed = postprocess.apply(prediction.labels, model.scheme, model.postprocess, in_place=True)
            if not cleaned.grid.same_as(scan.grid):
                raise OutputError("the labels came out on another grid than the scan", where=ref.path)
            labels = scan.with_array(cleaned.array)  # the scan's own header too
        with self.meter.stage(ref.name, "write"):
            folder.begin()
            write_labels(folder.labels, labels)
            for label, shares in prediction.probabilities.items():
                write_labels(folder.probabilities(label), scan.with_array(shares.array))
            for name, doubt in prediction.uncertainty.items():
                write_labels(folder.uncertainty(name), scan.with_array(doubt.array))
        with self.meter.stage(ref.name, "measure"):
            by_label = {label: scan.with_array(each.array) for label, each in prediction.probabilities.items()}
            measurements = measure_all(labels, model.scheme, scan, probabilities=by_label)
            write_measurements(folder.measurements, measurements)
        with self.meter.stage(ref.name, "report"):
            card = {**model.card, **identity(self.predictor)}
            page = self._page_facts(ref, removed)
            case_report(folder.report, scan, labels, measurements, model.scheme, model_card=card, run=page)
        facts = {
            "labels": folder.labels.name,
            "scheme": model.scheme.to_json(),
            "card": card,
            "page": page,
            "tiles": prediction.tiles,
            "tiles_of_air": prediction.skipped,
            "region": prediction.region,
            "removed": removed,
            "seconds": dict(self.meter.seconds[ref.name]),
            "memory_gb": dict(self.meter.memory_gb[ref.name]),
        }
        folder.finish(facts)
        return facts

    def _page_facts(self, ref: ScanRef, removed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """How it was made, for the page."""
        changes = [f"{x['step']}: {x['what']}, {x['components']} components, {x['ml']:.3g} mL" for x in removed]
        return {
            "hilum": __version__,
            "device": devices.describe(self.predictor.device),
            "precision": self.predictor.precision,
            "options": self.options,
            "changed_by_post-processing": changes or "nothing",
            "seconds": dict(self.meter.seconds[ref.name]),
        }

    def note(self, ref: ScanRef, outcome: dict[str, Any] | Failure, place: str) -> None:
        if isinstance(outcome, Failure):
            self.failed[ref.name] = outcome.error
            self.progress.say(f"{place} {ref.name} failed: {outcome.error}")
        else:
            self.done[ref.name] = outcome
            self.progress.say(f"{place} {ref.name} done, {clock(sum(outcome['seconds'].values()))}")

    def write_record(self, refs: Sequence[ScanRef], seconds: float) -> None:
        """``run.json``; after every case, so that a run that is killed leaves it too."""
        predictor, peak = self.predictor, devices.peak_memory_gb(torch.device("cpu"))
        record = {
            "format": FORMAT,
            "started": self.started,
            "seconds": round(seconds, 3),
            "versions": {"hilum": __version__, "python": platform.python_version()}
            | {package: version(package) for package in ("torch", "numpy")},
            "model": {
                **identity(predictor),
                "folder": str(predictor.model.folder),
                "members": [{"name": x.name, "hash": x.hash, "folder": str(x.folder)} for x in predictor.models],
            },
            "memory": {**self.memory.to_json(), "peak_gb": round(peak * 2**30 / 1e9, 3) if peak else None},
            "device": {
                "name": str(predictor.device),
                "hardware": devices.describe(predictor.device),
                "precision": predictor.precision,
                "peak_memory_gb": devices.peak_memory_gb(predictor.device),
            },
            "options": self.options | {"postprocess": list(predictor.model.postprocess)},
            "cases": {ref.name: self._case_record(ref) for ref in refs},
            "failures": [{"case": name, "error": why} for name, why in self.failed.items()],
        }
        write_json(self.out / "run.json", plain(record))

    def _case_record(self, ref: ScanRef) -> dict[str, Any]:
        tables: dict[str, Mapping[str, Any]] = {"done": self.done, "skipped": self.skipped, "failed": self.failed}
        state = next((state for state, table in tables.items() if ref.name in table), "waiting")
        facts = self.done.get(ref.name) or self.skipped.get(ref.name) or {}
        measured: dict[str, Any] = {
            "seconds": self.meter.seconds.get(ref.name, {}),
            "memory_gb": self.meter.memory_gb.get(ref.name, {}),
        }
        kept = {key: facts[key] for key in ("tiles", "tiles_of_air", "region", "removed", *measured) if key in facts}
        return {"state": state, "scan": str(ref.path), **measured, **kept}

    def write_summary(self) -> None:
        """``summary.csv`` and ``summary.html``: a row for every case of the folder whose measurements are there."""
        from hilum.pages.cohort import cohort_report
        from hilum.results.measure import write_summary

        whole = {name: table for name, table in finished_cases(self.out).items() if name not in self.failed}
        write_summary(self.out / "summary.csv", whole)
        cohort_report(self.out / "summary.html", whole, self.failed)


def _predictor(
    model: Model | str | Path | Sequence[Model | str | Path],
    ensemble: str,
    **options: Any,
) -> Predictor | Ensemble:
    """One model, or several as one."""
    given = [model] if isinstance(model, Model | str | Path) else list(model)
    if not given:
        raise UsageError("no model", wanted="a model folder, or a name of hilum model list")
    members = [Predictor(one if isinstance(one, Model) else load_model(one), **options) for one in given]
    return members[0] if len(members) == 1 else Ensemble(members, ensemble)


def _refs(scans: Sequence[str | Path | ScanRef]) -> list[ScanRef]:
    if not scans:
        raise UsageError("no scans", wanted="at least one file, DICOM folder, zip or glob")
    given = [scan for scan in scans if isinstance(scan, ScanRef)]
    paths = [str(scan) for scan in scans if not isinstance(scan, ScanRef)]
    return given + (find_scans(paths) if paths else [])
