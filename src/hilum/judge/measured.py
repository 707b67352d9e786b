"""What has been measured of a pair of files, kept beside the scores, so that another protocol measures nothing again.

Comes in: two files of label maps. Goes out: a ``Pair`` made from the files, or from ``OUT/measured/<name>.npz`` without
opening them. The name of an entry is a hash of both files' bytes (so of their headers), of the way their axes were put
in order, and of the source code that measures: a changed file or another hilum finds no entry and measures anew. An
entry that cannot be read is made again. Entries of the evaluations beside OUT, and of those that are named, are used.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from hilum import components
from hilum.errors import OutputError
from hilum.files import written
from hilum.judge import audit, lesions, lits, nearest, overlap, surface, surfels
from hilum.judge import pair as pair_module
from hilum.judge.pair import Memo, Pair, checked_headers, make_pair, must_turn
from hilum.scans import read_volume
from hilum.volume import Grid, Volume

FOLDER = "measured"
DETACHED = (".mhd",)  # a header beside another file of voxels: its own bytes do not tell what is labelled


@dataclass(frozen=True, eq=False)
class Ready:
    """A pair of files, made ready.

    Attributes:
        pair: its measurements may be remembered ones.
        warnings: about headers.
        headers: of truth and prediction, without voxels.
        name: of its entry on the shelf; empty if it has none.
    """

    pair: Pair
    warnings: tuple[str, ...]
    headers: tuple[Volume, Volume]
    name: str


class Shelf:
    """Where measurements of pairs of files are kept.

    Args:
        out: the folder of an evaluation; entries go to ``OUT/measured``. None keeps nothing.
        others: folders of evaluations elsewhere whose entries may be used too.
    """

    def __init__(self, out: Path | None, others: Sequence[Path] = ()):
        self.folder = None if out is None else Path(out) / FOLDER
        self.others = tuple(Path(other) / FOLDER for other in others)

    def ready(self, truth: Path, prediction: Path | None, same_grid: bool) -> Ready:
        """A pair of files, from the shelf or read.

        Args:
            truth: file of a label map.
            prediction: the same; None stands for one that found nothing.
            same_grid: as for ``make_pair``.

        Raises:
            GeometryError, LabelError: as ``make_pair``; HilumError: a file that cannot be read.
        """
        digest = self._digest(truth, prediction)
        sources = str(truth), "no prediction" if prediction is None else str(prediction)
        for turned in (False, True) if digest and same_grid else (False,) if digest else ():
            files = self._places(_name(digest, turned))
            entries = [entry for file in files if (entry := _remembered(file, sources, same_grid, turned)) is not None]
            if entries:
                for entry in entries[1:]:  # what other evaluations measured of the same files comes to ours
                    entries[0].pair.memo.known.update(entry.pair.memo.known)
                return entries[0]
        first = read_volume(truth)
        if prediction is None:
            second = Volume(np.zeros(first.shape, np.uint8), first.affine, sources[1])
        else:
            second = read_volume(prediction)
        made, warnings = make_pair(first, second, same_grid, Memo(keeps=bool(digest)))
        headers = (_header(first.grid, first.source), _header(second.grid, second.source))
        name = _name(digest, must_turn(*headers, same_grid)) if digest else ""
        return Ready(made, warnings, headers, name)

    def keep(self, ready: Ready) -> None:
        """Write what was measured, if anything new was; a folder that cannot be written to keeps nothing."""
        found = ready.pair
        if self.folder is None or not ready.name or not found.memo.added:
            return
        grids = (found.grid, *(header.grid for header in ready.headers))
        filled = np.flatnonzero(found.joint)
        entry = {
            "truth": found.truth,
            "prediction": found.prediction,
            "joint": np.stack([filled, found.joint.ravel()[filled]]),
            "spacing": np.array(found.prediction_spacing_mm),
            **{f"shape{i}": np.array(grid.shape) for i, grid in enumerate(grids)},
            **{f"affine{i}": grid.affine for i, grid in enumerate(grids)},
            **{f"memo/{key}": value for key, value in found.memo.known.items()},
        }
        try:
            with written(self.folder / ready.name) as part, part.open("wb") as stream:
                np.savez_compressed(stream, **entry)  # type: ignore[arg-type]
        except OutputError:
            return

    def _places(self, name: str) -> list[Path]:
        """Our own entry, then those of the evaluations beside ours and of the others."""
        assert self.folder is not None
        own = self.folder / name
        try:
            beside = sorted(self.folder.resolve().parent.parent.glob(f"*/{FOLDER}/{name}"))
        except OSError:
            beside = []
        beside += [other / name for other in self.others if (other / name).is_file()]
        return [own, *beside] if own.is_file() else beside

    def _digest(self, truth: Path, prediction: Path | None) -> str:
        """Of both files' bytes; empty if they cannot be told by them."""
        if self.folder is None or any(str(p).lower().endswith(DETACHED) for p in (truth, prediction) if p is not None):
            return ""
        try:
            files = [b"" if path is None else path.read_bytes() for path in (truth, prediction)]
        except OSError:
            return ""
        return hashlib.sha256("".join(hashlib.sha256(part).hexdigest() for part in files).encode()).hexdigest()


def _remembered(file: Path, sources: tuple[str, str], same_grid: bool, turned: bool) -> Ready | None:
    """An entry as a pair; None if it cannot be read, or is of axes in another order."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            entry = {key: stored[key] for key in stored.files if key not in ("truth", "prediction")}
        grids = []
        for i in range(3):
            p, q, r = entry[f"shape{i}"].tolist()
            grids.append(Grid((p, q, r), entry[f"affine{i}"]))
        a, b, c = entry["spacing"].tolist()
        joint = np.zeros(65536, np.int64)
        joint[entry["joint"][0]] = entry["joint"][1]
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    headers = (_header(grids[1], sources[0]), _header(grids[2], sources[1]))
    if must_turn(*headers, same_grid) != turned:
        return None
    memo = Memo({key.removeprefix("memo/"): value for key, value in entry.items() if key.startswith("memo/")}, True)
    pair = Pair(partial(_arrays, file), joint.reshape(256, 256), grids[0], (a, b, c), memo)
    return Ready(pair, checked_headers(*headers, same_grid), headers, file.name)


def _name(digest: str, turned: bool) -> str:
    return f"{digest[:24]}-{measuring_code()[:12]}{'-turned' if turned else ''}.npz"


@cache
def measuring_code() -> str:
    """A hash of the source files that measure: entries of other code are not used."""
    digest = hashlib.sha256()
    for module in (components, overlap, nearest, surface, surfels, lesions, pair_module, lits, audit):
        digest.update(Path(str(module.__file__)).read_bytes())
    digest.update(Path(__file__).read_bytes())
    return digest.hexdigest()


def _header(grid: Grid, source: str) -> Volume:
    """A volume of one value that takes no memory, for checks that look at headers alone."""
    return Volume(np.broadcast_to(np.uint8(0), grid.shape), grid.affine, source)


def _arrays(file: Path) -> tuple[np.ndarray, ...]:
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        return stored["truth"], stored["prediction"]
