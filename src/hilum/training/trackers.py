"""WHO ELSE IS TOLD: TensorBoard and MLflow, by one option.

Comes in: a run's folder, its facts, the numbers of an epoch. Goes out: what these tools read. The log in JSON lines is
written in any case; a tracker holds nothing that is not in it. Nothing leaves the machine unless the user's own
environment names a server (``MLFLOW_TRACKING_URI``).

    RUN/tensorboard/    tensorboard --logdir RUN/tensorboard
    RUN/mlruns.db       mlflow ui --backend-store-uri sqlite:///RUN/mlruns.db
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from hilum.errors import RecipeError, UsageError


class Tracker(Protocol):
    """What a run tells its numbers to."""

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """The numbers of an epoch that ended with this step."""
        ...

    def close(self) -> None:
        """Nothing more will come."""
        ...


class TensorBoard:
    """Event files beside the log."""

    def __init__(self, run: Path, facts: Mapping[str, Any]):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise _missing("tensorboard", "tensorboard") from None
        self._writer: Any = SummaryWriter(str(run / "tensorboard"))
        self._writer.add_text("facts", "\n".join(f"    {key}: {value}" for key, value in facts.items()), 0)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """One point a curve."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


class MLflow:
    """A run in the user's MLflow, or in a database of its own beside the log."""

    def __init__(self, run: Path, facts: Mapping[str, Any]):
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it would report its use elsewhere
        try:
            from mlflow.tracking import MlflowClient
        except ImportError:
            raise _missing("mlflow", "mlflow-skinny, and sqlalchemy and alembic for a database of its own") from None
        place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(run / 'mlruns.db').resolve()}"
        self._client: Any = MlflowClient(tracking_uri=place)
        found = self._client.get_experiment_by_name("hilum")
        experiment = found.experiment_id if found else self._client.create_experiment("hilum")
        note = run / "mlflow_run.txt"
        if note.is_file():  # an interrupted run goes on under its name
            self._run = note.read_text(encoding="utf-8").strip()
            self._client.update_run(self._run, status="RUNNING")
            return
        self._run = self._client.create_run(experiment, run_name=run.resolve().name).info.run_id
        note.write_text(self._run, encoding="utf-8")
        for key, value in facts.items():
            self._client.log_param(self._run, key, str(value)[:500])

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """One point a metric."""
        for name, value in numbers.items():
            self._client.log_metric(self._run, name, value, step=step)

    def close(self) -> None:
        """Say that the run has ended."""
        self._client.set_terminated(self._run)


TRACKERS: dict[str, Callable[[Path, Mapping[str, Any]], Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow}


def open_tracker(name: str, run: Path, facts: Mapping[str, Any]) -> Tracker:
    """The tracker of a name.

    Raises:
        UsageError: its package is not installed.
    """
    return TRACKERS[name](run, facts)


def check_trackers(names: tuple[str, ...]) -> None:
    """Refuse names that no tracker has.

    Raises:
        RecipeError: naming the known ones.
    """
    for name in names:
        if name not in TRACKERS:
            raise RecipeError(f"no tracker {name!r}", where="training.track", wanted=f"some of {sorted(TRACKERS)}")


def numbers_of(line: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a log line, nested ones as ``patch_dice/tumour``."""
    found: dict[str, float] = {}
    for key, value in line.items():
        if isinstance(value, Mapping):
            found |= numbers_of(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and key not in ("step", "epoch"):
            found[f"{prefix}{key}"] = float(value)
    return found


def _missing(name: str, package: str) -> UsageError:
    return UsageError(
        f"training.track = {name!r}, which is not installed",
        wanted=f"the package {package}",
        fix="pip install 'hilum[trackers]', or leave the option out",
    )
