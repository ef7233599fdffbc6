/* Sixteen rows of other programs' matrices as levels, a row in each lane: AWQ, GPTQ, compressed-tensors, FP8, MXFP4.
 *
 * number = scale * (code - zero): levels are codes less half their range, which bfloat16 holds, or what a table says of
 * them; what zeros differ from that half becomes an offset. Columns that share a level's scale come in runs of
 * `width`. A vector `word` has in lane n the next 32 bits of row n, the lowest first: GPTQ's words lie so already, rows
 * that lie one after another are turned. What the bytes are is said in windlass/kernels/encodings/{awq,gptq,
 * whole_numbers,fp8,mxfp4}.py; windlass/kernels/native/foreign.py fills `struct foreign`.
 *
 * Included where `struct product` and `struct tile` are known.
 */

#pragma once

#include "gguf_blocks.h"

enum { EXPONENTS = 3 };                              /* a kind of scales: a byte each, 2^(byte - 127) */
enum { NO_ZEROS, BYTE_ZEROS, WORD_ZEROS, AWQ_ZEROS }; /* zeros less half the range, or codes in words along rows */
enum { LOOKED_UP, WHOLE };                           /* what levels are */

/* --- scales and zeros --------------------------------------------------------------------------------------------- */

/* 16 numbers that lie side by side. */
INLINE row numbers_at(const void *at, int64_t kind) {
    row result;
    if (kind == FLOAT32) {
        memcpy(&result, at, sizeof result);
    } else if (kind == BFLOAT16) {
        result = (row)(__builtin_convertvector(*(const sixteen *)at, pairs) << 16);
    } else if (kind == EXPONENTS) {
        pairs exponents = __builtin_convertvector(*(const bytes *)at, pairs);
        result = (row)(exponents << 23 | ((pairs)(exponents == 0) & 1u << 22)); /* 2^-127 has no exponent of its own */
    } else {
#if HAS_FLOAT16
        for (int i = 0; i < 2; i++) {
            __m256 eight = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)at + i));
            memcpy((char *)&result + 32 * i, &eight, 32);
        }
#else
        for (int i = 0; i < 16; i++) result[i] = half_at((const uint8_t *)at + 2 * i);
#endif
    }
    return result;
}

/* Those of rows n .. n + 16 in group g: `row_block` rows share one. */
INLINE row scales_of(const struct foreign *from, int64_t n, int64_t g) {
    int64_t kind = from->scale_kind, size = kind == EXPONENTS ? 1 : kind == FLOAT32 ? 4 : 2, block = from->row_block;
    int64_t down = from->scale_down * size, left = block - n % block;
    const uint8_t *at = (const uint8_t *)from->scales + n / block * down + g * from->scale_across * size;
    if (block == 1 && from->scale_down == 1) return numbers_at(at, kind);
    uint8_t gathered[64];
    for (int i = 0; i < 16; i++) {
        if (size == 1) gathered[i] = *at;
        if (size == 2) memcpy(gathered + 2 * i, at, 2);
        if (size == 4) memcpy(gathered + 4 * i, at, 4);
        if (--left == 0) at += down, left = block;
    }
    return numbers_at(gathered, kind);
}

/* What rows n .. n + 16 of group g are moved by, in scales: half the codes' range less the zero. */
INLINE row moves_of(const struct foreign *from, int64_t n, int64_t g, int bits) {
    const wholes lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    if (from->zero_kind == BYTE_ZEROS) {
        const int8_t *at = (const int8_t *)from->zeros + n * from->zero_down + g * from->zero_across;
        wholes zeros;
        for (int i = 0; i < 16; i++) zeros[i] = at[i * from->zero_down];
        return -floats_of(zeros);
    }
    const uint8_t *at = (const uint8_t *)from->zeros + 4 * g * from->zero_across;
    const int per = 32 / bits, mask = (1 << bits) - 1, all = (int)(n % per);
    pairs words, shifts = (pairs)((lane + all) % per * bits);
    if (from->zero_kind == AWQ_ZEROS) shifts = (pairs)(lane % 2 * 16 + lane / 2 % 4 * 4);
    for (int i = 0; i < 16; i++) words[i] = word_at(at + (n + i) / per * 4 * from->zero_down);
    return floats_of((1 << (bits - 1)) - (wholes)(((words >> shifts) + (uint32_t)from->zero_shift) & (uint32_t)mask));
}

/* Of rows n .. n + 16 and `columns` from k on. Levels of whole numbers of 8 bits are 2^24 times the codes. */
INLINE void fill_factors(const struct foreign *from, struct tile *tile, int64_t n, int side, int64_t k, int64_t columns,
                         int bits, int levels) {
    int64_t g = k / from->group, end = (g + 1) * from->group;
    row scale = {0}, offset = {0};
    for (int64_t run = 0, known = -1; run * from->width < columns; run++, k += from->width) {
        if (k >= end) g++, end += from->group;
        if (g != known) {
            scale = scales_of(from, n, g), known = g;
            if (from->zero_kind) offset = moves_of(from, n, g, bits) * scale;
            if (bits == 8 && levels == WHOLE) scale *= 0x1p-24f;
        }
        tile->scale[run][side] = scale;
        tile->offset[run][side] = offset;
    }
}

/* --- words of codes to levels ------------------------------------------------------------------------------------- */

/* The bfloat16 numbers of codes: of 4 bits in registers where they are looked up there, else where they lie. */
#if WIDE_LOOKUP
struct codebook {
    __m512i part[4];
};
INLINE struct codebook open_codebook(const uint16_t *numbers, int bits) {
    struct codebook book;
    for (int i = 0; i < (bits == 8 ? 4 : 1); i++) book.part[i] = _mm512_loadu_si512(numbers + 32 * i);
    return book;
}
#else
struct codebook {
    const uint16_t *numbers;
};
INLINE struct codebook open_codebook(const uint16_t *numbers, int bits) {
    (void)bits;
    return (struct codebook){numbers};
}
#endif

/* Two whole numbers that bfloat16 holds. */
INLINE pairs both_of(wholes first, wholes second) {
    return (pairs)floats_of(first) >> 16 | ((pairs)floats_of(second) & 0xffff0000u);
}
INLINE pairs looked_up(pairs first, pairs second, const uint16_t *numbers) {
    pairs level;
    for (int n = 0; n < BLOCK_ROWS; n++) level[n] = numbers[first[n]] | (uint32_t)numbers[second[n]] << 16;
    return level;
}

/* Columns 2 i and 2 i + 1 of the eight of a word. */
INLINE pairs nibbles_of(pairs word, int i, const struct codebook *book, int levels) {
#if WIDE_LOOKUP
    const char b = (char)i;
    const __m128i twice = _mm_setr_epi8(b, -1, b, -1, 4 + b, -1, 4 + b, -1, 8 + b, -1, 8 + b, -1, 12 + b, -1, 12 + b, -1);
    __m512i byte = _mm512_shuffle_epi8((__m512i)word, _mm512_broadcast_i32x4(twice));
    __m512i code = _mm512_srlv_epi16(byte, _mm512_set1_epi32(4 << 16));
    (void)levels;
    return (pairs)_mm512_permutexvar_epi16(code, book->part[0]); /* bit 4 of an index does not matter: see foreign.py */
#else
    pairs first = word >> (8 * i) & 15, second = word >> (8 * i + 4) & 15;
    return levels == WHOLE ? both_of((wholes)first - 8, (wholes)second - 8) : looked_up(first, second, book->numbers);
#endif
}

/* Columns 2 i and 2 i + 1 of the four of a word. */
INLINE pairs bytes_of(pairs word, int i, const struct codebook *book, int levels) {
    if (levels == WHOLE) {
        pairs both = i ? word : word << 16;
        return both_of((wholes)(both << 8 & 0xff000000u), (wholes)(both & 0xff000000u));
    }
#if WIDE_LOOKUP
    __m512i codes = two_of((__m512i)word, i), sign = _mm512_slli_epi16(codes, 8);
    __mmask32 large = _mm512_test_epi16_mask(codes, _mm512_set1_epi16(64));
    __m512i low = _mm512_permutex2var_epi16(book->part[0], codes, book->part[1]);
    __m512i high = _mm512_permutex2var_epi16(book->part[2], codes, book->part[3]);
    __m512i size = _mm512_mask_mov_epi16(low, large, high);
    return (pairs)_mm512_ternarylogic_epi32(_mm512_set1_epi16((short)0x8000), sign, size, 0xea); /* mask & sign | size */
#else
    return looked_up(word >> (16 * i) & 255, word >> (16 * i + 8) & 255, book->numbers);
#endif
}

/* 32 / bits columns from column c of the tile on. */
INLINE void set_word(const struct foreign *from, struct tile *tile, int64_t c, int side, pairs word,
                     const struct codebook *book, int bits, int levels) {
    pairs(*level)[SIDE] = tile->level + c / 2;
    if (bits == 8 && levels == WHOLE) word ^= (uint32_t)from->flipped;
    for (int i = 0; i < 16 / bits; i++)
        level[i][side] = bits == 4 ? nibbles_of(word, i, book, levels) : bytes_of(word, i, book, levels);
}

/* --- how rows and columns lie ------------------------------------------------------------------------------------- */

/* Rows one after another, columns side by side: words[j] has bytes 4 j .. 4 j + 4 of each row's 16. */
INLINE void turn_rows(const uint8_t *at, int64_t step, pairs *words) {
#if WIDE_LOOKUP
    turn(at, step, (__m512i *)words);
#else
    for (int n = 0; n < BLOCK_ROWS; n++)
        for (int j = 0; j < 4; j++) words[j][n] = word_at(at + n * step + 4 * j);
#endif
}
INLINE void fill_along(const struct product *job, struct tile *tile, int64_t n, int side, int64_t k, int64_t columns,
                       int bits, int levels) {
    int64_t step = job->columns * bits / 8, size = columns * bits / 8;
    const uint8_t *at = job->blocks + n * step + k * bits / 8;
    struct codebook book = open_codebook(job->books, bits);
    for (int i = 0; i < BLOCK_ROWS; i++)
        for (int64_t line = 0; line < size; line += 64) __builtin_prefetch(at + i * step + 2 * size + line, 0, 3);
    for (int64_t i = 0; i < size; i += 16) {
        pairs words[4];
        turn_rows(at + i, step, words);
        for (int j = 0; j < 4; j++) set_word(&job->foreign, tile, (i + 4 * j) * 8 / bits, side, words[j], &book, bits, levels);
    }
}

/* A code of each of two words, from bit `at` of the first and `then` of the second on. */
INLINE pairs codes_of(pairs first, int at, pairs second, int then, const struct codebook *book, int bits,
                      uint32_t flipped) {
    if (bits == 8) {
        const uint32_t top = 0xff000000u;
        return both_of((wholes)((first ^ flipped) << (24 - at) & top), (wholes)((second ^ flipped) << (24 - then) & top));
    }
#if WIDE_LOOKUP
    pairs codes = (first >> at & 0xffff) | second >> then << 16;
    return (pairs)_mm512_permutexvar_epi16((__m512i)codes, book->part[0]);
#else
    (void)book;
    return both_of((wholes)(first >> at & 15) - 8, (wholes)(second >> then & 15) - 8);
#endif
}
/* Words of columns one below the other, rows side by side; columns in the order of their groups, as x is laid. Words are
 * copied for a start: eight columns far from each other want the same. */
INLINE void fill_in_order(const struct product *job, struct tile *tile, int64_t n, int side, int64_t k, int64_t columns,
                          int bits) {
    const int32_t *order = job->foreign.order + k, per = 32 / bits;
    int64_t step = 4 * job->outputs;
    pairs *words = (pairs *)tile->words + side * job->columns / per;
    struct codebook book = open_codebook(job->books, bits);
    if (k == 0)
        for (int64_t i = 0; i < job->columns / per; i++) {
            __builtin_prefetch(job->blocks + (i + 16) * step + 4 * n, 0, 3);
            memcpy(words + i, job->blocks + i * step + 4 * n, sizeof *words);
        }
    for (int64_t c = 0; c < columns; c += 2)
        tile->level[c / 2][side] = codes_of(words[order[c] / per], order[c] % per * bits, words[order[c + 1] / per],
                                            order[c + 1] % per * bits, &book, bits, (uint32_t)job->foreign.flipped);
}

/* The same, columns as they lie unless they have an order. */
INLINE void fill_down(const struct product *job, struct tile *tile, int64_t n, int side, int64_t k, int64_t columns,
                      int bits) {
    int64_t step = 4 * job->outputs, per = 32 / bits, ahead = DEEP * BLOCK_COLUMNS / per * step;
    const uint8_t *at = job->blocks + k / per * step + 4 * n;
    struct codebook book = open_codebook(job->books, bits);
    if (job->foreign.order) {
        fill_in_order(job, tile, n, side, k, columns, bits);
        return;
    }
    for (int64_t c = 0; c < columns; c += per, at += step) {
        pairs word;
        memcpy(&word, at, sizeof word);
        __builtin_prefetch(at + ahead, 0, 3);
        set_word(&job->foreign, tile, c, side, word, &book, bits, WHOLE);
    }
}

#define AWQ_PLACES(word) word, word + 4, word + 1, word + 5
#define AWQ_SHIFTS 0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12
/* A word has eight rows of a column: lane n of a pair wants bits 16 (n % 2) + 4 (n / 2 % 4) of word n / 8. */
INLINE pairs awq_pair(const uint8_t *first, const uint8_t *second, const struct codebook *book) {
#if WIDE_LOOKUP
    /* Which of the words of 16 bits of both columns, and how far in it. */
    static const uint16_t place[32] = {FOUR_OF(AWQ_PLACES(0)), FOUR_OF(AWQ_PLACES(2))};
    static const uint16_t shift[32] = {AWQ_SHIFTS, AWQ_SHIFTS};
    __m128i both = _mm_unpacklo_epi64(_mm_loadl_epi64((const __m128i *)first), _mm_loadl_epi64((const __m128i *)second));
    __m512i spread = _mm512_permutexvar_epi16(_mm512_loadu_si512(place), _mm512_castsi128_si512(both));
    __m512i code = _mm512_srlv_epi16(spread, _mm512_loadu_si512(shift));
    return (pairs)_mm512_permutexvar_epi16(code, book->part[0]);
#else
    const wholes lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    pairs shifts = (pairs)(lane % 2 * 16 + lane / 2 % 4 * 4), lower = (pairs)(lane < 8), code[2];
    const uint8_t *columns[2] = {first, second};
    (void)book;
    for (int i = 0; i < 2; i++)
        code[i] = ((word_at(columns[i]) & lower) | (word_at(columns[i] + 4) & ~lower)) >> shifts & 15;
    return both_of((wholes)code[0] - 8, (wholes)code[1] - 8);
#endif
}

/* Lines of AWQ_LINE rows, one a column, are copied when the first of their rows is wanted: they lie so far apart that
 * they would drive each other from the cache before the last is. */
INLINE void copy_lines(struct tile *tile, const uint8_t *at, int64_t step, int64_t columns, int64_t left) {
    if (tile->held == at) return;
    tile->held = at;
    for (int64_t c = 0; c < columns; c++, at += step) {
        __builtin_prefetch(at + DEEP * BLOCK_COLUMNS * step, 0, 2);
        if (left >= AWQ_LINE / 2) memcpy(tile->lines[c], at, AWQ_LINE / 2);
        else memcpy(tile->lines[c], at, (size_t)left);
    }
}
INLINE void fill_words_of_rows(const struct product *job, struct tile *tile, int64_t n, int side, int64_t k,
                               int64_t columns) {
    int64_t step = job->outputs / 2, in_line = n % AWQ_LINE / 2, line = n / 2 - in_line;
    if (in_line > (AWQ_LINE - BLOCK_ROWS) / 2) line += in_line, in_line = 0; /* the last rows may lie in two lines */
    struct codebook book = open_codebook(job->books, 4);
    copy_lines(tile, job->blocks + k * step + line, step, columns, step - line);
    for (int64_t c = 0; c < columns; c += 2)
        tile->level[c / 2][side] = awq_pair(tile->lines[c] + in_line, tile->lines[c + 1] + in_line, &book);
}
