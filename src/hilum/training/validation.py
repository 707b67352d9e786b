"""THE TRUE SCORE: whole scans segmented while training goes on, scored on their own grids.

Comes in: held-out cases, the weights of the moment. Goes out: Dice by region, averaged over cases. Unlike the Dice of
patches it sees whole scans, post-processing included: what the user will get. It costs time, so that it takes a set
share of the run's.

A region that neither truth nor prediction has is left out of the mean.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hilum.config import Recipe
from hilum.datasets import CaseRef
from hilum.inference import postprocess
from hilum.inference.predict import Predictor
from hilum.judge.overlap import dice, joint_counts, region_counts
from hilum.model import Model, NetworkSpec
from hilum.patches.tiles import tile_starts
from hilum.prepare.earlier import EarlierStore
from hilum.prepare.fingerprint import read_pair
from hilum.prepare.plan import Plan
from hilum.prepare.preprocess import Case, prepare_scan
from hilum.prepare.store import Store

log = logging.getLogger(__name__)
_FORWARD_SHARE = 0.4  # what a forward pass takes of a training step
_OVERHEAD = 1.5  # interpolation, argmax, post-processing beside the network


@dataclass(frozen=True)
class TrueScore:
    """One validation.

    Attributes:
        dice: by region, the mean over the cases that have it; None where none has.
        cases: names.
        seconds: what it took.
    """

    dice: dict[str, float | None]
    cases: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """For the log."""
        return {"dice": self.dice, "cases": list(self.cases), "seconds": round(self.seconds, 2)}

    @property
    def mean(self) -> float | None:
        """Mean over regions."""
        known = [value for value in self.dice.values() if value is not None]
        return sum(known) / len(known) if known else None


class CaseValidation:
    """A few held-out cases, prepared once.

    Args:
        cases: held-out, with labels; the ``count`` with most kinds of labels are taken.
        count: how many.
        store: prepared cases, for what they hold.
        spec: the network.
        plan: patch, spacing.
        recipe: labels, inference, post-processing.
        device: where to compute.
        earlier: of a cascade: what the model before found in the cases.

    Attributes:
        spent: seconds so far, over all parts of the run.
    """

    def __init__(
        self,
        cases: Sequence[CaseRef],
        count: int,
        store: Store,
        spec: NetworkSpec,
        plan: Plan,
        recipe: Recipe,
        device: torch.device,
        earlier: EarlierStore | None = None,
    ):
        def kinds(case: CaseRef) -> int:
            return -len(store.case(case.name).locations)

        self.cases = tuple(sorted(cases, key=lambda case: (kinds(case), case.name)))[:count]
        self.store, self.spec, self.plan, self.recipe, self.device = store, spec, plan, recipe, device
        self.share, self.spent, self.last = recipe.training.validation_share, 0.0, 0.0
        self.earlier = earlier
        self._prepared: dict[str, tuple[Case, np.ndarray]] = {}

    def is_due(self, seconds: float, step_seconds: float) -> bool:
        """Whether one more look stays within its share of the run's time, ``seconds`` so far."""
        if not self.cases or not self.share:
            return False
        return self.spent + (self.last or self._expected(step_seconds)) <= self.share * seconds

    def score(self, weights: dict[str, torch.Tensor]) -> TrueScore:
        """Segment and score the cases with these weights; the random numbers of training stay as they are."""
        begin, scheme = time.monotonic(), self.recipe.scheme
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            predictor = Predictor(self._model(weights), str(self.device))
        found: dict[str, list[float]] = {region.name: [] for region in scheme.regions}
        for case in self.cases:
            prepared, truth = self._case(case)
            prediction = predictor.predict(prepared)
            labels = postprocess.apply(prediction.labels, scheme, self.recipe.postprocess)[0]
            joint = joint_counts(truth, np.asarray(labels.array, np.uint8))
            for region in scheme.regions:
                value = float(dice(region_counts(joint, region.labels)))
                if not np.isnan(value):
                    found[region.name].append(value)
        self.last = time.monotonic() - begin
        self.spent += self.last
        means = {name: sum(values) / len(values) if values else None for name, values in found.items()}
        return TrueScore(means, tuple(case.name for case in self.cases), self.last)

    def _case(self, case: CaseRef) -> tuple[Case, np.ndarray]:
        if case.name not in self._prepared:
            scan, labels = read_pair(case, self.recipe.scheme)
            prepared = prepare_scan(scan, self.plan, case.name)
            if self.earlier is not None:
                prepared = replace(prepared, earlier_DHW=np.array(self.earlier.classes(case.name)))
            self._prepared[case.name] = prepared, np.asarray(labels.array, np.uint8)
        return self._prepared[case.name]

    def _model(self, weights: dict[str, torch.Tensor]) -> Model:
        copies = {key: value.detach().to("cpu", copy=True) for key, value in weights.items()}
        recipe = self.recipe
        return Model(
            folder=Path("model in training"),
            spec=self.spec,
            plan=self.plan,
            scheme=recipe.scheme,
            inference=recipe.inference,
            postprocess=recipe.postprocess,
            card={},
            weights=(copies,),
            recipe_toml="",
            hash="",
        )

    def _expected(self, step_seconds: float) -> float:
        """Seconds of the first look, from the number of tiles."""
        overlap = self.recipe.inference.overlap
        tiles = sum(
            len(tile_starts(self.store.case(case.name).image_DHW.shape, self.plan.patch, overlap))
            for case in self.cases
        )
        mirrored = 2**self.plan.dims if self.recipe.inference.mirror else 1
        return tiles * mirrored * _FORWARD_SHARE * _OVERHEAD * step_seconds / self.plan.batch
