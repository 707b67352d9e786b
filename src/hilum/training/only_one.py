"""ONE AT A TIME: two trainings in one folder would write over each other.

Comes in: a run's folder. Goes out: the right to write there until the block ends, or a refusal. The lock is the
system's own and goes with the process, however that ends; where the system has none (Windows), nothing is locked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hilum.errors import UsageError
from hilum.files import cannot_write

LOCK = ".lock"


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the folder.

    Raises:
        UsageError: another training holds it.
        OutputError: the folder cannot be written.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / LOCK, "w")  # noqa: SIM115 (it stays open as long as the lock is held)
    except OSError as error:
        raise cannot_write(folder / LOCK, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(
                "another training is at work in this folder", where=folder, fix="wait for it, or choose another --out"
            ) from None
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)
