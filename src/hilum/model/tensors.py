"""Safetensors files with checksums, and whether tensors are those that a network wants.

Comes in: tensors by name, or a file. Goes out: the file and its sha256, or the tensors. No pickle is ever read.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hilum.errors import ModelError

State = Mapping[str, torch.Tensor]
# the names that safetensors files give to types of numbers
_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


class StoredTensors(Mapping[str, torch.Tensor]):
    """The tensors of a safetensors file, each read from the disk anew whenever it is asked for.

    A network needs its weights once, when it is built; kept in memory as well they would take it twice. Floating-point
    numbers come as fp32. The file stays open, so that it may be replaced meanwhile.

    Args:
        file: its bytes are those that were written (``check_file``).

    Raises:
        ModelError: it cannot be read.
    """

    def __init__(self, file: Path):
        self._file = file
        self._pages: mmap.mmap | None = None
        try:
            self._handle = os.open(file, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            weakref.finalize(self, os.close, self._handle)
            # https://github.com/huggingface/safetensors#format: 8 bytes of length, JSON, the tensors' bytes
            length = int.from_bytes(self._read(0, 8), "little")
            table = json.loads(self._read(8, length))
            self._begin = 8 + length
            self._places = {
                str(name): (_TYPES[at["dtype"]], tuple(map(int, at["shape"])), int(at["data_offsets"][0]))
                for name, at in table.items()
                if name != "__metadata__"
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(file, f"cannot be read ({error!r})") from None

    def __getitem__(self, name: str) -> torch.Tensor:
        dtype, shape, offset = self._places[name]
        count = math.prod(shape)
        if count == 0:
            tensor = torch.empty(shape, dtype=dtype)
        else:
            try:
                data = self._read(self._begin + offset, count * dtype.itemsize)
            except (OSError, ValueError) as error:
                raise damaged(self._file, f"cannot be read ({error})") from None
            tensor = torch.frombuffer(data, dtype=dtype).view(shape)
        return tensor.float() if dtype.is_floating_point else tensor

    def in_file(self, name: str) -> torch.Tensor:
        """The tensor with its numbers where they are in the file: read when they are used, never to be written.

        What is not fp32 comes as from ``[]``.
        """
        dtype, shape, offset = self._places[name]
        start, count = self._begin + offset, math.prod(shape)
        if dtype != torch.float32 or count == 0 or start % dtype.itemsize:
            return self[name]
        if self._pages is None:
            # private and writable, because PyTorch knows no arrays that are not; nobody writes
            self._pages = mmap.mmap(self._handle, 0, access=mmap.ACCESS_COPY)
        return torch.frombuffer(self._pages, dtype=dtype, count=count, offset=start).view(shape)

    def let_go(self, tensor: torch.Tensor | None = None) -> None:
        """Free the memory of a tensor from ``in_file``, or of all: numbers are read anew when they are used again."""
        if self._pages is None or not hasattr(mmap, "MADV_DONTNEED"):
            return
        start, stop = 0, len(self._pages)
        if tensor is not None:
            start = tensor.data_ptr() - torch.frombuffer(self._pages, dtype=torch.uint8, count=1).data_ptr()
            stop = start + tensor.nbytes
            if start < 0 or stop > len(self._pages):
                return  # not of this file
        start, stop = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, stop // mmap.PAGESIZE * mmap.PAGESIZE
        if stop > start:
            self._pages.madvise(mmap.MADV_DONTNEED, start, stop - start)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def bare(self) -> dict[str, torch.Tensor]:
        """Names and shapes: tensors that take no memory."""
        return {
            name: torch.empty(shape, dtype=dtype, device="meta") for name, (dtype, shape, _) in self._places.items()
        }

    def _read(self, start: int, size: int) -> bytearray:
        if start + size > os.fstat(self._handle).st_size:
            raise ValueError("it ends too early")
        data = bytearray(size)
        view, done = memoryview(data), 0
        os.lseek(self._handle, start, os.SEEK_SET)
        while done < size:
            part = os.read(self._handle, min(size - done, 2**24))
            if not part:
                raise ValueError("it ends too early")
            view[done : done + len(part)] = part
            done += len(part)
        return data


def write_tensors(file: Path, tensors: State) -> str:
    """Write a safetensors file and return its sha256.

    Raises:
        OSError: as any write (safetensors reports a full disk in words of its own).
    """
    try:
        save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, file)
    except SafetensorError as error:
        number = int(str(error).rpartition("os error ")[2].rstrip(") ") or 5) if "os error" in str(error) else 5
        raise OSError(number, str(error), str(file)) from error
    return sha256_of(file)


def read_tensors(file: Path, sha256: str) -> dict[str, torch.Tensor]:
    """A safetensors file whose bytes are those that were written.

    Raises:
        ModelError: missing, or damaged.
    """
    check_file(file, sha256)
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise damaged(file, f"cannot be read ({error})") from None


def fit(wanted: State, found: State, file: Path) -> None:
    """Check that tensors are those of a network, by name and shape.

    Raises:
        ModelError: what is missing, unknown or of another shape.
    """
    missing, unknown = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    shapes = [
        f"{key} is {tuple(found[key].shape)} where the network has {tuple(wanted[key].shape)}"
        for key in wanted
        if key in found and wanted[key].shape != found[key].shape
    ]
    parts = [f"{len(missing)} tensors are missing, such as {missing[0]}"] if missing else []
    parts += [f"{len(unknown)} are not the network's, such as {unknown[0]}"] if unknown else []
    if parts or shapes:
        raise ModelError(
            f"the weights do not fit the network: {'; '.join([*parts, *shapes[:1]])}",
            where=file,
            fix="take the weights and the model.json of one and the same model",
        )


def weights_name(fold: int, folds: int) -> str:
    """The file of a fold's weights."""
    return "weights.safetensors" if folds == 1 else f"weights_{fold}.safetensors"


def check_file(file: Path, sha256: str) -> None:
    """Check that a file's bytes are those that were written.

    Raises:
        ModelError: missing, or damaged.
    """
    if not file.is_file():
        raise damaged(file, "is missing")
    try:
        same = sha256_of(file) == sha256
    except OSError as error:
        raise damaged(file, f"cannot be read ({error})") from None
    if not same:
        raise damaged(file, "is damaged: its checksum is not the one that was written down")


def sha256_of(file: Path) -> str:
    """The checksum of a file's bytes, as 64 hexadecimal digits."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def damaged(file: Path, found: str) -> ModelError:
    """The error for a part of a model folder that cannot be used."""
    return ModelError(found, where=file, fix="copy the model folder again from where it came, or train it again")
