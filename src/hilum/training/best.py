"""THE BEST SO FAR: weights of the best true score, and when to stop waiting for a better one.

    RUN/best/<step>.safetensors   only with ``keep = "best"``

Comes in: a score and weights now and then. Goes out: whether it is enough, and the weights to keep. It does nothing
without ``patience`` and ``keep = "best"``: who chooses a checkpoint by its score on the very cases that are held out
makes that score a little too kind.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hilum.config import TrainingOptions
from hilum.files import written
from hilum.model import read_tensors, write_tensors


class Best:
    """Follows true scores.

    Args:
        folder: where the best weights are kept.
        options: ``patience`` and ``keep``.
    """

    def __init__(self, folder: Path, options: TrainingOptions):
        self.folder, self.patience, self.keeps = folder, options.patience, options.keep == "best"
        self._score: float | None = None
        self._step = self._worse = 0
        self._checksum = ""

    @property
    def wants_scores(self) -> bool:
        """Whether a score is needed after every epoch."""
        return self.patience > 0 or self.keeps

    @property
    def is_enough(self) -> bool:
        """Whether too many looks brought nothing better."""
        return 0 < self.patience <= self._worse

    def take(self, score: float | None, step: int, weights: Mapping[str, torch.Tensor]) -> None:
        """One more score; None (no region to score) counts as no better."""
        if not self.wants_scores:
            return
        if score is None or (self._score is not None and score <= self._score):
            self._worse += 1
            return
        self._score, self._step, self._worse = score, step, 0
        if self.keeps:
            self.folder.mkdir(parents=True, exist_ok=True)
            with written(self._file) as part:
                self._checksum = write_tensors(part, dict(weights))

    def forget_older(self) -> None:
        """Remove what the checkpoint that was just written no longer names."""
        for file in self.folder.glob("*.safetensors"):
            if file != self._file:
                file.unlink(missing_ok=True)

    @property
    def _file(self) -> Path:
        return self.folder / f"{self._step}.safetensors"

    def weights(self) -> dict[str, torch.Tensor] | None:
        """The weights to keep, None for the last ones."""
        if not self.keeps or not self._checksum:
            return None
        return read_tensors(self._file, self._checksum)

    def describe(self, last_step: int) -> str:
        """Which weights the model holds, for its card."""
        if not self.keeps or self._score is None:
            return f"of the last step, {last_step}"
        return f"of step {self._step}, best mean true Dice {self._score:.4f} on held-out cases (so a little too kind)"

    def to_json(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"score": self._score, "step": self._step, "worse": self._worse, "checksum": self._checksum}

    def restore(self, saved: Mapping[str, Any] | None) -> None:
        """Go on where a checkpoint was taken. A better score that came after it is forgotten with its steps."""
        if saved:
            self._score, self._step, self._worse = saved["score"], saved["step"], saved["worse"]
            self._checksum = saved["checksum"]

    def forget(self) -> None:
        """A new run."""
        shutil.rmtree(self.folder, ignore_errors=True)
