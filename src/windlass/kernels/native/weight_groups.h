/* Groups of weights in the lanes of vectors, 16 rows of a block side by side, and what fitting them needs.
 *
 * Legend: a block is ROWS rows by COLUMNS columns; s, z are scale and offset in units of the group's half range.
 */

#pragma once

#include "lanes.h"

enum { ROWS = 16, COLUMNS = 64, PARTS = ROWS / LANES };

/* What a call is given; windlass/kernels/native/packer.py fills the same fields. */
struct packing {
    const void *weights;     /* (rows, row_step) numbers of `kind`, of which `columns` are packed */
    const float *importance; /* (block columns * 64), zeros where there is no column */
    const float *passing;    /* (block columns, 64, 64): the share of an error that later columns take over, or NULL */
    const float *books;      /* (4, 16), rising */
    const float *starts;     /* int4: shares of the range that a first scale covers; int8: nudges of an offset */
    uint8_t *blocks;
    double *sums; /* two: the weighted squared error of the blocks, and the weighted squares of the weights */
    int64_t kind, rows, columns, row_step, bits, start_count;
    int64_t rounds; /* int4: improvements of the best start; int8: scales looked at */
};

/* One group of each row in the lanes. */
struct group {
    floats w[COLUMNS], y[COLUMNS]; /* as it is; less the middle of the range, over half of it */
    float h[COLUMNS];
    floats middle, half, over_half;
    float total;                        /* of h */
    floats sum_y, mean_y, spread_y; /* weighted by h */
};

struct best {
    floats scale, offset, error;
    words codes[COLUMNS];
};

/* As the instructions have it: b where neither is the lower, or the upper. */
#if defined(__AVX512F__)
INLINE floats lower_of(floats a, floats b) { return (floats)_mm512_min_ps((__m512)a, (__m512)b); }
INLINE floats upper_of(floats a, floats b) { return (floats)_mm512_max_ps((__m512)a, (__m512)b); }
#elif defined(__AVX__)
INLINE floats lower_of(floats a, floats b) { return (floats)_mm256_min_ps((__m256)a, (__m256)b); }
INLINE floats upper_of(floats a, floats b) { return (floats)_mm256_max_ps((__m256)a, (__m256)b); }
#else
INLINE floats lower_of(floats a, floats b) { return pick((words)(a < b), a, b); }
INLINE floats upper_of(floats a, floats b) { return pick((words)(a > b), a, b); }
#endif
INLINE floats magnitude(floats a) { return (floats)((words)a & 0x7fffffffu); }
INLINE floats inverse(floats a) { return pick((words)(a == 0.0f), all(0.0f), 1.0f / a); }

/* To bfloat16, ties to even. */
INLINE floats rounded(floats a) {
    words bits = (words)a;
    return (floats)((bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u);
}

/* The whole number nearest to x that a signed byte holds. */
INLINE floats nearest_byte(floats x, words *code) {
    const float round = 12582912.0f; /* 1.5 * 2^23: adding it leaves the nearest whole number in the low bits */
    floats bounded = lower_of(upper_of(x, all(-128.0f)), all(127.0f)) + round;
    *code = (words)bounded & 0xffu;
    return bounded - round;
}

