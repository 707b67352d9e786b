"""WHAT THE RUN SAID: the log, one JSON line an epoch, and the numbers in it.

Comes in: losses, waiting times, predictions on held-out patches. Goes out: ``RUN/log.jsonl``. Its first line holds
the facts of the run; each other line with an ``epoch`` is one epoch. Knows no network.

``patch_dice`` is the Dice of held-out *patches*, pooled over voxels: quick, and too kind (patches are drawn where
organs are). It is not the Dice of cases, which whole-scan inference alone gives, and never carries that name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from hilum.files import cannot_write, plain, write_text
from hilum.training.trackers import Tracker, numbers_of, open_tracker


class Log:
    """A file of JSON lines that survives a kill: lines are appended whole, a cut one is dropped.

    Args:
        path: of the file.
        trackers: "tensorboard" and "mlflow", which hear the numbers of each epoch as well (``trackers``).
        silent: write nothing: another rank of the run does.
    """

    def __init__(self, path: Path, trackers: Sequence[str] = (), silent: bool = False):
        self.path, self.silent = path, silent
        self._names = () if silent else tuple(trackers)
        self._trackers: list[Tracker] = []

    def __enter__(self) -> Log:
        facts: dict[str, Any] = next((line["facts"] for line in read_log(self.path) if "facts" in line), {})
        self._trackers = [open_tracker(name, self.path.parent, facts) for name in self._names]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for tracker in self._trackers:
            tracker.close()
        self._trackers = []

    def begin(self, facts: Mapping[str, Any]) -> None:
        """A new log; an old one is replaced."""
        if not self.silent:
            write_text(self.path, _line({"facts": dict(facts)}))

    def go_on(self, step: int, facts: Mapping[str, Any]) -> None:
        """Drop what was said after ``step`` (it will be said again) and note that the run went on from there."""
        if self.silent:
            return
        kept = [line for line in read_log(self.path) if line.get("step", 0) <= step]
        write_text(self.path, "".join(_line(line) for line in [*kept, {"resumed": dict(facts), "step": step}]))

    def write(self, values: Mapping[str, Any]) -> None:
        """One more line."""
        if self.silent:
            return
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(_line(values))
        except OSError as error:
            raise cannot_write(self.path, error) from error
        if "epoch" in values:
            for tracker in self._trackers:
                tracker.write(int(values["step"]), numbers_of(values))


def read_log(path: Path) -> list[dict[str, Any]]:
    """All complete lines of a log; an empty list if there is none."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:  # cut off by a kill
            continue
    return lines


class PatchDice:
    """Dice of patches pooled over voxels: hits, prediction and truth are summed before they are divided."""

    def __init__(self, names: Sequence[str]):
        self.names = list(names)  # foreground classes, in order of their index
        self.sums = torch.zeros(3, len(self.names) + 1, dtype=torch.int64)

    def add(self, truth: torch.Tensor, logits: torch.Tensor) -> None:
        """One batch: class indices (B, ...) and logits (B, K, ...)."""
        prediction, truth = logits.argmax(1).flatten(), truth.flatten().long()
        count = len(self.names) + 1
        for row, values in enumerate((truth[truth == prediction], truth, prediction)):
            self.sums[row] += torch.bincount(values, minlength=count).cpu()

    def scores(self) -> dict[str, float | None]:
        """By class name; None where a class was neither there nor predicted."""
        both, truth, prediction = self.sums.tolist()
        return {
            name: 2 * both[k] / (truth[k] + prediction[k]) if truth[k] + prediction[k] else None
            for k, name in enumerate(self.names, 1)
        }


class PatchRegionDice:
    """The same for a network of regions: each output above a logit of 0 against the union of its labels.

    Args:
        names: of the regions.
        regions_RK: which class indices each holds.
    """

    def __init__(self, names: Sequence[str], regions_RK: torch.Tensor):
        self.names, self.regions = list(names), regions_RK
        self.sums = torch.zeros(3, len(self.names), dtype=torch.int64)

    def add(self, truth: torch.Tensor, logits: torch.Tensor) -> None:
        """One batch: class indices (B, ...) and logits (B, R, ...)."""
        there = self.regions.to(truth.device)[:, truth.flatten()]
        said = (logits > 0).transpose(0, 1).flatten(1)
        self.sums += torch.stack([x.sum(1).cpu() for x in (there & said, there, said)])

    def scores(self) -> dict[str, float | None]:
        """By region; None where it was neither there nor predicted."""
        rows = self.sums.T.tolist()
        return {
            name: 2 * both / (truth + said) if truth + said else None
            for name, (both, truth, said) in zip(self.names, rows, strict=True)
        }


class Epoch:
    """Sums over the steps of one epoch; they travel in checkpoints, so that a cut epoch is logged whole."""

    def __init__(self, saved: Mapping[str, Any] | None = None):
        saved = saved or {}
        self.losses: list[float] = [float(x) for x in saved.get("losses", [])]
        self.seconds, self.waited = float(saved.get("seconds", 0.0)), float(saved.get("waited", 0.0))

    def add(self, loss: float, seconds: float, waited: float) -> None:
        """One step: its loss, how long it took and how long of that it waited for data."""
        self.losses.append(loss)
        self.seconds += seconds
        self.waited += waited

    def to_json(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"losses": self.losses, "seconds": self.seconds, "waited": self.waited}

    def line(self, batch: int) -> dict[str, float]:
        """Mean loss, seconds, data-wait share (0 to 1) and patches per second."""
        seconds = max(self.seconds, 1e-9)
        return {
            "loss": sum(self.losses) / len(self.losses),
            "epoch_seconds": round(self.seconds, 3),
            "data_wait": round(min(1.0, self.waited / seconds), 4),
            "patches_per_second": round(batch * len(self.losses) / seconds, 4),
        }


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(plain(dict(values)), ensure_ascii=False, allow_nan=False) + "\n"
