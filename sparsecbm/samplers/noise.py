"""Standard Gumbel, logistic, exponential and uniform noise, and Bernoulli draws, from an explicit generator.

Everything starts from the odds of a uniform ``u = a / (a + b)``, where ``a = k + 1/2`` and ``b = 2^p - k - 1/2`` for
a random p-bit integer k (p = 31 for float32, 63 for float64). Both a and b are computed as integers and rounded
once, so each keeps its full relative precision however small it is:

- logistic: ``log(a / b)``;
- exponential: ``-log u = log(1 + b / a)``;
- Gumbel: ``-log`` of the exponential.

Neither end passes through ``1 - tiny``, which is where the usual ``-log(-log(u))`` loses its tail. float16 and
bfloat16 noise is computed in float32 and rounded once. The largest magnitudes are, in float32: logistic 22.2,
exponential 22.2, Gumbel -3.1 and 22.2 (anything beyond has probability 2**-32 a draw); in float64: logistic and
exponential 44.4.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import torch

from sparsecbm.samplers._bits import BLOCK, WordStream, draw_key, words
from sparsecbm.samplers._checks import (
    NotFiniteError,
    Shape,
    check_floating,
    check_generator,
    check_logits,
    check_shape,
    first_bad,
    transformed,
)

__all__ = ["bernoulli", "categorical", "exponential", "gumbel", "logistic", "normal", "uniform"]


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type that arithmetic on `dtype` is done in: float64 for float64, float32 for anything shorter."""
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"dtype must be a floating-point torch.dtype, got {dtype!r}")
    return torch.float64 if dtype == torch.float64 else torch.float32


class UniformPairs:
    """Blocks of (a, b), a / (a + b) uniform on (0, 1), both precise to float rounding; see the module's text."""

    def __init__(
        self,
        generator: torch.Generator | None,
        dtype: torch.dtype,
        device: torch.device | str | None,
        capacity: int,
    ) -> None:
        self.dtype = dtype
        self.bits = 63 if dtype == torch.float64 else 31
        self._per_word = 1 if dtype == torch.float64 else 2
        self._mask = (1 << 63) - 1 if dtype == torch.float64 else (1 << 31) - 1 | ((1 << 31) - 1) << 32
        self._integer = torch.int64 if dtype == torch.float64 else torch.int32
        self._open(generator, device, capacity)

    def _open(self, generator: torch.Generator | None, device: torch.device | str | None, capacity: int) -> None:
        self._stream = WordStream(generator, device, -(-capacity // self._per_word))
        self.device = self._stream.device

    def fork(self) -> UniformPairs:
        """Return the same pairs with buffers of their own, for another thread."""
        other = copy.copy(self)
        other._stream = self._stream.fork()
        return other

    def seek(self, position: int) -> None:
        """Go on from the pair at `position`, an even number."""
        self._stream.seek(position // self._per_word)

    def integers(self, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return `count` integers k, the words they lie in, and a scratch buffer of floats."""
        words, scratch = self._stream.next(-(-count // self._per_word))
        if self.bits == 31:  # a word has 63 random bits and no sign already
            words.bitwise_and_(self._mask)
        return words.view(self._integer)[:count], words, scratch.view(self.dtype)[:count]

    def first(self, out: torch.Tensor) -> torch.Tensor:
        """Write a into `out` (shape (n,))."""
        integers, _, _ = self.integers(out.numel())
        return out.copy_(integers).add_(0.5)

    def odds(self, out: torch.Tensor) -> torch.Tensor:
        """Write b / a, the odds against, into `out` (shape (n,))."""
        return self._odds(out.numel(), out)

    def passing_odds(self, count: int) -> torch.Tensor:
        """Return `count` odds in a buffer that the next call overwrites."""
        return self._odds(count, None)

    def _odds(self, count: int, out: torch.Tensor | None) -> torch.Tensor:
        integers, words, denominator = self.integers(count)
        denominator.copy_(integers).add_(0.5)
        words.bitwise_xor_(self._mask)
        if out is None:
            out = words.view(self.dtype)[:count]  # each number over its own integer
        return out.copy_(integers).add_(0.5).div_(denominator)


class _WholePairs(UniformPairs):
    """The same pairs from the same key, all at once and out of place: what tracing and batching need."""

    def _open(self, generator: torch.Generator | None, device: torch.device | str | None, capacity: int) -> None:
        key = draw_key(generator)
        self.device = torch.device(device) if device is not None else key.device
        self._count = capacity
        self._words = words(key.to(self.device), -(-capacity // self._per_word)) & self._mask

    def whole(self, flip: int = 0) -> torch.Tensor:
        """Return the integers k, or with the mask for `flip` their complements."""
        found = self._words ^ flip
        if self.bits == 31:  # the halves of a word, without the view of another type that torch.jit.trace lacks
            found = torch.stack((found & (1 << 31) - 1, found >> 32), -1).flatten()
        return found[: self._count]

    def first(self, out: torch.Tensor | None = None) -> torch.Tensor:
        """Return a."""
        return self.whole().to(self.dtype) + 0.5

    def odds(self, out: torch.Tensor | None = None) -> torch.Tensor:
        """Return b / a, the odds against."""
        return (self.whole(self._mask).to(self.dtype) + 0.5) / self.first()


def in_blocks(device: torch.device | str | None, generator: torch.Generator | None) -> bool:
    """Whether to work in cache-sized stretches: on a CPU, where nothing is traced or batched."""
    check_generator(generator)
    where = torch.device(device) if device is not None else generator.device if generator is not None else None
    return (where is None or where.type == "cpu") and not transformed()


def fill(
    shape: Shape,
    block: Callable[[Any, Any, int], torch.Tensor],
    *,
    generator: torch.Generator | None,
    dtype: torch.dtype,
    device: torch.device | str | None,
    row: int = 1,
) -> torch.Tensor:
    """Allocate `shape` and let ``block(pairs, stretch, start)`` fill it, a cache-sized stretch of whole rows at a time.

    Cutting the work up saves more than half of the time: temporaries stay in the cache, and none of the size of the
    result is ever allocated. Where that does not serve (:func:`in_blocks`), the one stretch is everything and `block`
    returns it. Two float32 numbers share a word, so stretches have an even number of entries: the noise is the same
    either way.
    """
    compute = compute_dtype(dtype)
    size = check_shape(shape)
    count = math.prod(size)
    if not in_blocks(device, generator):
        return block(_WholePairs(generator, compute, device, count), None, 0).reshape(size)
    rows = max(BLOCK // row, 1 + row % 2) if row else 0
    length = max((rows - rows * row % 2) * row, 1)
    pairs = UniformPairs(generator, compute, device, min(count, length))
    result = torch.empty(count, dtype=compute, device=pairs.device)
    share_out(pairs, count, length, lambda pairs, start: block(pairs, result[start : start + length], start))
    return result.view(size)


def share_out(pairs: UniformPairs, count: int, length: int, block: Callable[[UniformPairs, int], object]) -> None:
    """Call ``block(pairs, start)`` for every stretch of `length`, in as many threads as PyTorch's kernels may take.

    Each thread takes the next stretch when it is done with one, its kernels alone on it. Threads that share a kernel
    wait for the slowest at each, and where a core is busy that takes longer than the work.
    """
    left = iter(range(0, count, length))  # handed out under the interpreter's lock
    inference = torch.is_inference_mode_enabled()

    def work(pairs: UniformPairs) -> None:
        with torch.inference_mode() if inference else torch.no_grad():
            for start in left:
                pairs.seek(start)
                block(pairs, start)

    helpers = min(torch.get_num_threads(), -(-count // length)) - 1
    with one_thread():  # in those that begin while it holds, too
        if helpers < 1:
            work(pairs)
            return
        pool = ThreadPoolExecutor(helpers)
        helping = [pool.submit(work, pairs.fork()) for _ in range(helpers)]
        try:
            work(pairs)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # what has not begun by now has nothing left to do
            wait(begun := [one for one in helping if not one.cancelled()])
        for one in begun:
            one.result()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Give PyTorch's kernels one thread each."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def narrow(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Round to `dtype`, to its largest finite value rather than to infinity."""
    if torch.finfo(dtype).max < torch.finfo(values.dtype).max:
        values = values.clamp(torch.finfo(dtype).min, torch.finfo(dtype).max)
    return values.to(dtype)


@torch.no_grad()
def logistic(
    shape: Shape,
    *,
    generator: torch.Generator | None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Draw standard logistic noise, ``log(u / (1 - u))``.

    Parameters
    ----------
    shape : int or sequence of int
        Shape of the result.
    generator : torch.Generator or None
        Source of randomness; None means PyTorch's default generator.
    dtype : torch.dtype, default=torch.float32
        Floating-point type of the result. float16 and bfloat16 are computed in float32 and rounded once.
    device : torch.device, str or None
        Device of the result; None means the generator's.

    Returns
    -------
    torch.Tensor
        Independent draws, mean 0, variance pi^2 / 3.

    Raises
    ------
    ValueError
        If `shape` has a negative size or `dtype` is not floating-point.

    Examples
    --------
    >>> logistic(3, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([3])
    """
    drawn = fill(shape, lambda pairs, out, _: pairs.odds(out).log_(), generator=generator, dtype=dtype, device=device)
    return drawn.to(dtype)


@torch.no_grad()
def exponential(
    shape: Shape,
    *,
    generator: torch.Generator | None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Draw standard exponential noise, rate 1: strictly positive. Parameters as for :func:`logistic`.

    Returns
    -------
    torch.Tensor
        Independent draws, mean 1, variance 1.

    Examples
    --------
    >>> bool((exponential((2, 3), generator=torch.Generator().manual_seed(0)) > 0).all())
    True
    """
    drawn = fill(shape, lambda pairs, out, _: pairs.odds(out).log1p_(), generator=generator, dtype=dtype, device=device)
    if dtype == torch.float16:
        drawn.clamp_(min=torch.finfo(dtype).smallest_normal)
    return drawn.to(dtype)


@torch.no_grad()
def gumbel(
    shape: Shape,
    *,
    generator: torch.Generator | None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Draw standard Gumbel noise, distribution function exp(-exp(-g)). Parameters as for :func:`logistic`.

    Returns
    -------
    torch.Tensor
        Independent draws, mean 0.5772 (Euler's constant), variance pi^2 / 6.

    Examples
    --------
    >>> a = gumbel(4, generator=torch.Generator().manual_seed(1))
    >>> b = gumbel(4, generator=torch.Generator().manual_seed(1))
    >>> bool((a == b).all())
    True
    """
    drawn = fill(
        shape,
        lambda pairs, out, _: pairs.odds(out).log1p_().log_().neg_(),
        generator=generator,
        dtype=dtype,
        device=device,
    )
    return drawn.to(dtype)


@torch.no_grad()
def uniform(
    shape: Shape,
    *,
    generator: torch.Generator | None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Draw uniform noise on the open interval (0, 1). Parameters as for :func:`logistic`.

    Returns
    -------
    torch.Tensor
        Independent draws, precise near 0; the largest value is the float just below 1.

    Examples
    --------
    >>> u = uniform(1000, generator=torch.Generator().manual_seed(0))
    >>> bool(((u > 0) & (u < 1)).all())
    True
    """
    below_one = 1.0 - torch.finfo(dtype).eps / 2 if compute_dtype(dtype) else 1.0

    def block(pairs: UniformPairs, out: torch.Tensor, _: int) -> torch.Tensor:
        return torch.clamp(pairs.first(out).mul_(2.0**-pairs.bits), max=below_one, out=out)

    drawn = fill(shape, block, generator=generator, dtype=dtype, device=device)
    if dtype == torch.float16:
        drawn.clamp_(min=torch.finfo(dtype).smallest_normal)
    return drawn.to(dtype)


@torch.no_grad()
def bernoulli(
    logits: torch.Tensor, *, generator: torch.Generator | None, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Draw 0/1 values that are 1 with probability ``sigmoid(logits)``.

    Parameters
    ----------
    logits : torch.Tensor
        Floating-point, any shape, infinite where a value is certain; half-precision logits are compared in float32.
    generator : torch.Generator or None
        Source of randomness; None means PyTorch's default generator.
    out : torch.Tensor or None
        Contiguous tensor of the shape of `logits` to write to (it may be `logits` itself); None allocates one of the
        type of `logits`.

    Returns
    -------
    torch.Tensor
        Zeros and ones, shape of `logits`.

    Raises
    ------
    ValueError
        If a logit is NaN, or `out` does not fit.

    Notes
    -----
    The less likely of the two values, whose probability is p = sigmoid(-abs(logit)) <= 1/2, is taken where a uniform
    integer k of b bits has k < 2^b p, with b = 31 (float32) or 63 (float64). So each probability is realised to within
    2^-b plus the rounding of p, on either side of 1/2 alike.

    Examples
    --------
    >>> bernoulli(torch.tensor([-1e4, 1e4]), generator=torch.Generator().manual_seed(0))
    tensor([0., 1.])
    """
    compute = compute_dtype(check_floating("logits", logits).dtype)
    if out is not None and (out.shape != logits.shape or out.device != logits.device or not out.is_contiguous()):
        raise ValueError(
            f"out must be contiguous, of shape {tuple(logits.shape)} on {logits.device}, "
            f"got shape {tuple(out.shape)} on {out.device}"
        )
    count = logits.numel()
    if not in_blocks(logits.device, generator):
        _refuse_nan(logits)
        every = _WholePairs(generator, compute, logits.device, count)
        rarer = (-logits.to(compute).abs()).sigmoid() * 2.0**every.bits > every.whole().reshape(logits.shape)
        # Where it cannot be refused, NaN gives NaN.
        drawn = torch.where(logits.isnan(), logits, ((logits > 0) ^ rarer).to(logits.dtype))
        return drawn if out is None else out.copy_(drawn)
    result = torch.empty_like(logits, memory_format=torch.contiguous_format) if out is None else out
    source, target = logits.reshape(-1), result.view(-1)
    length = BLOCK if torch.get_num_threads() == 1 else BLOCK // 4
    pairs = UniformPairs(generator, compute, logits.device, min(count, length))

    def block(pairs: UniformPairs, start: int) -> None:
        stretch = source[start : start + length]
        integers, words, scratch = pairs.integers(stretch.numel())
        position = scratch.copy_(integers)
        rarer = torch.abs(stretch.to(compute), out=words.view(compute)[: len(stretch)])  # over the integers copied
        rarer.neg_().sigmoid_().mul_(2.0**pairs.bits)
        if rarer.sum().isnan():  # a sum costs less than a look at every number
            _refuse_nan(stretch)
        rarer.gt_(position)
        # value = rarer xor (logit > 0), in floats: comparisons into bool tensors cost several times as much.
        ones = torch.gt(stretch, 0, out=target[start : start + length])
        ones.ne_(rarer.to(ones.dtype))

    share_out(pairs, count, length, block)
    return result


@torch.no_grad()
def categorical(logits: torch.Tensor, *, generator: torch.Generator | None) -> torch.Tensor:
    """Draw an index a row with probability ``softmax(logits)``, by the inverse of the distribution function.

    One uniform number a row, where the Gumbel-max trick takes one a class: the plain way, which has no relaxation.

    Parameters
    ----------
    logits : torch.Tensor
        Shape (..., n), finite.
    generator : torch.Generator or None
        Source of randomness; None means PyTorch's default generator.

    Returns
    -------
    torch.Tensor
        int64, shape (...).

    Raises
    ------
    ValueError
        If a logit is not finite, or there is no class.

    Examples
    --------
    >>> categorical(torch.tensor([[0.0, 1e4], [1e4, 0.0]]), generator=torch.Generator().manual_seed(0))
    tensor([1, 0])
    """
    if check_logits(logits).dim() < 1 or logits.shape[-1] < 1:
        raise ValueError(f"logits must have a last dimension of at least one class, got shape {tuple(logits.shape)}")
    summed = logits.double().softmax(-1).cumsum(-1)
    shape = (*logits.shape[:-1], 1)
    drawn = uniform(shape, generator=generator, dtype=torch.float64, device=logits.device) * summed[..., -1:]
    return (summed <= drawn).sum(-1).clamp(max=logits.shape[-1] - 1)


def _refuse_nan(logits: torch.Tensor) -> None:
    if first_bad(logits, ~logits.isnan()) is not None:
        raise NotFiniteError("logits must be numbers or infinite, got nan")


@torch.no_grad()
def normal(
    shape: Shape,
    *,
    generator: torch.Generator | None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Draw standard normal noise. Parameters as for :func:`logistic`.

    Returns
    -------
    torch.Tensor
        Independent draws, mean 0, variance 1, by ``torch.randn`` on the generator's device (nothing to mend there).

    Examples
    --------
    >>> normal((2, 3), generator=torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3])
    """
    compute = compute_dtype(dtype)
    check_generator(generator)
    source = generator.device if generator is not None else torch.device("cpu")
    by: Any = {} if generator is None else {"generator": generator}  # the overload with one knows no symbolic sizes
    drawn = torch.randn(check_shape(shape), dtype=compute, device=source, **by)
    return drawn.to(device=source if device is None else device, dtype=dtype)
