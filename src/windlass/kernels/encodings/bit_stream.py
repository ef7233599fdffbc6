"""Whole numbers of a few bits, one after the other in words of 32 bits, the lowest bits first.

Legend: W words, c numbers, b bits, ... anything beside them.
"""

import torch

WORD_BITS = 32


def codes_down(words: torch.Tensor, bits: int) -> torch.Tensor:
    """words int32 (W, n), a stream down each column -> numbers int32 (W 32 / b, n), 0 .. 2^b - 1."""
    mask = (1 << bits) - 1
    if WORD_BITS % bits == 0:
        shifts = torch.arange(0, WORD_BITS, bits, dtype=torch.int32, device=words.device)
        return ((words[:, None] >> shifts[:, None]) & mask).flatten(0, 1)
    # A number may begin in one word and end in the next: both make one word of 64 bits.
    starts = torch.arange(words.shape[0] * WORD_BITS // bits, device=words.device) * bits
    unsigned = words.long() & 0xFFFFFFFF
    pairs = unsigned | torch.cat([unsigned[1:], torch.zeros_like(unsigned[:1])]) << WORD_BITS
    return ((pairs[starts // WORD_BITS] >> (starts % WORD_BITS)[:, None]) & mask).int()


def codes_along(words: torch.Tensor, bits: int) -> torch.Tensor:
    """words int32 (n, W), a stream along each row -> numbers int32 (n, W 32 / b)."""
    if WORD_BITS % bits == 0:
        shifts = torch.arange(0, WORD_BITS, bits, dtype=torch.int32, device=words.device)
        return ((words[..., None] >> shifts) & ((1 << bits) - 1)).flatten(1)
    return codes_down(words.T, bits).T


def words_of(bits: int, start: int, stop: int) -> tuple[int, int, int]:
    """The words first .. last - 1 hold the numbers start .. stop; with them, the number that the first begins with."""
    run = 1 if WORD_BITS % bits == 0 else bits  # words after which a number begins with a word again
    per_run = run * WORD_BITS // bits
    first = start // per_run
    return first * run, -(-stop // per_run) * run, first * per_run
