/* Numbers in the lanes of a vector register: loading them as float32, sums, exponentials, hyperbolic tangents.
 *
 * The width is the processor's; `kind` is a constant wherever these are expanded.
 */

#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX__)
#include <immintrin.h>
#endif

#define EXPORT __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#if defined(__AVX512BF16__) && defined(__AVX512BW__)
#define PAIRED_PRODUCTS 1
#else
#define PAIRED_PRODUCTS 0
#endif
#if defined(__F16C__)
#define HAS_FLOAT16 1
#else
#define HAS_FLOAT16 0
#endif

enum { FLOAT32 = 0, BFLOAT16 = 1, FLOAT16 = 2 };

typedef float floats __attribute__((vector_size(LANES * 4)));
typedef uint32_t words __attribute__((vector_size(LANES * 4)));
typedef uint16_t halves __attribute__((vector_size(LANES * 2)));

INLINE int64_t size_of(int kind) { return kind == FLOAT32 ? 4 : 2; }

INLINE float widen(const void *base, int64_t at, int kind) {
    if (kind == FLOAT32) return ((const float *)base)[at];
    uint16_t half = ((const uint16_t *)base)[at];
#if HAS_FLOAT16
    if (kind == FLOAT16) return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(half)));
#endif
    uint32_t word = (uint32_t)half << 16;
    float result;
    memcpy(&result, &word, 4);
    return result;
}

/* LANES numbers from `at` on, as float32. */
INLINE floats load(const void *base, int64_t at, int kind) {
    const char *from = (const char *)base + at * size_of(kind);
    if (kind == FLOAT32) {
        floats result;
        memcpy(&result, from, sizeof result);
        return result;
    }
#if HAS_FLOAT16 && LANES == 16
    if (kind == FLOAT16) return (floats)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
#elif HAS_FLOAT16
    if (kind == FLOAT16) return (floats)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
#endif
    halves narrow;
    memcpy(&narrow, from, sizeof narrow);
    return (floats)(__builtin_convertvector(narrow, words) << 16);
}

/* The last `count` numbers of a row, and zeros. */
INLINE floats load_end(const void *base, int64_t at, int64_t count, int kind) {
    float lanes[LANES] = {0};
    for (int64_t i = 0; i < count; i++) lanes[i] = widen(base, at + i, kind);
    return load(lanes, 0, FLOAT32);
}

INLINE void store(float *to, floats from) { memcpy(to, &from, sizeof from); }
INLINE floats all(float value) { return value - (floats){0}; }
INLINE floats pick(words mask, floats yes, floats no) { return (floats)(((words)yes & mask) | ((words)no & ~mask)); }

/* Lane i of the result is the sum of all lanes of sums[i]: a transposition that adds on its way. */
INLINE floats sum_each(const floats *sums) {
#if defined(__AVX512F__)
    __m512 two[8], four[4], eight[2];
    for (int i = 0; i < 8; i++) {
        __m512 a = (__m512)sums[2 * i], b = (__m512)sums[2 * i + 1];
        two[i] = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    }
    for (int i = 0; i < 4; i++) {
        __m512d a = _mm512_castps_pd(two[2 * i]), b = _mm512_castps_pd(two[2 * i + 1]);
        __m512d low = _mm512_unpacklo_pd(a, b), high = _mm512_unpackhi_pd(a, b);
        four[i] = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
    }
    for (int i = 0; i < 2; i++) {
        __m512 a = four[2 * i], b = four[2 * i + 1];
        eight[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    }
    __m512 even = _mm512_shuffle_f32x4(eight[0], eight[1], 0x88), odd = _mm512_shuffle_f32x4(eight[0], eight[1], 0xdd);
    return (floats)_mm512_add_ps(even, odd);
#elif defined(__AVX__)
    __m256 four[2];
    for (int i = 0; i < 2; i++) {
        __m256 a = _mm256_hadd_ps((__m256)sums[4 * i], (__m256)sums[4 * i + 1]);
        __m256 b = _mm256_hadd_ps((__m256)sums[4 * i + 2], (__m256)sums[4 * i + 3]);
        four[i] = _mm256_hadd_ps(a, b);
    }
    __m256 low = _mm256_permute2f128_ps(four[0], four[1], 0x20), high = _mm256_permute2f128_ps(four[0], four[1], 0x31);
    return (floats)_mm256_add_ps(low, high);
#else
    floats result;
    for (int i = 0; i < LANES; i++) result[i] = (sums[i][0] + sums[i][1]) + (sums[i][2] + sums[i][3]);
    return result;
#endif
}

/* e^x for x <= 88, to 2 units in the last place: x = n ln 2 + r with |r| <= ln 2 / 2, and Taylor's series of e^r. */
INLINE floats exponential(floats x) {
    const float round = 12582912.0f; /* 1.5 * 2^23: adding it leaves the nearest whole number in the low bits */
    floats shifted = x * 1.44269504f + round;
    floats n = shifted - round;
    floats r = x - n * 0.693359375f + n * 2.12194440e-4f; /* ln 2 in two parts, the first exact in any product */
    floats sum = r * (1.0f / 5040) + 1.0f / 720;
    sum = sum * r + 1.0f / 120;
    sum = sum * r + 1.0f / 24;
    sum = sum * r + 1.0f / 6;
    sum = sum * r + 0.5f;
    sum = sum * r + 1.0f;
    sum = sum * r + 1.0f;
    floats power = (floats)(((words)shifted << 23) + 0x3f800000u);
    return pick((words)(x < -87.0f), all(0.0f), sum * power);
}

/* tanh x: a polynomial fitted to (tanh x / x - 1) / x^2 for small x, by exponentials for others. */
INLINE floats hyperbolic_tangent(floats x) {
    const words sign = (words)all(-0.0f);
    floats size = (floats)((words)x & ~sign);
    floats z = size * size;
    floats sum = z * 0.0022958184f - 0.00834695593f;
    sum = sum * z + 0.0217699513f;
    sum = sum * z - 0.0539594043f;
    sum = sum * z + 0.133333043f;
    sum = sum * z - 0.333333332f;
    floats low = size + size * (z * sum);
    floats bounded = pick((words)(size > 20.0f), all(20.0f), size);
    floats high = 1.0f - 2.0f / (exponential(bounded + bounded) + 1.0f);
    return (floats)((words)pick((words)(size < 0.625f), low, high) | ((words)x & sign));
}

INLINE float larger(float a, float b) { return a > b ? a : b; }

/* Into the second cache: the first has too few places for what is under way, and the tile at hand is there. */
INLINE void fetch(const char *at, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(at + i, 0, 2);
}

/* Bit k is set where numbers of kind k can be read. */
EXPORT int windlass_kinds(void) { return 1 << FLOAT32 | 1 << BFLOAT16 | HAS_FLOAT16 << FLOAT16; }

/* How numbers are multiplied, for people. */
EXPORT const char *windlass_instructions(void) {
#if PAIRED_PRODUCTS
    return "AVX-512 bf16";
#elif defined(__AVX512F__)
    return "AVX-512";
#elif defined(__AVX__)
    return "AVX";
#else
    return "vectors of 4";
#endif
}
