"""The cache of embeddings: content-addressed entries, written in shards, reopened as one memory-mapped array.

An entry is a folder named by the key, a SHA-256 of everything the numbers depend on::

    CACHE/embeddings/KEY.lock         held by whoever writes the entry
    CACHE/embeddings/KEY/
        rows-0000000-0000512-b32.safetensors    finished shards, each with its rows and the checksum of its numbers
        vectors.npy                             all shards together
        manifest.json                           written last: the entry is complete

Shards and files are written beside and renamed, so a killed run leaves whole shards and at most a stray temporary
file. The next run checks the shards it finds and encodes only the rest. Shards go once `vectors.npy` stands.

The lock is the operating system's (flock, or its like on Windows): it is gone with the process that held it, however
that ended. Readers take no lock: an array that they have mapped stays readable when its entry is removed, and one that
goes before they have it is a miss. Each opening notes the time as the manifest's modification time, where the cache can
be written, so that `sparsecbm.embeddings.cache.prune_cache` knows what was last used.

Reopening hashes `vectors.npy` (about a second for 2 GiB), whatever its time stamp says, and maps the very file that was
hashed. What does not match is encoded again.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm._base.files import atomic_write, read_json, sha256_stream, write_json
from sparsecbm._base.parameters import Count, check_fields
from sparsecbm._base.rows import all_finite
from sparsecbm.embeddings.processes import Processes

logger = logging.getLogger(__name__)

FORMAT = 1
_SHARD = re.compile(r"rows-\d+-\d+-b\d+\.safetensors")

Rows = range
# Encodes the given ranges of rows, in order, yielding arrays that fill them one after another.
EncodeRows = Callable[[Sequence[Rows]], Iterator[np.ndarray]]


def cache_dir() -> Path:
    """Folder of cached embeddings: ``$SPARSECBM_CACHE``, else the platform's user cache folder."""
    chosen = os.environ.get("SPARSECBM_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("sparsecbm", appauthor=False)


@dataclass(frozen=True)
class Plan:
    """What an entry holds and how it is cut.

    Attributes
    ----------
    key : str
        SHA-256 that names the entry.
    count, dim : int
        Shape of the array.
    dtype : str
        ``"float32"`` or ``"float16"``.
    shard_size, batch_size : int
        Rows a shard and a forward pass. Batches never cross shards, so the numbers do not depend on which process
        encodes which shard.
    """

    key: str
    count: int
    dim: int
    dtype: Literal["float32", "float16"]
    shard_size: Count
    batch_size: Count

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def shards(self) -> list[Rows]:
        """Rows of each shard."""
        return [
            range(start, min(start + self.shard_size, self.count)) for start in range(0, self.count, self.shard_size)
        ]

    def batches(self, shards: Sequence[Rows]) -> Iterator[Rows]:
        """Rows of each forward pass over some shards."""
        for shard in shards:
            for start in range(shard.start, shard.stop, self.batch_size):
                yield range(start, min(start + self.batch_size, shard.stop))


class Entry:
    """One array of the cache.

    Parameters
    ----------
    root : Path
        The cache folder.
    plan : Plan
        What the entry holds.
    """

    def __init__(self, root: Path, plan: Plan) -> None:
        self.plan = plan
        self.folder = root / "embeddings" / plan.key
        self.vectors, self.manifest = self.folder / "vectors.npy", self.folder / "manifest.json"
        self.lock = root / "embeddings" / f"{plan.key}.lock"

    def open(self) -> np.ndarray | None:
        """Return the read-only memory-mapped array, or None if the entry is incomplete or damaged."""
        try:
            noted = read_json(self.manifest)
            expected = (FORMAT, self.plan.key, list(self._shape), self.plan.dtype)
            if tuple(noted[name] for name in ("format", "key", "shape", "dtype")) != expected:
                return None
            with self.vectors.open("rb") as handle:
                digest = sha256_stream(handle)
                numbers = self.plan.count * self.plan.dim * np.dtype(self.plan.dtype).itemsize
                array = np.memmap(handle, self.plan.dtype, "r", offset=handle.tell() - numbers, shape=self._shape)
            if digest != noted["sha256"] or not all_finite(array):
                logger.warning("cached embeddings %s are damaged: encoding again", self.vectors)
                return None
        except (StoredFileError, OSError, KeyError, TypeError, ValueError):
            return None
        with contextlib.suppress(OSError):  # a cache that only others may write
            os.utime(self.manifest)
        return array

    def missing(self) -> list[Rows]:
        """Shards that are not there, or whose checksum does not match; the latter are removed."""
        absent = []
        for shard in self.plan.shards:
            path = self._shard(shard)
            if not path.exists():
                absent.append(shard)
            elif self._read(shard) is None:
                logger.warning("cached shard %s is damaged: encoding it again", path)
                path.unlink(missing_ok=True)
                absent.append(shard)
        return absent

    def write(self, shards: Sequence[Rows], encode: EncodeRows, on_rows: Callable[[int], None]) -> None:
        """Encode shards and write each as soon as it is complete."""
        if not shards:
            return
        with contextlib.closing(encode(shards)) as blocks:  # type: ignore[type-var]
            for shard in shards:
                rows = np.empty((len(shard), self.plan.dim), dtype=self.plan.dtype)
                done = 0
                while done < len(shard):
                    block = next(blocks)
                    if block.shape[1] != self.plan.dim:
                        raise InputError(
                            f"the encoder gave rows of {block.shape[1]} numbers: expected embed_dim={self.plan.dim}"
                        )
                    rows[done : done + len(block)] = block
                    done += len(block)
                    on_rows(len(block))
                self._write(shard, rows)

    def assemble(self, provenance: dict[str, Any]) -> None:
        """Put the shards together, note the checksum in the manifest, and remove the shards."""
        digest = hashlib.sha256()
        header = {"descr": np.dtype(self.plan.dtype).str, "fortran_order": False, "shape": self._shape}
        start = BytesIO()
        np.lib.format.write_array_header_1_0(start, header)

        def write(handle: IO[bytes]) -> None:
            # Plain writes: on a full disk, writing through a memory map kills the process instead of raising.
            blocks: Iterator[Any] = itertools.chain([start.getvalue()], map(self._sound, self.plan.shards))
            for block in blocks:
                handle.write(block)
                digest.update(block)

        atomic_write(self.vectors, write)
        noted = {
            "format": FORMAT,
            "key": self.plan.key,
            "shape": list(self._shape),
            "dtype": self.plan.dtype,
            "sha256": digest.hexdigest(),
            "provenance": provenance,
        }
        write_json(self.manifest, noted)
        self.clean()

    def clean(self) -> None:
        """Remove shards and what a killed run left half-written; the finished array stays."""
        for path in self.folder.iterdir():
            if _SHARD.fullmatch(path.name) or path.name.endswith(".tmp"):
                path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Clean a finished entry, if somebody was killed before cleaning it, and nobody is at it now."""
        from filelock import Timeout

        with contextlib.suppress(OSError, Timeout, StoredFileError):
            if {path.name for path in self.folder.iterdir()} - {self.vectors.name, self.manifest.name}:
                with locked(self.lock, wait=False):
                    self.clean()

    @property
    def _shape(self) -> tuple[int, int]:
        return (self.plan.count, self.plan.dim)

    def _shard(self, rows: Rows) -> Path:
        # The batch size is in the name: rows encoded in other batches may differ in the last bit.
        return self.folder / f"rows-{rows.start:07d}-{rows.stop:07d}-b{self.plan.batch_size}.safetensors"

    def _write(self, shard: Rows, rows: np.ndarray) -> None:
        from safetensors.numpy import save

        atomic_write(self._shard(shard), lambda handle: handle.write(save({"vectors": rows}, self._note(shard, rows))))

    def _note(self, shard: Rows, rows: np.ndarray) -> dict[str, str]:
        """What a shard says of itself: a file that lies under another shard's name is not taken for it."""
        return {
            "key": self.plan.key,
            "rows": f"{shard.start}:{shard.stop}",
            "batch": str(self.plan.batch_size),
            "sha256": hashlib.sha256(np.ascontiguousarray(rows).data).hexdigest(),
        }

    def _sound(self, shard: Rows) -> np.ndarray:
        rows = self._read(shard)
        if rows is None:
            raise StoredFileError(
                f"shard {str(self._shard(shard))!r} vanished while embedding; was the cache cleared, or is its folder "
                "not shared by all machines? run again, or set SPARSECBM_CACHE to a shared folder"
            )
        return np.ascontiguousarray(rows)

    def _read(self, shard: Rows) -> np.ndarray | None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._shard(shard), framework="np") as file:
                note = file.metadata()
                rows = file.get_tensor("vectors")
        except (SafetensorError, OSError, ValueError):
            return None
        sound = (
            rows.shape == (len(shard), self.plan.dim)
            and rows.dtype == self.plan.dtype
            and note == self._note(shard, rows)
            and all_finite(rows)
        )
        return rows if sound else None


def fetch(
    root: Path,
    plan: Plan,
    encode: EncodeRows,
    provenance: dict[str, Any],
    progress: Callable[[int, int], contextlib.AbstractContextManager[Callable[[int], None]]],
) -> tuple[np.ndarray, bool]:
    """Open an entry, encoding first whatever of it is missing.

    Under a launcher every process must call this; each encodes its share of the missing shards.

    Parameters
    ----------
    root : Path
        The cache folder; shared by all processes.
    plan : Plan
        What the entry holds.
    encode : callable
        Encodes ranges of rows; see `EncodeRows`.
    provenance : dict
        JSON values for the manifest.
    progress : callable
        ``progress(total, done)`` opens a progress bar and gives the function to call with each number of new rows.

    Returns
    -------
    vectors : ndarray, shape (count, dim)
        Read-only, memory-mapped.
    hit : bool
        Whether nothing had to be encoded.

    Raises
    ------
    StoredFileError
        If the cache cannot be written; shards already finished stay for the next run.
    """
    entry = Entry(root, plan)
    processes = Processes.current()
    array: np.ndarray | None = None
    with contextlib.ExitStack() as held:
        shards: list[Rows] | None = None
        with processes.together():
            array = entry.open() if processes.is_main else None
            # Of several processes the first holds the lock on a hit too: the entry must not go before all have it.
            if processes.is_main and (array is None or processes.count > 1):
                try:
                    held.enter_context(locked(entry.lock))
                except StoredFileError:
                    if array is None:  # a hit needs no writing
                        raise
                # Somebody else may have written it while this process waited.
                array = entry.open()
                shards = entry.missing() if array is None else None
        shards = processes.from_main(shards)
        if shards is not None:
            share = shards[processes.index :: processes.count]
            with processes.together(), progress(plan.count, plan.count - sum(map(len, shards))) as on_rows:
                # The main process shows the progress of all.
                entry.write(share, encode, lambda rows: on_rows(rows * processes.count))
            with processes.together():
                if processes.is_main:
                    entry.assemble(provenance)
        array = entry.open() if array is None else array
        with processes.together():  # nobody removes the entry before all have it
            pass
    if processes.is_main and shards is None:
        entry.sweep()
    if array is None:
        raise StoredFileError(
            f"the cached embeddings in {str(entry.folder)!r} cannot be read back; is the cache folder shared by all "
            "machines? set SPARSECBM_CACHE to a shared folder, or remove this one"
        )
    return array, shards is None


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold an entry's lock.

    Raises
    ------
    filelock.Timeout
        If another process holds it and `wait` is False.
    StoredFileError
        If the cache cannot be written.
    """
    from filelock import FileLock, Timeout

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not wait:
                raise
            logger.warning("another process is writing the same embeddings (%s): waiting for it", path)
            lock.acquire()
    except Timeout:  # an OSError too
        raise
    except OSError as error:
        raise StoredFileError(
            f"cannot write the cache folder {str(path.parent)!r}: {error.strerror or error}; free some space, set "
            "SPARSECBM_CACHE to a folder you may write to, or keep the embeddings in memory with cache='memory'"
        ) from error
    try:
        yield
    finally:
        lock.release()
