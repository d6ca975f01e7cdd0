"""Random words: a counter-based generator keyed from a :class:`torch.Generator`.

PyTorch's CPU generator is a serial Mersenne twister, and several of its distributions (``exponential_``,
``bernoulli_``) spend most of their time in scalar code. Here one 64-bit key is drawn from the caller's generator and
spread over a counter by the SplitMix64 mixer, with ordinary integer tensor operations: every word is a function of
(key, position) alone. So the generator's state is enough to reproduce a draw, the result does not depend on the number
of threads, and the same key gives the same words on every device.
"""

from __future__ import annotations

import copy
import functools
import threading

import torch

from sparsecbm.samplers._checks import check_generator

# SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators"), as signed 64-bit integers.
_GOLDEN_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)

BLOCK = 1 << 18
"""Numbers a block: enough to hide the cost of calling an operation, few enough for the buffers to stay in the cache."""


def _wrap(value: int) -> int:
    """Reduce a Python integer to the signed 64-bit integer congruent to it."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def _xor_shift_right(words: torch.Tensor, shift: int, scratch: torch.Tensor) -> None:
    """``words ^= words >>> shift`` in place; PyTorch's shift copies the sign bit, so the copies are masked away."""
    torch.bitwise_right_shift(words, shift, out=scratch)
    scratch.bitwise_and_((1 << (64 - shift)) - 1)
    words.bitwise_xor_(scratch)


@functools.lru_cache(maxsize=8)
def _steps(capacity: int, device: torch.device) -> torch.Tensor:
    """Multiples of the golden gamma; kept, for chains ask for the same number at every sweep. Never written to."""
    return torch.arange(capacity, dtype=torch.int64, device=device).mul_(_GOLDEN_GAMMA)


@functools.lru_cache(maxsize=16)
def _kept(capacity: int, device: torch.device, thread: int, fork: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Buffers of a thread's streams: fresh ones cost more than the words, for the system hands out memory by the page.

    `thread` and `fork` only tell apart who may write at one time.
    """
    with torch.inference_mode(False):  # where they are made, they could not be written to elsewhere
        return tuple(torch.empty(capacity, dtype=torch.int64, device=device) for _ in range(2))  # type: ignore[return-value]


def draw_key(generator: torch.Generator | None) -> torch.Tensor:
    """Draw a 64-bit key (int64, shape (), on the generator's device)."""
    check_generator(generator)
    source = generator.device if generator is not None else torch.device("cpu")
    low, high = -(1 << 63), (1 << 63) - 1
    # Flipping the sign makes it the number that `random_` draws over all of int64, which vmap cannot batch.
    return torch.randint(low, high, (), dtype=torch.int64, device=source, generator=generator) ^ low


def words(key: torch.Tensor, count: int) -> torch.Tensor:
    """Return the first `count` words of the :class:`WordStream` of a key, out of place."""
    mixed = torch.arange(count, dtype=torch.int64, device=key.device) * _GOLDEN_GAMMA ^ key
    for shift, factor in ((30, _MIX_1), (27, _MIX_2)):
        mixed = (mixed ^ (mixed >> shift & (1 << (64 - shift)) - 1)) * factor
    return mixed ^ mixed >> 31


class WordStream:
    """A stream of independent words of 63 random bits, handed out block by block into one reused buffer.

    Parameters
    ----------
    generator : torch.Generator or None
        Source of the 64-bit key; it advances by one draw whatever is asked. None means PyTorch's default generator.
    device : torch.device, str or None
        Where the words are computed; None means the generator's device.
    capacity : int
        The most words asked of one call of :meth:`next`.

    Notes
    -----
    Word i is the SplitMix64 mixer of ``(gamma * i) xor key``. The key is combined by xor, not by addition: two keys
    that lie near each other along the additive orbit would otherwise give one sequence, shifted. The mixer's last
    step copies the sign bit over the bits that it should leave alone, which spares masking it away: given that bit,
    which the result no longer holds (it is 0), the other 63 are as uniform as before.
    """

    def __init__(self, generator: torch.Generator | None, device: torch.device | str | None, capacity: int) -> None:
        key = draw_key(generator)
        self.device = torch.device(device) if device is not None else key.device
        self._key = key.to(self.device)
        self._steps = _steps(capacity, self.device)
        self._forks = 0
        self._words, self._scratch = self._buffers(0)
        self._position = 0

    def _buffers(self, fork: int) -> tuple[torch.Tensor, torch.Tensor]:
        capacity = len(self._steps)
        if capacity <= BLOCK // 2:
            words, scratch = _kept(BLOCK // 2, self.device, threading.get_ident(), fork)
            return words[:capacity], scratch[:capacity]
        return torch.empty_like(self._steps), torch.empty_like(self._steps)

    def fork(self) -> WordStream:
        """Return the same stream with buffers of its own, for another thread."""
        self._forks += 1
        other = copy.copy(self)
        other._words, other._scratch = self._buffers(self._forks)
        return other

    def seek(self, position: int) -> None:
        """Go on from the word at `position`."""
        self._position = position

    def next(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the next `count` words (non-negative int64, shape (count,)) and a scratch buffer like them.

        Both are overwritten by the next call, of another stream of this thread too.
        """
        words, scratch = self._words[:count], self._scratch[:count]
        if self._position:
            torch.add(self._steps[:count], _wrap(_GOLDEN_GAMMA * self._position), out=words)
            words.bitwise_xor_(self._key)
        else:
            torch.bitwise_xor(self._steps[:count], self._key, out=words)
        _xor_shift_right(words, 30, scratch)
        words.mul_(_MIX_1)
        _xor_shift_right(words, 27, scratch)
        words.mul_(_MIX_2)
        torch.bitwise_right_shift(words, 31, out=scratch)
        words.bitwise_xor_(scratch)
        self._position += count
        return words, scratch
