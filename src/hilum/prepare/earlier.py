"""What an earlier model found in the cases of a store, on their prepared grid, quick to cut patches from.

    FOLDER/CASE.json          written last: key, file, size, and facts for people
    FOLDER/CASE.<key>.npy     (D, H, W) uint8 class index of the earlier model's labels

Comes in: class indices a case. Goes out: the same, memory-mapped. It asks no model, and knows not where they come from.
A case whose key has changed is not there; a killed run leaves whole cases or none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from hilum.errors import InputError
from hilum.files import read_json, write_json
from hilum.prepare.store import mapped_array, save_array

_OPEN = 64


@dataclass(frozen=True)
class EarlierStore:
    """A folder of an earlier model's findings.

    Attributes:
        folder: where they are.
        labels: how many labels the earlier model has, background apart.
    """

    folder: Path
    labels: int

    def classes(self, name: str) -> np.ndarray:
        """(D, H, W) uint8 class indices of a case, memory-mapped.

        Raises:
            InputError: they are missing or damaged.
        """
        return _opened(self.folder, name)

    def facts(self, name: str) -> dict[str, Any]:
        """What was saved beside a case; an empty table if it is not there."""
        file = self.folder / f"{name}.json"
        return dict(read_json(file).get("facts", {})) if file.is_file() else {}

    def has(self, name: str, key: str) -> bool:
        """Whether a case is there, of this key, with all its bytes."""
        try:
            table = read_json(self.folder / f"{name}.json")
            file = table["file"]
            return bool(table["key"] == key and (self.folder / file["name"]).stat().st_size == file["bytes"])
        except (InputError, OSError, KeyError, TypeError, AttributeError):
            return False

    def save(self, name: str, key: str, classes_DHW: np.ndarray, facts: Mapping[str, Any]) -> None:
        """Keep a case; what was there before goes.

        Raises:
            OutputError: it cannot be written, or differs when read back.
        """
        assert classes_DHW.dtype == np.uint8, classes_DHW.dtype
        self.folder.mkdir(parents=True, exist_ok=True)
        file = save_array(self.folder / f"{name}.{key[:12]}.npy", classes_DHW)
        write_json(self.folder / f"{name}.json", {"key": key, "file": file, "facts": dict(facts)})
        for stale in self.folder.glob("*.npy"):
            ours = stale.name.startswith(f"{name}.") and stale.name.removeprefix(f"{name}.").count(".") == 1
            if ours and stale.name != file["name"]:
                stale.unlink(missing_ok=True)
        _opened.cache_clear()


@lru_cache(_OPEN)
def _opened(folder: Path, name: str) -> np.ndarray:
    return mapped_array(folder / str(read_json(folder / f"{name}.json")["file"]["name"]))
