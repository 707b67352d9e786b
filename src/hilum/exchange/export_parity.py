"""How far an exported model is from PyTorch in fp32: logits, labels, Dice, seconds a patch.

Comes in: a model, its export, calibration cases. Goes out: a ``Parity``. While PyTorch segments the cases, what its
networks are shown is kept for quantising and for comparing logits, so that both see real input: crops, channels of a
cascade, the locator's view.

Both sides segment without mirrored copies, whose mean would hide differences. Labels are those before post-processing,
on the scans' own grids, counted over all cases together, so that one voxel of one small lesion does not decide.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from hilum import device as devices
from hilum.inference.engines import Network, open_engine
from hilum.inference.predict import Predictor
from hilum.judge.overlap import dice, joint_counts, region_counts
from hilum.labels import SCHEMES, LabelScheme
from hilum.model import Model
from hilum.phantom import make_case
from hilum.phantom.case import SCHEMES_MADE
from hilum.progress import Progress
from hilum.scans import find_scans, read_scan
from hilum.volume import Volume

PHANTOMS = 4
_SEED = 90_000  # far from the seeds that sets of phantoms begin at
KEPT = 24  # inputs of each network
_TIMED = 8  # of them are compared and timed


@dataclass(frozen=True)
class Calibration:
    """A case to compare on.

    Attributes:
        name: for people.
        read: the scan in HU and, of a phantom that the model's labels fit, the truth.
    """

    name: str
    read: Callable[[], tuple[Volume, Volume | None]]


class Recorder:
    """A network that keeps some of what it is shown: a sample in which every input has the same chance.

    Attributes:
        inputs: images (1, C, ...) fp32, at most ``KEPT``.
    """

    def __init__(self, network: Network):
        self.inputs: list[torch.Tensor] = []
        self._network, self._seen, self._chance = network, 0, random.Random(0)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """The network's answer."""
        for image in images:
            self._seen += 1
            place = len(self.inputs) if len(self.inputs) < KEPT else self._chance.randrange(self._seen)
            if place < KEPT:
                self.inputs[place : place + 1] = [image[None].contiguous().clone()]
        return self._network(images)


@dataclass(frozen=True)
class Reference:
    """What PyTorch said in fp32.

    Attributes:
        predictor: of the model.
        labels: of each case, on the scan's grid.
    """

    predictor: Predictor
    labels: list[np.ndarray]


@dataclass(frozen=True)
class LabelParity:
    """One label.

    Attributes:
        name: of the label.
        agreement: Dice of the export against PyTorch; NaN where neither finds it.
        true: Dice of PyTorch and of the export against the truth, where it is known.
        lost: Dice lost, 0 to 1 (below 0: gained): against the truth where it is known, else against PyTorch.
    """

    name: str
    agreement: float
    true: tuple[float, float] | None
    lost: float


@dataclass(frozen=True)
class Parity:
    """The table.

    Attributes:
        cases: names.
        precision: in which the exported networks ran here.
        int8: whether they were quantised.
        patches: how many inputs logits were compared on, over all folds.
        largest: largest difference of any logit.
        spread: standard deviation of PyTorch's logits, to compare it with.
        identical: share of voxels with the same label.
        labels: one by one.
        seconds: a patch through one network, sides taking turns: "torch fp32", "torch bf16", "export". The shortest of
            several, which other work on the machine disturbs least.
    """

    cases: tuple[str, ...]
    precision: str
    int8: bool
    patches: int
    largest: float
    spread: float
    identical: float
    labels: tuple[LabelParity, ...]
    seconds: dict[str, float]

    @property
    def empty(self) -> bool:
        """Whether neither side finds any label, so that only logits are compared."""
        return all(np.isnan(label.agreement) for label in self.labels)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "empty": self.empty}

    def lines(self) -> list[str]:
        """The table for people."""
        out = [
            f"against PyTorch in fp32 on {', '.join(self.cases)}:",
            f"  largest difference of a logit   {self.largest:.2g} (spread {self.spread:.2g}, {self.patches} patches)",
            f"  voxels with the same label      {100 * self.identical:.4f} %",
            f"  {'Dice':18} {'against PyTorch':>16}" + ("   true: PyTorch    export" if self.labels[0].true else ""),
        ]
        for label in self.labels:
            true = "" if label.true is None else f"   {_number(label.true[0]):>13} {_number(label.true[1]):>9}"
            out.append(f"  {label.name:18} {_number(label.agreement):>16}{true}")
        if self.empty:
            out.append("  no label was found by either: give scans of the model's kind with --calibration")
        own = self.seconds["export"]
        for name, seconds in self.seconds.items():
            more = "" if name == "export" else f"   export {seconds / own:.2f} times as fast"
            out.append(f"  ms a patch, {name:19} {1000 * seconds:9.1f}{more}")
        return out


def calibration_cases(scans: Sequence[str], scheme: LabelScheme) -> list[Calibration]:
    """Scans that are given, or phantoms; with their truth where the model has their labels.

    Raises:
        UsageError: a pattern matches nothing.
        ScanError: a folder holds no scan; while a case is read, what is wrong with it.
    """
    if scans:
        return [Calibration(ref.name, lambda path=ref.path: (read_scan(path), None)) for ref in find_scans(scans)]  # type: ignore[misc]
    kind = scheme.name if scheme.name in SCHEMES_MADE else "kits"
    known = SCHEMES.get(kind) == scheme

    def phantom(seed: int) -> tuple[Volume, Volume | None]:
        made = make_case(seed, small=True, labels=kind)
        return made.ct, made.labels if known else None

    seeds = range(_SEED, _SEED + PHANTOMS)
    return [Calibration(f"phantom {seed}", lambda seed=seed: phantom(seed)) for seed in seeds]  # type: ignore[misc]


def parts_of(predictor: Predictor, name: str = "") -> dict[str, Predictor]:
    """A predictor and those in it: "", "first/", "locator/", "first/locator/"."""
    found = {name: predictor}
    for key, other in (("first", predictor.first), ("locator", predictor.locator)):
        if other is not None:
            found |= parts_of(other, f"{name}{key}/")
    return found


def record(
    model: Model, cases: Sequence[Calibration], progress: Progress
) -> tuple[Reference, dict[str, list[Recorder]]]:
    """PyTorch's labels in fp32, and what each network of each part was shown."""
    predictor = Predictor(model, "cpu", mirror=False, precision="fp32")
    recorders: dict[str, list[Recorder]] = {}
    for name, part in parts_of(predictor).items():
        recorders[name] = [Recorder(network) for network in part.folds.networks]
        part.folds.networks = list(recorders[name])
    labels = [_labels(predictor, case.read()[0], progress) for case in cases]
    return Reference(predictor, labels), recorders


def compare(
    reference: Reference,
    export: Model,
    cases: Sequence[Calibration],
    recorders: Mapping[str, Sequence[Recorder]],
    progress: Progress,
) -> Parity:
    """The export's answers on the same cases, beside PyTorch's."""
    predictor = Predictor(export, "cpu", mirror=False)
    against, true_torch, true_export = (np.zeros((256, 256), np.int64) for _ in range(3))
    known = True
    for case, before in zip(cases, reference.labels, strict=True):
        scan, truth = case.read()
        after = _labels(predictor, scan, progress)
        against += joint_counts(before, after)
        known = known and truth is not None
        if truth is not None:
            array = np.asarray(truth.array, np.uint8)
            true_torch += joint_counts(array, before)
            true_export += joint_counts(array, after)
    tables = (true_torch, true_export) if known else None
    labels = tuple(_label(part.name, part.value, against, tables) for part in predictor.scheme.labels)
    largest, spread, patches = _logits(predictor, recorders)
    return Parity(
        tuple(case.name for case in cases),
        predictor.precision,
        bool(export.exported and export.exported.int8),
        patches,
        largest,
        spread,
        float(np.trace(against) / against.sum()),
        labels,
        _seconds(reference.predictor.model, predictor, recorders),
    )


def _labels(predictor: Predictor, scan: Volume, progress: Progress) -> np.ndarray:
    return np.asarray(predictor.predict(predictor.prepare(scan, streamed=True), progress=progress).labels.array)


def _label(name: str, value: int, against: np.ndarray, tables: tuple[np.ndarray, np.ndarray] | None) -> LabelParity:
    def score(joint: np.ndarray) -> float:
        return float(dice(region_counts(joint, (value,))))

    agreement = score(against)
    if tables is None:
        return LabelParity(name, agreement, None, 1.0 - _or_one(agreement))
    before, after = (score(table) for table in tables)
    return LabelParity(name, agreement, (before, after), _or_one(before) - _or_one(after))


def _or_one(value: float) -> float:
    """Dice of a label that is rightly absent."""
    return 1.0 if np.isnan(value) else value


def _logits(predictor: Predictor, recorders: Mapping[str, Sequence[Recorder]]) -> tuple[float, float, int]:
    """Largest difference and PyTorch's spread, over all networks of all parts, and the number of inputs."""
    largest, variances, patches = 0.0, [], 0
    for name, part in parts_of(predictor).items():
        for network, recorder in zip(part.folds.networks, recorders[name], strict=True):
            for image in recorder.inputs[:_TIMED]:
                with torch.inference_mode():
                    wanted, found = recorder(image).float(), network(image).float()
                largest = max(largest, float((found - wanted).abs().max()))
                variances.append(float(wanted.var()))
                patches += 1
    return largest, float(np.sqrt(np.mean(variances))) if variances else 0.0, patches


def _seconds(model: Model, predictor: Predictor, recorders: Mapping[str, Sequence[Recorder]]) -> dict[str, float]:
    """Seconds a patch through the first network of each side; they take turns, so that a busy machine hits all."""
    wanted = ["fp32", "bf16"] if devices.cpu_has_bf16() else ["fp32"]
    sides: dict[str, Network] = {
        f"torch {precision}": open_engine(model, torch.device("cpu"), precision).networks[0] for precision in wanted
    }
    sides["export"] = predictor.folds.networks[0]
    patch = predictor.plan.patch[-predictor.plan.dims :]
    images = recorders[""][0].inputs[:_TIMED] or [torch.zeros(1, model.spec.in_channels, *patch)]
    taken: dict[str, list[float]] = {name: [] for name in sides}
    with torch.inference_mode():
        for network in sides.values():
            network(images[0])  # buffers are made and code is chosen the first time
        for image in images:
            for name, network in sides.items():
                begin = time.perf_counter()
                network(image)
                taken[name].append(time.perf_counter() - begin)
    return {name: min(values) for name, values in taken.items()}


def _number(value: float) -> str:
    return "absent" if np.isnan(value) else f"{value:.4f}"
