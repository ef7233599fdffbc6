/* Windlass's own blocks, 16 rows by 64 columns (windlass/kernels/encodings/blocks.py): codes to numbers.
 *
 * A vector has a row of the block in each lane of 32 bits. What is made of the codes are levels, numbers that bfloat16
 * holds exactly, two columns to a lane; a number of the matrix is scale * level + offset of its row in the block.
 * Levels of int8 are 65536 times the code where lanes are converted so, and the scales make up for it.
 */

#pragma once

#include "sixteen.h"

enum { BLOCK_ROWS = 16, BLOCK_COLUMNS = 64, QUADS = BLOCK_COLUMNS / 4 };

#if defined(__AVX512BW__)
#define WIDE_LOOKUP 1
#else
#define WIDE_LOOKUP 0
#endif
#define BYTE_SCALE (1.0f / 65536)

INLINE int64_t code_bytes(int bits) { return bits * BLOCK_ROWS * BLOCK_COLUMNS / 8; }
INLINE int64_t block_bytes(int bits) { return code_bytes(bits) + 4 * BLOCK_ROWS; }

/* The first and the second column of each pair. */
INLINE row first_of(pairs both) { return (row)(both << 16); }
INLINE row second_of(pairs both) { return (row)(both & 0xffff0000u); }

/* What a block has beside its codes. `book` is, for each lane, where the row's codebook begins among all. */
struct ends {
    row scale, offset;
    pairs book;
};

INLINE struct ends ends_of(const uint8_t *block, int bits) {
    const sixteen *halves = (const sixteen *)(block + code_bytes(bits));
    pairs scale = __builtin_convertvector(halves[0], pairs) << 16;
    pairs offset = __builtin_convertvector(halves[1], pairs) << 16;
    struct ends ends = {(row)scale, (row)offset, (offset >> 12 & 0x30) * 0x10001u};
    if (bits == 8) ends.scale *= BYTE_SCALE;
    return ends;
}

/* All codebooks: in registers, or where they lie. */
#if WIDE_LOOKUP
struct books {
    __m512i low, high;
};
INLINE struct books open_books(const uint16_t *books) {
    return (struct books){_mm512_loadu_si512(books), _mm512_loadu_si512(books + 32)};
}
#else
struct books {
    const uint16_t *numbers;
};
INLINE struct books open_books(const uint16_t *books) { return (struct books){books}; }
#endif

/* Columns 4 quad .. 4 quad + 4 of a block: two pairs. */
INLINE void levels_of(const uint8_t *block, int quad, const struct ends *ends, const struct books *books,
                      int bits, pairs *level) {
#if WIDE_LOOKUP
    if (bits == 4) {
        __m512i book = (__m512i)ends->book;
        __m512i codes = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)(block + 32 * quad)));
        __m512i first = _mm512_ternarylogic_epi32(codes, _mm512_set1_epi16(15), book, 0xea); /* codes & 15 | book */
        __m512i second = _mm512_or_si512(_mm512_srli_epi16(codes, 4), book);
        level[0] = (pairs)_mm512_permutex2var_epi16(books->low, first, books->high);
        level[1] = (pairs)_mm512_permutex2var_epi16(books->low, second, books->high);
        return;
    }
    for (int half = 0; half < 2; half++) {
        const __m256i *at = (const __m256i *)(block + 64 * quad + 32 * half);
        pairs codes = (pairs)_mm512_cvtepi8_epi16(_mm256_loadu_si256(at));
        pairs even = (pairs)_mm512_cvtepi32_ps((__m512i)(codes << 16));
        pairs odd = (pairs)_mm512_cvtepi32_ps((__m512i)(codes & 0xffff0000u));
        level[half] = even >> 16 | (odd & 0xffff0000u);
    }
#else
    if (bits == 4) {
        const uint8_t *codes = block + 32 * quad;
        for (int n = 0; n < BLOCK_ROWS; n++) {
            const uint16_t *book = books->numbers + (ends->book[n] & 0x30);
            uint8_t a = codes[2 * n], b = codes[2 * n + 1];
            level[0][n] = book[a & 15] | (uint32_t)book[b & 15] << 16;
            level[1][n] = book[a >> 4] | (uint32_t)book[b >> 4] << 16;
        }
        return;
    }
    for (int half = 0; half < 2; half++) {
        const int8_t *codes = (const int8_t *)block + 64 * quad + 32 * half;
        row even, odd;
        for (int n = 0; n < BLOCK_ROWS; n++) {
            even[n] = (float)codes[2 * n] * 65536.0f;
            odd[n] = (float)codes[2 * n + 1] * 65536.0f;
        }
        level[half] = (pairs)even >> 16 | ((pairs)odd & 0xffff0000u);
    }
#endif
}
