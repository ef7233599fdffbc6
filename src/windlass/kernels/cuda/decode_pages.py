"""Attention of sequences that bring one token each over pages of keys and values, as they lie or packed, on a device.

A program attends with the query heads of one key head over one run of pages of one sequence; a second kernel adds up
the runs of each sequence by their log-sum-exp (Flash-Decoding: Dao, Haziza, Massa and Sizov, 2023). A page is read
where it lies. Codes of packed pages are multiplied as they are, scales go to the query and to the weights.

Legend: S sequences, U runs, H query heads, Hk key heads, P tokens a page, Dk and Dv sizes of keys and values. A row is
what a page holds of one token and head: as many elements as channels, or bytes of two 4-bit codes, of channel b and
channel b + (bytes of the row).
"""

import torch
import triton
import triton.language as tl

from windlass.kernels.cuda.device_pages import DevicePages
from windlass.kernels.decode_runs import DeviceRuns

LEAST_SIDE = 16
"""Of the matrices that tensor cores take."""
TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
"""What is multiplied, by the query's type. Packed pages scale the query, which float16 may not hold: TF32 has its
precision and the exponents of float32."""


@triton.jit
def _shaped(scores: tl.tensor, softcap: tl.tensor, visible: tl.tensor, SOFTCAP: tl.constexpr) -> tl.tensor:
    """scores (members, tokens), capped where that is asked, and -inf where a token is not seen.

    softcap * tanh(scores / softcap) is a series where the exponential would cancel.
    """
    if SOFTCAP:
        x = scores / softcap
        xx = x * x
        series = x * (1 - xx * (1 / 3 - xx * (2 / 15 - xx * (17 / 315 - xx * (62 / 2835)))))
        scores = softcap * tl.where(tl.abs(x) < 0.25, series, 1 - 2 / (tl.exp(2 * x) + 1))
    return tl.where(visible[None, :], scores, float("-inf"))


@triton.jit
def _codes(rows: tl.tensor, HALF: tl.constexpr, BITS: tl.constexpr, TYPE: tl.constexpr) -> tl.tensor:
    """Bytes of rows -> codes of the channels in one half of each, less the middle code: small, so exact in any type."""
    if BITS == 4:
        rows = (rows >> 4) if HALF else (rows & 15)
    return (rows.to(tl.int32) - (1 << (BITS - 1))).to(tl.float32).to(TYPE)


@triton.jit
def _key_scores(
    scores: tl.tensor, q: tl.tensor, rows: tl.tensor, scales: tl.tensor, channel: tl.tensor,
    HALF: tl.constexpr, BITS: tl.constexpr, DIM: tl.constexpr, TYPE: tl.constexpr, PRECISION: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Adds what one half of the channels gives: q (members, channels), rows (channels, tokens) of packed keys.

    A channel has one scale and one zero for all tokens of the page, so these go to the query.
    """
    there = channel < DIM
    scale = tl.load(scales + channel, mask=there, other=0.0).to(tl.float32)
    zero = tl.load(scales + DIM + channel, mask=there, other=0.0).to(tl.float32) + scale * (1 << (BITS - 1))
    scaled = (q.to(tl.float32) * scale[None, :]).to(TYPE)
    beside = tl.sum(q.to(tl.float32) * zero[None, :], 1)
    return tl.dot(scaled, _codes(rows, HALF, BITS, TYPE), scores + beside[:, None], input_precision=PRECISION)


@triton.jit
def _scores(
    q: tl.tensor, q_high: tl.tensor, keys: tl.tensor, scales: tl.tensor, row: tl.tensor, visible: tl.tensor,
    KEY_SIDE: tl.constexpr, DIM: tl.constexpr, ROW: tl.constexpr,
    BITS: tl.constexpr, TYPE: tl.constexpr, PRECISION: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Of the members' queries with the keys of one page, float32 (members, tokens)."""
    channel = tl.arange(0, KEY_SIDE)
    there = visible[None, :] & (channel < ROW)[:, None]
    rows = tl.load(keys + row[None, :] * ROW + channel[:, None], mask=there, other=0)
    scores = tl.zeros((q.shape[0], row.shape[0]), tl.float32)
    if BITS == 0:
        scores = tl.dot(q, rows, scores, input_precision=PRECISION)
    else:
        scores = _key_scores(scores, q, rows, scales, channel, 0, BITS, DIM, TYPE, PRECISION)
        if BITS == 4:
            scores = _key_scores(scores, q_high, rows, scales, channel + ROW, 1, BITS, DIM, TYPE, PRECISION)
    return scores


@triton.jit
def _add_piece(
    added: tl.tensor, weights: tl.tensor, values: tl.tensor, scales: tl.tensor, row: tl.tensor, token: tl.tensor,
    visible: tl.tensor,
    PIECE: tl.constexpr, PIECE_DIM: tl.constexpr, BITS: tl.constexpr, DIM: tl.constexpr, ROW: tl.constexpr,
    GROUP: tl.constexpr, PAGE: tl.constexpr, TYPE: tl.constexpr, PRECISION: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Adds weights (members, tokens) times one piece of the channels of a page's values, where there is one.

    A token has one scale and one zero for all channels of a piece, so these go to the weights.
    """
    FIRST: tl.constexpr = PIECE * PIECE_DIM
    if FIRST < DIM:
        channel = tl.arange(0, added.shape[1])
        there = visible[:, None] & ((channel < PIECE_DIM) & (channel < DIM - FIRST))[None, :]
        rows = tl.load(values + row[:, None] * ROW + (FIRST % ROW + channel)[None, :], mask=there, other=0)
        if BITS == 0:
            added = tl.dot(weights.to(TYPE), rows, added, input_precision=PRECISION)
        else:
            at = scales + FIRST // GROUP * PAGE + token
            scale = tl.load(at, mask=visible, other=0.0).to(tl.float32)
            zero = tl.load(at + DIM // GROUP * PAGE, mask=visible, other=0.0).to(tl.float32)
            beside = tl.sum(weights * (zero + scale * (1 << (BITS - 1)))[None, :], 1)
            scaled = (weights * scale[None, :]).to(TYPE)
            codes = _codes(rows, FIRST // ROW, BITS, TYPE)
            added = tl.dot(scaled, codes, added + beside[:, None], input_precision=PRECISION)
    return added


@triton.jit
def _store_piece(
    out: tl.tensor, added: tl.tensor, asked: tl.tensor,
    PIECE: tl.constexpr, PIECE_DIM: tl.constexpr, DIM: tl.constexpr,
) -> None:  # fmt: skip
    FIRST: tl.constexpr = PIECE * PIECE_DIM
    if FIRST < DIM:
        channel = tl.arange(0, added.shape[1])
        there = (channel < PIECE_DIM) & (channel < DIM - FIRST)
        tl.store(out + (FIRST + channel)[None, :], added, mask=asked & there[None, :])


@triton.jit
def _decode_kernel(
    query: tl.tensor, keys: tl.tensor, values: tl.tensor, key_scales: tl.tensor, value_scales: tl.tensor,
    page: tl.tensor, start: tl.tensor, stop: tl.tensor, first: tl.tensor, owner: tl.tensor,
    out: tl.tensor, log_sum: tl.tensor,
    key_stride: tl.tensor, value_stride: tl.tensor, scale_stride: tl.tensor, scaling: tl.tensor, softcap: tl.tensor,
    HEADS: tl.constexpr, GROUP: tl.constexpr, GROUP_SIDE: tl.constexpr, PAGE: tl.constexpr, PAGE_SIDE: tl.constexpr,
    KEY_DIM: tl.constexpr, KEY_ROW: tl.constexpr, KEY_SIDE: tl.constexpr,
    DIM: tl.constexpr, ROW: tl.constexpr, VALUE_GROUP: tl.constexpr, PIECE: tl.constexpr, PIECE_SIDE: tl.constexpr,
    BITS: tl.constexpr, SOFTCAP: tl.constexpr, TYPE: tl.constexpr, PRECISION: tl.constexpr,
) -> None:  # fmt: skip
    run, key_head = tl.program_id(0), tl.program_id(1)
    member, token, kc = tl.arange(0, GROUP_SIDE), tl.arange(0, PAGE_SIDE), tl.arange(0, KEY_SIDE)
    head, row = key_head * GROUP + member, key_head * PAGE + token
    asked = (member < GROUP)[:, None]
    q_rows = query + (tl.load(owner + run).to(tl.int64) * HEADS + head)[:, None] * KEY_DIM + kc[None, :]
    q = tl.load(q_rows, mask=asked & (kc < KEY_ROW)[None, :], other=0.0)
    q_high = q
    if BITS == 4:
        q_high = tl.load(q_rows + KEY_ROW, mask=asked & (kc < KEY_DIM - KEY_ROW)[None, :], other=0.0)
    added_0 = tl.zeros((GROUP_SIDE, PIECE_SIDE), tl.float32)
    added_1, added_2, added_3 = added_0, added_0, added_0
    largest = tl.full((GROUP_SIDE,), float("-inf"), tl.float32)
    total = tl.zeros((GROUP_SIDE,), tl.float32)
    for read in range(tl.load(first + run), tl.load(first + run + 1)):
        number = tl.load(page + read).to(tl.int64)
        visible = (token >= tl.load(start + read)) & (token < tl.load(stop + read))
        k, v = keys + number * key_stride, values + number * value_stride
        k_scales = key_scales + number * scale_stride + key_head * 2 * KEY_DIM
        v_scales = value_scales + number * scale_stride + key_head * 2 * (DIM // VALUE_GROUP) * PAGE
        scores = _scores(q, q_high, k, k_scales, row, visible, KEY_SIDE, KEY_DIM, KEY_ROW, BITS, TYPE, PRECISION)
        scores = _shaped(scores * scaling, softcap, visible, SOFTCAP)
        larger = tl.maximum(largest, tl.max(scores, 1))
        w, kept = tl.exp(scores - larger[:, None]), tl.exp(largest - larger)
        largest, total = larger, total * kept + tl.sum(w, 1)
        added_0 = _add_piece(
            added_0 * kept[:, None], w, v, v_scales, row, token, visible,
            0, PIECE, BITS, DIM, ROW, VALUE_GROUP, PAGE, TYPE, PRECISION,
        )  # fmt: skip
        added_1 = _add_piece(
            added_1 * kept[:, None], w, v, v_scales, row, token, visible,
            1, PIECE, BITS, DIM, ROW, VALUE_GROUP, PAGE, TYPE, PRECISION,
        )  # fmt: skip
        added_2 = _add_piece(
            added_2 * kept[:, None], w, v, v_scales, row, token, visible,
            2, PIECE, BITS, DIM, ROW, VALUE_GROUP, PAGE, TYPE, PRECISION,
        )  # fmt: skip
        added_3 = _add_piece(
            added_3 * kept[:, None], w, v, v_scales, row, token, visible,
            3, PIECE, BITS, DIM, ROW, VALUE_GROUP, PAGE, TYPE, PRECISION,
        )  # fmt: skip
    target = run.to(tl.int64) * HEADS + head
    tl.store(log_sum + target, largest + tl.log(total), mask=member < GROUP)
    target = out + target[:, None] * DIM
    _store_piece(target, added_0 / total[:, None], asked, 0, PIECE, DIM)
    _store_piece(target, added_1 / total[:, None], asked, 1, PIECE, DIM)
    _store_piece(target, added_2 / total[:, None], asked, 2, PIECE, DIM)
    _store_piece(target, added_3 / total[:, None], asked, 3, PIECE, DIM)


@triton.jit
def _combine_kernel(
    partial: tl.tensor, partial_log: tl.tensor, first_run: tl.tensor, out: tl.tensor, log_sum: tl.tensor,
    HEADS: tl.constexpr, DIM: tl.constexpr, SIDE: tl.constexpr,
) -> None:  # fmt: skip
    sequence = tl.program_id(0)
    head = tl.program_id(1)
    channel = tl.arange(0, SIDE)
    total = 0.0
    largest = float("-inf")
    added = tl.zeros((SIDE,), tl.float32)
    begin = tl.load(first_run + sequence)
    rows = begin.to(tl.int64) * HEADS + head
    for number in range(tl.load(first_run + sequence + 1) - begin):
        at = rows + number * HEADS
        log = tl.load(partial_log + at)
        larger = tl.maximum(largest, log)
        kept, share = tl.exp(largest - larger), tl.exp(log - larger)
        total = total * kept + share
        piece = tl.load(partial + at * DIM + channel, mask=channel < DIM, other=0.0)
        added = added * kept + piece * share
        largest = larger
    some = tl.where(total > 0, total, 1.0)
    at = sequence.to(tl.int64) * HEADS + head
    tl.store(log_sum + at, largest + tl.log(some))
    tl.store(out + at * DIM + channel, added / some, mask=channel < DIM)


def decode_pages(
    query: torch.Tensor, pages: DevicePages, runs: DeviceRuns, scaling: float, softcap: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """query (S, H, Dk) contiguous -> out (S, H, Dv) and log-sum-exp (S, H), float32.

    A sequence without a run has out 0 and log-sum-exp -inf.
    """
    (_, heads, key_dim), group = query.shape, query.shape[1] // pages.heads
    assert query.is_contiguous() and key_dim == pages.key_dim and heads % pages.heads == 0
    out = query.new_empty(runs.count, heads, pages.value_dim, dtype=torch.float32)
    log_sum = query.new_empty(runs.count, heads, dtype=torch.float32)
    group_side, page_side, key_side, piece_side = map(_side, (group, pages.tokens, pages.key_row, pages.piece))
    exact, widened = query.dtype == torch.float32, query.dtype == torch.float16 and pages.bits
    _decode_kernel[(runs.count, pages.heads)](
        query, pages.keys, pages.values, pages.key_scales, pages.value_scales,
        runs.page, runs.start, runs.stop, runs.first, runs.owner, out, log_sum,
        pages.key_stride, pages.value_stride, pages.scale_stride, scaling, softcap or 1.0,
        HEADS=heads, GROUP=group, GROUP_SIDE=group_side, PAGE=pages.tokens, PAGE_SIDE=page_side,
        KEY_DIM=key_dim, KEY_ROW=pages.key_row, KEY_SIDE=key_side,
        DIM=pages.value_dim, ROW=pages.value_row, VALUE_GROUP=pages.value_group, PIECE=pages.piece,
        PIECE_SIDE=piece_side, BITS=pages.bits, SOFTCAP=softcap is not None,
        TYPE=TYPES[torch.float32 if widened else query.dtype], PRECISION="ieee" if exact else "tf32",
        num_warps=4 if group_side <= 32 else 8, num_stages=2, enable_fp_fusion=True,
    )  # fmt: skip
    return (out, log_sum) if runs.one_each else add_runs(out, log_sum, runs)


def add_runs(partial: torch.Tensor, partial_log: torch.Tensor, runs: DeviceRuns) -> tuple[torch.Tensor, torch.Tensor]:
    """partial (U, H, Dv), its log-sum-exp (U, H) -> the same of sequences, (S, H, Dv) and (S, H)."""
    _, heads, dim = partial.shape
    out, log_sum = partial.new_empty(runs.sequences, heads, dim), partial.new_empty(runs.sequences, heads)
    _combine_kernel[(runs.sequences, heads)](
        partial, partial_log, runs.first_run, out, log_sum, HEADS=heads, DIM=dim, SIDE=_side(dim),
        num_warps=1, enable_fp_fusion=True,
    )  # fmt: skip
    return out, log_sum


def _side(size: int) -> int:
    """The power of two that holds `size`, and that a tensor core takes."""
    return max(LEAST_SIDE, 1 << (size - 1).bit_length())
