"""Writing so that nothing half-done is ever seen: beside first, then renamed.

Comes in: a path and something that writes. Goes out: the whole file under its name, or one OutputError and nothing.
"""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hilum.errors import InputError, OutputError


@contextmanager
def written(path: str | Path) -> Iterator[Path]:
    """A path beside ``path`` (same folder, same endings) to write to; renamed onto ``path`` when the block ends well.

    The folder is made. The bytes are flushed to the disk before the rename, so that a power cut or ``kill -9`` leaves
    the old file or the new one, never a part. Any failure removes the part and becomes an OutputError.
    """
    path = Path(path)
    part = path  # for the except clause, should the folder fail
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        wanted = _beside(path)
        os.close(os.open(wanted, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        part = wanted
        mode = _permissions(part)
        yield part
        _flush(part)
        os.chmod(part, mode)  # some writers replace the file by a private one
        os.replace(part, path)
    except OSError as error:
        _remove(part, path)
        raise cannot_write(path, error) from error
    except BaseException:
        _remove(part, path)
        raise


@contextmanager
def written_folder(path: str | Path) -> Iterator[Path]:
    """A new folder beside ``path`` to fill; it takes the place of ``path``, as a whole, when the block ends well.

    A folder that was there is set aside under another name until the new one stands, so that ``kill -9`` at any moment
    leaves one of the two whole: ``whole_folder`` finds it. Parts that a killed process left are swept away.
    """
    path = Path(path)
    previous = _previous(path)
    part = path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".part-????????-{path.name}"):
            shutil.rmtree(left, ignore_errors=True)
        wanted = _beside(path)
        wanted.mkdir()
        part = wanted
        mode = _permissions(part) & 0o666
        yield part
        for item in (*(item for item in part.rglob("*") if item.is_file()), part):
            if item != part:
                os.chmod(item, mode)  # some writers make files private
            _flush(item)
        if path.exists():
            shutil.rmtree(previous, ignore_errors=True)
            os.replace(path, previous)
        os.replace(part, path)
        _flush(path.parent)
        shutil.rmtree(previous, ignore_errors=True)
    except BaseException as error:
        if part != path:
            shutil.rmtree(part, ignore_errors=True)
        if previous.exists() and not path.exists():
            os.replace(previous, path)
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise


def whole_folder(path: str | Path) -> Path:
    """The folder that ``written_folder`` wrote, or the one before it if a kill fell between its two renames."""
    path = Path(path)
    return _previous(path) if not path.exists() and _previous(path).exists() else path


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with written(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON whole or not at all, strictly: NaN and infinity must have been made ``null`` (see ``plain``)."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON, or say which file is missing or where it is damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))  # Windows editors put a mark in front
    except FileNotFoundError:
        raise InputError("no such file", where=path) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({error})", where=path) from None
    except json.JSONDecodeError as error:
        raise InputError(f"is not JSON ({error})", where=path, fix="it may be cut off: make it again") from None


def plain(value: Any, decimals: int | None = None) -> Any:
    """NumPy numbers, tuples and paths as JSON's own types; NaN and infinity as None; floats to so many decimals."""
    if isinstance(value, dict):
        return {str(k): plain(v, decimals) for k, v in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(v, decimals) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist(), decimals)
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return value if decimals is None else round(value, decimals)
    if isinstance(value, Path):
        return str(value)
    return value


def cannot_write(path: str | Path, error: OSError) -> OutputError:
    """The sentence for a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError("the disk is full", where=path, fix="free some space and run the same command again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError("no permission to write here", where=path, fix="choose another --out folder")
    return OutputError(f"cannot be written ({error.strerror or error})", where=path, fix="choose another --out folder")


def _previous(path: Path) -> Path:
    return path.with_name(f".previous-{path.name}")


def _beside(path: Path) -> Path:
    """A name in the same folder that nobody has."""
    return path.with_name(f".part-{secrets.token_hex(4)}-{path.name}")


def _permissions(made: Path) -> int:
    """What the system gave to something new: asking for the umask would set it, for all threads, for a moment."""
    return stat.S_IMODE(made.stat().st_mode)


def _flush(path: Path) -> None:
    """Bytes (or a folder's entries) from the system's memory to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(part: Path, path: Path) -> None:
    if part != path:
        part.unlink(missing_ok=True)
