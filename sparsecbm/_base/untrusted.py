"""Files from anywhere: checked before anything of the size that they declare is made.

A file may come from a stranger. What is read of it is a regular file, lies where it was said to lie, is not larger than
a limit, and holds as much as its headers say; a few kilobytes that would unfold to gigabytes are refused.
"""

from __future__ import annotations

import contextlib
import math
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sparsecbm._base.errors import InputError, StoredFileError

MAX_TEXT_BYTES = 64 * 2**20
"""Largest JSON, YAML or text file that is read; lists of concepts and descriptions of models are far smaller."""

# What is packed may unfold to this much in any case, and beyond it to so many times the size of the file.
_UNFOLDED_BYTES = 256 * 2**20
_UNFOLDED_TIMES = 100


def regular_file(path: str | Path) -> Path:
    """Return `path` if it is a regular file: a pipe would block, a device never end.

    Raises
    ------
    StoredFileError
        If there is nothing, or anything else.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        raise StoredFileError(f"cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISDIR(mode):
        raise StoredFileError(f"cannot read {str(path)!r}: it is a directory; expected a file")
    if not stat.S_ISREG(mode):
        raise StoredFileError(f"cannot read {str(path)!r}: it is a device or pipe; expected a regular file")
    return path


def read_bytes(path: str | Path, limit: int = MAX_TEXT_BYTES) -> bytes:
    """Read a regular file of at most `limit` bytes.

    Raises
    ------
    StoredFileError
        If it cannot be read, is no regular file, or is larger.
    """
    path = regular_file(path)
    try:
        with path.open("rb") as handle:
            data = handle.read(limit + 1)
    except OSError as error:
        raise StoredFileError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    if len(data) > limit:
        raise StoredFileError(f"{str(path)!r} is larger than {limit / 2**20:g} MiB: not a file of this kind")
    return data


def file_inside(folder: str | Path, name: str) -> Path:
    """Return a regular file of a folder that is read as a whole; a link must not lead out of it.

    The one exception is the Hugging Face cache, whose ``snapshots/REVISION`` folders link to ``blobs`` beside them.

    Raises
    ------
    StoredFileError
        If it is missing, no regular file, or a link to somewhere else.
    """
    home = Path(folder).resolve()
    path = regular_file(Path(folder) / name)
    real = path.resolve()
    blobs = home.parent.parent / "blobs"
    if not real.is_relative_to(home) and not (home.parent.name == "snapshots" and real.parent == blobs):
        raise StoredFileError(
            f"{str(path)!r} is a link out of its folder, to {str(real)!r}: copy the file itself there"
        )
    return path


@contextlib.contextmanager
def open_npz(path: str | Path, what: str = "") -> Iterator[Any]:
    """Open an ``.npz`` archive as `numpy.load` does, once every header fits what is stored; nothing is unpickled.

    Messages say "cannot read WHAT PATH".

    Raises
    ------
    StoredFileError
        If it cannot be read, holds Python objects, an array's header declares more or less than is there, or it would
        unfold to more than 256 MiB and more than 100 times its size; also for what is raised while reading an array.
    """
    import numpy as np

    path = Path(path)
    cannot = f"cannot read {what} {str(path)!r}" if what else f"cannot read {str(path)!r}"
    try:
        regular_file(path)
        with zipfile.ZipFile(path) as archive:
            for problem in _npz_problems(archive, path.stat().st_size):
                raise StoredFileError(f"{cannot}: {problem}")
        with np.load(path, allow_pickle=False) as stored:
            yield stored
    except InputError as error:
        if what and str(error).startswith(f"cannot read {str(path)!r}"):
            raise StoredFileError(str(error).replace(f"cannot read {str(path)!r}", cannot, 1)) from error
        raise
    # Damaged archives raise BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError and more.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise StoredFileError(f"{cannot}: {reason}; it may be damaged or no .npz file") from error


def _npz_problems(archive: zipfile.ZipFile, size: int) -> Iterator[str]:
    from numpy.lib import format as npy

    members = archive.infolist()
    unfolded = sum(member.file_size for member in members)
    if is_bomb(unfolded, size):
        yield f"its {size:,} bytes would unfold to {unfolded:,}, a decompression bomb"
    for member in members:
        if not member.filename.endswith(".npy"):
            continue
        with archive.open(member) as handle:
            version = npy.read_magic(handle)
            read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
            if read is None:
                yield f"array {member.filename!r} has the unknown .npy version {version}"
                continue
            shape, _, dtype = read(handle)
            if dtype.hasobject:
                yield f"array {member.filename!r} holds Python objects, which would have to be unpickled"
            declared = math.prod(shape) * dtype.itemsize
            if min(shape, default=0) < 0 or handle.tell() + declared != member.file_size:
                stored = member.file_size - handle.tell()
                yield (
                    f"array {member.filename!r} declares shape {shape} of {dtype}, {declared:,} bytes, "
                    f"but {stored:,} are stored; it is damaged"
                )


def open_parquet(path: str | Path) -> Any:
    """Open a parquet file as ``pyarrow.parquet.ParquetFile``, once what it unfolds to is in proportion to its size.

    Raises
    ------
    StoredFileError
        If it cannot be read, or would unfold to more than 256 MiB and more than 100 times its size.
    """
    import pyarrow.parquet as parquet

    path = regular_file(path)
    size = path.stat().st_size
    try:
        table = parquet.ParquetFile(path)
        described = table.metadata
        chunks = [
            described.row_group(group).column(column)
            for group in range(described.num_row_groups)
            for column in range(described.num_columns)
        ]
        # Equal values are stored once and counted; in memory each takes its own room: 8 bytes, or its text.
        unfolded = sum(max(chunk.total_uncompressed_size, 8 * chunk.num_values) for chunk in chunks)
        if not is_bomb(unfolded, size):
            shared = [c for c in chunks if c.physical_type == "BYTE_ARRAY" and c.has_dictionary_page]
            if is_bomb(sum(c.num_values * c.total_uncompressed_size for c in shared), size):
                unfolded += _length_of_texts(path, sorted({c.path_in_schema for c in shared}))
    except Exception as error:  # ArrowInvalid, ArrowNotImplementedError, OSError, ...
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise StoredFileError(f"cannot read {str(path)!r}: {reason}; it may be damaged or no parquet file") from error
    if is_bomb(unfolded, size):
        raise StoredFileError(
            f"cannot read {str(path)!r}: its {size:,} bytes would unfold to {unfolded:,}, a decompression bomb"
        )
    return table


_STREAMS = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4"}


def check_packed(path: str | Path, name: str | None = None) -> None:
    """Refuse a parquet file, zip archive or compressed stream that would unfold out of proportion to its size.

    Parameters
    ----------
    path : path
        Files of other kinds are taken as they are.
    name : str, optional
        What it is called where it comes from; in a cache, files have no names.

    Raises
    ------
    StoredFileError
        If it would unfold to more than 256 MiB and more than 100 times its size, is packed in a way that cannot be
        looked into, or is damaged.
    """
    path = regular_file(path)
    with path.open("rb") as handle:
        start = handle.read(6)
    stream = next((kind for magic, kind in _STREAMS.items() if start.startswith(magic)), None)
    try:
        if start.startswith(b"PAR1"):
            open_parquet(path).close()
        elif start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            check_zip(path)
        elif start.startswith((b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!")):
            raise StoredFileError(f"cannot read {str(path)!r}: it is packed as xz, 7z or RAR; unpack it yourself")
        elif stream is not None:
            _check_stream(path, stream)
    except StoredFileError as error:
        raise StoredFileError(str(error).replace(str(path), name or str(path))) from error


def _check_stream(path: Path, kind: str) -> None:
    import pyarrow as pa

    unfolded, size = 0, path.stat().st_size
    try:
        with pa.CompressedInputStream(pa.OSFile(str(path)), kind) as stream:
            while block := stream.read(1 << 20):
                unfolded += len(block)
                if is_bomb(unfolded, size):
                    raise StoredFileError(
                        f"cannot read {str(path)!r}: its {size:,} bytes would unfold to over {unfolded:,}, "
                        "a decompression bomb"
                    )
    except (OSError, pa.ArrowException) as error:
        raise StoredFileError(f"cannot read {str(path)!r}: {' '.join(str(error).split())[:200]}") from error


def check_zip(path: str | Path) -> None:
    """Refuse a zip archive that would unfold to more than 256 MiB and more than 100 times its size.

    Raises
    ------
    StoredFileError
        If it would, or is no zip archive.
    """
    path = regular_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            unfolded = sum(member.file_size for member in archive.infolist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise StoredFileError(f"cannot read {str(path)!r}: {error}; it may be damaged or no zip archive") from error
    if is_bomb(unfolded, path.stat().st_size):
        raise StoredFileError(
            f"cannot read {str(path)!r}: its {path.stat().st_size:,} bytes would unfold to {unfolded:,}, "
            "a decompression bomb"
        )


def _length_of_texts(path: Path, columns: list[str]) -> int:
    """Bytes of all values of columns of texts or bytes, without unfolding those that are stored once."""
    import pyarrow as pa
    import pyarrow.compute as compute
    import pyarrow.parquet as parquet

    def length(array: Any) -> int:
        kind = array.type
        if pa.types.is_dictionary(kind):
            lengths = compute.binary_length(array.dictionary.cast(pa.large_binary()))
            return compute.sum(compute.cast(lengths.take(array.indices), pa.int64())).as_py() or 0
        if pa.types.is_struct(kind):
            return sum(length(child) for child in array.flatten())
        if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            return length(array.flatten())
        if pa.types.is_map(kind):
            return length(array.keys) + length(array.items)
        return array.nbytes

    with parquet.ParquetFile(path, read_dictionary=columns) as table:
        batches = table.iter_batches(batch_size=1024, columns=columns)
        return sum(length(column) for batch in batches for column in batch.columns)


def is_bomb(unfolded: int, size: int) -> bool:
    return unfolded > max(_UNFOLDED_BYTES, _UNFOLDED_TIMES * size)
