"""Compiled inner loops (native.c), for whoever asks: set ``SPARSECBM_NATIVE_SAMPLERS=1`` where a C compiler is at hand.

PyTorch runs a Concrete sample as some thirty operations, two of them logarithms of a library that cannot be inlined.
Compiled, a row is drawn, scaled and normalised in one go and in the innermost cache. The words are the same, bit for
bit, so the generator advances alike and hard samples agree; relaxed samples agree to the rounding of float32.

The compiler ($CC, else cc, gcc or clang) runs once a process, for about a second, at the first draw. Its result is
loaded from a temporary folder that only this user can write to, and is kept nowhere. Without a compiler the samplers
go on in plain PyTorch, after one warning.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shlex
import shutil
import subprocess
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

SWITCH = "SPARSECBM_NATIVE_SAMPLERS"
# Signed words are read in halves (no strict aliasing); sums of a row run in lanes, in one order for one machine (simd).
_FLAGS = (
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-strict-aliasing",
    "-fopenmp-simd",
    "-shared",
    "-fPIC",
)
_ENTRIES_A_THREAD = 1 << 16
"""Fewer than so many entries are not worth a thread."""


def compile_library() -> ctypes.CDLL:
    """Compile native.c and load it.

    Raises
    ------
    OSError
        If there is no compiler, or it fails; the message says which.
    """
    candidates = [shlex.split(os.environ["CC"])] if os.environ.get("CC") else [["cc"], ["gcc"], ["clang"]]
    compiler = next((command for command in candidates if shutil.which(command[0])), None)
    if compiler is None:
        raise OSError(f"no C compiler found (looked for {', '.join(command[0] for command in candidates)})")
    with tempfile.TemporaryDirectory(prefix="sparsecbm-") as folder:
        target = str(Path(folder, "native.so"))
        source = str(Path(__file__).with_name("native.c"))
        done = subprocess.run([*compiler, *_FLAGS, source, "-o", target, "-lm"], capture_output=True, text=True)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise OSError(f"{compiler[0]}: {lines[0]}")
        library = ctypes.CDLL(target)
    word, count, address = ctypes.c_uint64, ctypes.c_int64, ctypes.c_void_p
    for function in (library.words, library.logistic, library.gumbel):
        function.argtypes, function.restype = [word, word, count, address], None
    library.log_simplex.argtypes, library.log_simplex.restype = [word, *[count] * 5, *[address] * 4], None
    return library


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the compiled loops, or None where they are not asked for or cannot be had (the latter with a warning)."""
    if os.environ.get(SWITCH, "0") in ("", "0"):
        return None
    try:
        return compile_library()
    except OSError as error:
        warnings.warn(
            f"{SWITCH} is set, but {error}; the samplers go on in plain PyTorch", RuntimeWarning, stacklevel=2
        )
        return None


def available(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the compiled loops can write numbers of `dtype` on `device` (int64 for words, or float32)."""
    return device.type == "cpu" and dtype in (torch.int64, torch.float32) and library() is not None


def write(what: str, key: int, position: int, out: torch.Tensor) -> torch.Tensor:
    """Fill `out` (contiguous) with "words" (int64), "logistic" or "gumbel" noise (float32) from a stream's words.

    `position` is that of the first word.
    """
    getattr(library(), what)(key % (1 << 64), position, out.numel(), out.data_ptr())
    return out


def log_simplex(
    key: int, shape: torch.Size, stretch: int, logits: torch.Tensor, temperature: torch.Tensor
) -> torch.Tensor:
    """Draw ``log_softmax((logits + G) / temperature)``, G standard Gumbel noise.

    Parameters
    ----------
    key : int
        Key of the stream of words.
    shape : torch.Size
        Shape of the result, (..., n).
    stretch : int
        Entries that :func:`sparsecbm.samplers.noise.fill` draws at a time, each time from a new word on.
    logits : torch.Tensor
        Shape (batch, n), float32; the rows of the result go over the batch again and again.
    temperature : torch.Tensor
        Shape (batch, 1), float32.

    Returns
    -------
    torch.Tensor
        float32, of `shape`.
    """
    loops, n = library(), shape[-1]
    logits, temperature = logits.contiguous(), temperature.contiguous()
    y = torch.empty(shape, dtype=torch.float32)
    rows = shape.numel() // n

    def work(first: int, last: int) -> None:
        buffer = torch.empty(n // 2 + 2, dtype=torch.int64)
        addresses = [tensor.data_ptr() for tensor in (logits, temperature, buffer, y)]
        loops.log_simplex(key % (1 << 64), first, last, n, stretch, len(logits), *addresses)

    threads = min(torch.get_num_threads(), rows, shape.numel() // _ENTRIES_A_THREAD)
    if threads <= 1:
        work(0, rows)
    else:  # ctypes lets go of the interpreter's lock; each row is the same whichever thread draws it
        edges = [rows * i // threads for i in range(threads + 1)]
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, edges[:-1], edges[1:]))
    return y
