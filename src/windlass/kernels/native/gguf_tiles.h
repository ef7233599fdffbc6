/* Sixteen rows of GGUF's blocks as levels, a row in each lane: what a product multiplies (AVX-512 only).
 *
 * Bytes of 16 rows are turned so that a lane holds four bytes of its row, and these become two pairs of levels, whole
 * numbers that bfloat16 holds. Groups of 16 or 32 columns share a scale and an offset: number = scale * level + offset,
 * with a float32 scale, so nothing is rounded. windlass/kernels/encodings/gguf.py says what the bytes are.
 *
 * A lookup takes as many low bits of an index as its table has entries, and a shorter table is repeated: so what lies
 * above a code need not be cut off.
 */

#pragma once

#include "gguf_blocks.h"

/* Where 16 rows of blocks begin, how far one is from the next, and what is made of them. */
struct rows_of {
    const uint8_t *at;
    int64_t step;
    pairs *level; /* of pair k in level[k * side] */
    row *scale, *offset;
    int side;
};

/* Lane n of turned[j] has bytes 4 j .. 4 j + 4 of the 16 that begin at `at` + n * step. */
INLINE void turn(const uint8_t *at, int64_t step, __m512i *turned) {
    __m512i four[4];
    for (int i = 0; i < 4; i++) {
        const uint8_t *from = at + i * step;
        four[i] = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)from));
        four[i] = _mm512_inserti32x4(four[i], _mm_loadu_si128((const __m128i *)(from + 4 * step)), 1);
        four[i] = _mm512_inserti32x4(four[i], _mm_loadu_si128((const __m128i *)(from + 8 * step)), 2);
        four[i] = _mm512_inserti32x4(four[i], _mm_loadu_si128((const __m128i *)(from + 12 * step)), 3);
    }
    __m512i a = _mm512_unpacklo_epi32(four[0], four[1]), b = _mm512_unpackhi_epi32(four[0], four[1]);
    __m512i c = _mm512_unpacklo_epi32(four[2], four[3]), d = _mm512_unpackhi_epi32(four[2], four[3]);
    turned[0] = _mm512_unpacklo_epi64(a, c), turned[1] = _mm512_unpackhi_epi64(a, c);
    turned[2] = _mm512_unpacklo_epi64(b, d), turned[3] = _mm512_unpackhi_epi64(b, d);
}

/* The float16 at `at` of each row. */
INLINE row halves_of(const uint8_t *at, int64_t step) {
    uint16_t halves[16];
    for (int n = 0; n < 16; n++) memcpy(halves + n, at + n * step, 2);
    return (row)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)halves));
}
INLINE row half_of(__m512i words, int high) {
    __m512i half = high ? _mm512_srli_epi32(words, 16) : words;
    return (row)_mm512_cvtph_ps(_mm512_cvtepi32_epi16(half));
}
INLINE row float_of(__m512i codes) { return (row)_mm512_cvtepi32_ps(codes); }
/* `count` bits from bit `at` on. */
INLINE __m512i field(__m512i words, int at, int count) {
    return _mm512_and_si512(_mm512_srli_epi32(words, (unsigned)at), _mm512_set1_epi32((1 << count) - 1));
}

/* The first or the last two bytes of each lane as words. */
INLINE __m512i two_of(__m512i four, int last) {
    const __m128i low = _mm_setr_epi8(0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1);
    const __m128i high = _mm_setr_epi8(2, -1, 3, -1, 6, -1, 7, -1, 10, -1, 11, -1, 14, -1, 15, -1);
    return _mm512_shuffle_epi8(four, _mm512_broadcast_i32x4(last ? high : low));
}
INLINE __m512i shifted(__m512i words, int right) {
    return right >= 0 ? _mm512_srli_epi16(words, (unsigned)right) : _mm512_slli_epi16(words, (unsigned)-right);
}
/* Bits of `low` where the mask has them, else of `high`. */
INLINE __m512i joined(int mask, __m512i low, __m512i high) {
    return _mm512_ternarylogic_epi32(_mm512_set1_epi16((short)mask), low, high, 0xca);
}

/* 64 numbers as bfloat16. */
struct levels {
    uint16_t of[64] __attribute__((aligned(64)));
};
/* A whole number of at most 8 bits as bfloat16. */
#define SIZE(n) ((n) < 0 ? -(n) : (n))
#define TOP(n) (SIZE(n) > 63 ? 6 : SIZE(n) > 31 ? 5 : SIZE(n) > 15 ? 4 : SIZE(n) > 7 ? 3 : SIZE(n) > 3 ? 2 : SIZE(n) > 1)
#define B(n) ((n) == 0 ? 0 : ((n) < 0 ? 0x8000 : 0) | (127 + TOP(n)) << 7 | (SIZE(n) << (7 - TOP(n)) & 127))

INLINE __m512i level_of(const struct levels *levels, __m512i codes) {
    return _mm512_permutexvar_epi16(codes, _mm512_load_si512(levels->of));
}
INLINE __m512i level_of_64(const struct levels *levels, __m512i codes) {
    return _mm512_permutex2var_epi16(_mm512_load_si512(levels->of), codes, _mm512_load_si512(levels->of + 32));
}

INLINE void set_level(const struct rows_of *to, int pair, __m512i level) { to->level[pair * to->side] = (pairs)level; }
INLINE void set_scale(const struct rows_of *to, int group, row scale) { to->scale[group * to->side] = scale; }
INLINE void set_offset(const struct rows_of *to, int group, row offset) { to->offset[group * to->side] = offset; }

/* 16 bytes of a row: columns c .. c + 16 in the low halves, 16 columns from `other` on in the high ones. */
INLINE void nibbles(const struct rows_of *to, int64_t at, int c, int other, const struct levels *levels) {
    __m512i turned[4];
    turn(to->at + at, to->step, turned);
    for (int i = 0; i < 8; i++) {
        __m512i codes = two_of(turned[i / 2], i % 2);
        set_level(to, c / 2 + i, level_of(levels, codes));
        set_level(to, other / 2 + i, level_of(levels, shifted(codes, 4)));
    }
}
/* As `nibbles` of a block of 32 whose fifth bits are the word at byte `fifth`. */
INLINE void nibbles_and_bits(const struct rows_of *to, int64_t at, int64_t fifth, const struct levels *levels) {
    __m512i turned[4], bits[4];
    turn(to->at + at, to->step, turned);
    turn(to->at + fifth, to->step, bits);
    for (int i = 0; i < 16; i++) {
        __m512i codes = shifted(two_of(turned[i % 8 / 2], i % 2), i / 8 * 4);
        __m512i even = _mm512_rolv_epi32(bits[0], _mm512_set1_epi32((36 - 2 * i) % 32));
        __m512i odd = _mm512_rolv_epi32(bits[0], _mm512_set1_epi32((51 - 2 * i) % 32));
        __m512i fifths = _mm512_ternarylogic_epi32(_mm512_set1_epi32(0xffff), even, odd, 0xca);
        set_level(to, i, level_of(levels, joined(15, codes, fifths)));
    }
}

#define ROW8(a) B(a), B(a + 1), B(a + 2), B(a + 3), B(a + 4), B(a + 5), B(a + 6), B(a + 7)
#define ROW16(a) ROW8(a), ROW8(a + 8)
#define ROW32(a) ROW16(a), ROW16(a + 16)
#define ROW64(a) ROW32(a), ROW32(a + 32)
#define ROW4(a) B(a), B(a + 1), B(a + 2), B(a + 3)
#define FOUR_OF(row) row, row, row, row
static const struct levels up_to_3 = {{FOUR_OF(ROW4(0)), FOUR_OF(ROW4(0))}};
static const struct levels from_minus_4 = {{FOUR_OF(ROW8(-4))}};
static const struct levels up_to_15 = {{ROW16(0), ROW16(0)}};
static const struct levels from_minus_8 = {{ROW16(-8), ROW16(-8)}};
static const struct levels up_to_31 = {{ROW32(0)}};
static const struct levels from_minus_16 = {{ROW32(-16)}};
static const struct levels from_minus_32 = {{ROW64(-32)}};
#define UNEVEN16 B(-127), B(-104), B(-83), B(-65), B(-49), B(-35), B(-22), B(-10), B(1), B(13), B(25), B(38), B(53), \
                 B(69), B(89), B(113)
#define TWICE_FP4 B(0), B(1), B(2), B(3), B(4), B(6), B(8), B(12), B(0), B(-1), B(-2), B(-3), B(-4), B(-6), B(-8), B(-12)
static const struct levels uneven = {{UNEVEN16, UNEVEN16}};
static const struct levels fp4 = {{TWICE_FP4, TWICE_FP4}};

/* --- 32 columns to a block, one group ----------------------------------------------------------------------------- */

INLINE void tile_q4_0(const struct rows_of *to) {
    set_scale(to, 0, halves_of(to->at, to->step));
    nibbles(to, 2, 0, 16, &from_minus_8);
}
INLINE void tile_q4_1(const struct rows_of *to) {
    set_scale(to, 0, halves_of(to->at, to->step));
    set_offset(to, 0, halves_of(to->at + 2, to->step));
    nibbles(to, 4, 0, 16, &up_to_15);
}
INLINE void tile_q5_0(const struct rows_of *to) {
    set_scale(to, 0, halves_of(to->at, to->step));
    nibbles_and_bits(to, 6, 2, &from_minus_16);
}
INLINE void tile_q5_1(const struct rows_of *to) {
    set_scale(to, 0, halves_of(to->at, to->step));
    set_offset(to, 0, halves_of(to->at + 2, to->step));
    nibbles_and_bits(to, 8, 4, &up_to_31);
}
/* Levels are 2^24 times the codes, as they are converted. */
INLINE void tile_q8_0(const struct rows_of *to) {
    const __m512i top = _mm512_set1_epi32((int)0xff000000);
    set_scale(to, 0, halves_of(to->at, to->step) * 0x1p-24f);
    for (int part = 0; part < 2; part++) {
        __m512i turned[4];
        turn(to->at + 2 + 16 * part, to->step, turned);
        for (int i = 0; i < 8; i++) {
            __m512i both = i % 2 ? turned[i / 2] : _mm512_slli_epi32(turned[i / 2], 16);
            __m512i even = (__m512i)float_of(_mm512_and_si512(_mm512_slli_epi32(both, 8), top));
            __m512i odd = (__m512i)float_of(_mm512_and_si512(both, top));
            set_level(to, 8 * part + i, _mm512_or_si512(_mm512_srli_epi32(even, 16), odd));
        }
    }
}
INLINE void tile_iq4_nl(const struct rows_of *to) {
    set_scale(to, 0, halves_of(to->at, to->step));
    nibbles(to, 2, 0, 16, &uneven);
}
INLINE void tile_mxfp4(const struct rows_of *to) {
    row scale;
    for (int n = 0; n < 16; n++) scale[n] = power_of_two(to->at[n * to->step]);
    set_scale(to, 0, scale * 0.5f);
    nibbles(to, 1, 0, 16, &fp4);
}

/* --- 256 columns to a block --------------------------------------------------------------------------------------- */

INLINE void tile_q2_k(const struct rows_of *to) {
    row scale = halves_of(to->at + 80, to->step), least = halves_of(to->at + 82, to->step);
    __m512i both[4], codes[4];
    turn(to->at, to->step, both);
    for (int g = 0; g < 16; g++) {
        set_scale(to, g, scale * float_of(field(both[g / 4], g % 4 * 8, 4)));
        set_offset(to, g, -least * float_of(field(both[g / 4], g % 4 * 8 + 4, 4)));
    }
    for (int run = 0; run < 4; run++) { /* half of the block, and half of its 32 bytes */
        turn(to->at + 16 + run * 16, to->step, codes);
        for (int quarter = 0; quarter < 4; quarter++)
            for (int i = 0; i < 8; i++) {
                __m512i code = shifted(two_of(codes[i / 2], i % 2), quarter * 2);
                set_level(to, run / 2 * 64 + quarter * 16 + run % 2 * 8 + i, level_of(&up_to_3, code));
            }
    }
}
INLINE void tile_q3_k(const struct rows_of *to) {
    row scale = halves_of(to->at + 108, to->step);
    __m512i factors[4], codes[4], thirds[4];
    turn(to->at + 92, to->step, factors); /* the last three are the 12 bytes */
    for (int g = 0; g < 16; g++) {
        __m512i low = field(factors[1 + g / 4 % 2], g % 4 * 8 + g / 8 * 4, 4);
        __m512i high = field(factors[3], g % 4 * 8 + g / 4 * 2, 2);
        __m512i factor = _mm512_or_si512(low, _mm512_slli_epi32(high, 4));
        set_scale(to, g, scale * float_of(_mm512_sub_epi32(factor, _mm512_set1_epi32(32))));
    }
    for (int run = 0; run < 4; run++) {
        turn(to->at + 32 + run * 16, to->step, codes);
        turn(to->at + run % 2 * 16, to->step, thirds);
        for (int quarter = 0; quarter < 4; quarter++)
            for (int i = 0; i < 8; i++) {
                __m512i low = shifted(two_of(codes[i / 2], i % 2), quarter * 2);
                __m512i third = shifted(two_of(thirds[i / 2], i % 2), run / 2 * 4 + quarter - 2);
                __m512i level = level_of(&from_minus_4, joined(3, low, third));
                set_level(to, run / 2 * 64 + quarter * 16 + run % 2 * 8 + i, level);
            }
    }
}

/* Scales and offsets of Q4_K and Q5_K, of the first 16 bytes. */
INLINE void factors_of_k(const struct rows_of *to) {
    __m512i head[4];
    turn(to->at, to->step, head);
    row scale = half_of(head[0], 0), least = half_of(head[0], 1);
    for (int g = 0; g < 4; g++) {
        int at = g * 8;
        set_scale(to, g, scale * float_of(field(head[1], at, 6)));
        set_offset(to, g, -least * float_of(field(head[2], at, 6)));
        __m512i factor = _mm512_slli_epi32(field(head[1], at + 6, 2), 4);
        __m512i lowest = _mm512_slli_epi32(field(head[2], at + 6, 2), 4);
        set_scale(to, g + 4, scale * float_of(_mm512_or_si512(factor, field(head[3], at, 4))));
        set_offset(to, g + 4, -least * float_of(_mm512_or_si512(lowest, field(head[3], at + 4, 4))));
    }
}
INLINE void tile_q4_k(const struct rows_of *to) {
    factors_of_k(to);
    for (int run = 0; run < 8; run++) {
        int c = run / 2 * 64 + run % 2 * 16;
        nibbles(to, 16 + run * 16, c, c + 32, &up_to_15);
    }
}
INLINE void tile_q5_k(const struct rows_of *to) {
    factors_of_k(to);
    for (int part = 0; part < 2; part++) {
        __m512i fifths[4], codes[4];
        turn(to->at + 16 + part * 16, to->step, fifths);
        for (int quarter = 0; quarter < 4; quarter++) {
            turn(to->at + 48 + quarter * 32 + part * 16, to->step, codes);
            for (int i = 0; i < 8; i++)
                for (int half = 0; half < 2; half++) {
                    __m512i low = shifted(two_of(codes[i / 2], i % 2), half * 4);
                    __m512i fifth = shifted(two_of(fifths[i / 2], i % 2), quarter * 2 + half - 4);
                    __m512i level = level_of(&up_to_31, joined(15, low, fifth));
                    set_level(to, quarter * 32 + half * 16 + part * 8 + i, level);
                }
        }
    }
}
INLINE void tile_q6_k(const struct rows_of *to) {
    row scale = halves_of(to->at + 208, to->step);
    __m512i factors[4], highs[4], codes[4];
    turn(to->at + 192, to->step, factors);
    for (int g = 0; g < 16; g++) {
        __m512i factor = _mm512_srai_epi32(_mm512_slli_epi32(factors[g / 4], (unsigned)(24 - g % 4 * 8)), 24);
        set_scale(to, g, scale * float_of(factor));
    }
    for (int half = 0; half < 2; half++)
        for (int part = 0; part < 2; part++) {
            turn(to->at + 128 + half * 32 + part * 16, to->step, highs);
            for (int odd = 0; odd < 2; odd++) { /* quarters odd and odd + 2 share their bytes */
                turn(to->at + half * 64 + odd * 32 + part * 16, to->step, codes);
                for (int quarter = odd; quarter < 4; quarter += 2)
                    for (int i = 0; i < 8; i++) {
                        __m512i low = shifted(two_of(codes[i / 2], i % 2), quarter / 2 * 4);
                        __m512i high = shifted(two_of(highs[i / 2], i % 2), quarter * 2 - 4);
                        __m512i level = level_of_64(&from_minus_32, joined(15, low, high));
                        set_level(to, half * 64 + quarter * 16 + part * 8 + i, level);
                    }
            }
        }
}
INLINE void tile_iq4_xs(const struct rows_of *to) {
    __m512i head[4];
    turn(to->at, to->step, head);
    row scale = half_of(head[0], 0);
    for (int g = 0; g < 8; g++) {
        __m512i factor = _mm512_or_si512(field(head[1], g * 4, 4), _mm512_slli_epi32(field(head[0], 16 + g * 2, 2), 4));
        set_scale(to, g, scale * float_of(_mm512_sub_epi32(factor, _mm512_set1_epi32(32))));
        nibbles(to, 8 + g * 16, g * 32, g * 32 + 16, &uneven);
    }
}
