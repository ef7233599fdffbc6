/* Sixteen numbers at a time, whatever the processor's vectors are: compilers make of them what there is. */

#pragma once

#include "lanes.h"

typedef float row __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t pairs __attribute__((vector_size(64), aligned(4), may_alias)); /* often two bfloat16 to a lane */
typedef int32_t wholes __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t sixteen __attribute__((vector_size(32), aligned(2), may_alias));
typedef uint8_t bytes __attribute__((vector_size(16), aligned(1), may_alias));
typedef int8_t signed_bytes __attribute__((vector_size(16), aligned(1), may_alias));

INLINE int64_t across(int64_t count, int64_t step) { return (count + step - 1) / step; }
INLINE int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }

/* Rounded to the nearest, ties to even; of a kind of 16 bits. */
INLINE sixteen narrow(row value, int kind) {
    sixteen halves = {0};
#if HAS_FLOAT16
    if (kind == FLOAT16) {
        for (int i = 0; i < 2; i++) {
            __m256 eight;
            memcpy(&eight, (const char *)&value + 32 * i, 32);
            _mm_storeu_si128((__m128i *)&halves + i, _mm256_cvtps_ph(eight, 0));
        }
        return halves;
    }
#endif
    pairs word = (pairs)value, rounded = (word + 0x7fffu + (word >> 16 & 1)) >> 16;
    pairs is_number = (pairs)(value == value);
    return __builtin_convertvector((rounded & is_number) | (0x7fc0u & ~is_number), sixteen);
}

/* The first `count` of 16 numbers, as `kind`, at number `at`. */
INLINE void put(void *base, int64_t at, row value, int64_t count, int kind) {
    char *to = (char *)base + at * size_of(kind);
    if (kind == FLOAT32) {
        memcpy(to, &value, (size_t)count * 4);
        return;
    }
    sixteen halves = narrow(value, kind);
    memcpy(to, &halves, (size_t)count * 2);
}
