/* The blocks of GGUF's types as float32 numbers (windlass/kernels/encodings/gguf.py says what each holds).
 *
 * A function fills `to` with the 32 or 256 numbers of a block. What is said of ggml's layouts is said there once.
 */

#pragma once

#include "sixteen.h"

/* A float16 at any address. */
INLINE float half_at(const uint8_t *at) {
    uint16_t half;
    memcpy(&half, at, 2);
#if HAS_FLOAT16
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(half)));
#else
    uint32_t word = (uint32_t)(half & 0x7fff) << 13, sign = (uint32_t)(half & 0x8000) << 16;
    float size;
    memcpy(&size, &word, 4);
    size *= 0x1p112f; /* what the exponents' biases differ by */
    memcpy(&word, &size, 4);
    word |= sign;
    memcpy(&size, &word, 4);
    return size;
#endif
}
INLINE uint32_t word_at(const uint8_t *at) {
    uint32_t word;
    memcpy(&word, at, 4);
    return word;
}
INLINE wholes codes_at(const uint8_t *at) { return __builtin_convertvector(*(const bytes *)at, wholes); }
INLINE wholes signed_codes_at(const uint8_t *at) { return __builtin_convertvector(*(const signed_bytes *)at, wholes); }
INLINE row floats_of(wholes codes) { return __builtin_convertvector(codes, row); }

/* to = scale * codes + offset, 16 numbers. */
INLINE void affine(float *to, wholes codes, float scale, float offset) { *(row *)to = floats_of(codes) * scale + offset; }

/* Lane i is 1 where bit i of the low 16 is set. */
INLINE wholes bits_of(uint32_t bits) {
    const wholes lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return ((int32_t)(bits & 0xffff) - (wholes){0}) >> lane & 1;
}

/* Each code's number of 16. */
INLINE row of_table(wholes codes, const float *table) {
#if defined(__AVX512F__)
    return (row)_mm512_permutexvar_ps((__m512i)codes, _mm512_loadu_ps(table));
#else
    row result;
    for (int i = 0; i < 16; i++) result[i] = table[codes[i]];
    return result;
#endif
}

/* --- 32 numbers to a block ---------------------------------------------------------------------------------------- */

INLINE void unpack_q4_0(const uint8_t *block, float *to) {
    float scale = half_at(block);
    wholes codes = codes_at(block + 2);
    affine(to, (codes & 15) - 8, scale, 0);
    affine(to + 16, (codes >> 4) - 8, scale, 0);
}
INLINE void unpack_q4_1(const uint8_t *block, float *to) {
    float scale = half_at(block), offset = half_at(block + 2);
    wholes codes = codes_at(block + 4);
    affine(to, codes & 15, scale, offset);
    affine(to + 16, codes >> 4, scale, offset);
}
INLINE void unpack_q5_0(const uint8_t *block, float *to) {
    float scale = half_at(block);
    uint32_t fifth = word_at(block + 2);
    wholes codes = codes_at(block + 6);
    affine(to, ((codes & 15) | bits_of(fifth) << 4) - 16, scale, 0);
    affine(to + 16, (codes >> 4 | bits_of(fifth >> 16) << 4) - 16, scale, 0);
}
INLINE void unpack_q5_1(const uint8_t *block, float *to) {
    float scale = half_at(block), offset = half_at(block + 2);
    uint32_t fifth = word_at(block + 4);
    wholes codes = codes_at(block + 8);
    affine(to, (codes & 15) | bits_of(fifth) << 4, scale, offset);
    affine(to + 16, codes >> 4 | bits_of(fifth >> 16) << 4, scale, offset);
}
INLINE void unpack_q8_0(const uint8_t *block, float *to) {
    float scale = half_at(block);
    affine(to, signed_codes_at(block + 2), scale, 0);
    affine(to + 16, signed_codes_at(block + 18), scale, 0);
}

static const float UNEVEN[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static const float FP4[16] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};

INLINE void unpack_iq4_nl(const uint8_t *block, float *to) {
    float scale = half_at(block);
    wholes codes = codes_at(block + 2);
    *(row *)to = of_table(codes & 15, UNEVEN) * scale;
    *(row *)(to + 16) = of_table(codes >> 4, UNEVEN) * scale;
}
INLINE float power_of_two(uint8_t exponent) {
    uint32_t word = exponent ? (uint32_t)exponent << 23 : 1u << 22; /* 2^-127 has no exponent of its own */
    float result;
    memcpy(&result, &word, 4);
    return result;
}
INLINE void unpack_mxfp4(const uint8_t *block, float *to) {
    float scale = power_of_two(block[0]);
    wholes codes = codes_at(block + 1);
    *(row *)to = of_table(codes & 15, FP4) * scale;
    *(row *)(to + 16) = of_table(codes >> 4, FP4) * scale;
}

/* --- 256 numbers to a block --------------------------------------------------------------------------------------- */

INLINE void unpack_q2_k(const uint8_t *block, float *to) {
    float scale = half_at(block + 80), lowest = half_at(block + 82);
    for (int half = 0; half < 2; half++)
        for (int shift = 0; shift < 8; shift += 2)
            for (int part = 0; part < 2; part++, block++, to += 16) {
                const uint8_t *codes = block - (half * 8 + shift + part) + 16 + half * 32 + part * 16;
                affine(to, codes_at(codes) >> shift & 3, scale * (block[0] & 15), -lowest * (block[0] >> 4));
            }
}
INLINE void unpack_q3_k(const uint8_t *block, float *to) {
    const uint8_t *scales = block + 96;
    float scale = half_at(block + 108);
    for (int group = 0; group < 16; group++, to += 16) {
        int half = group / 8, shift = group % 8 / 2 * 2, part = group % 2 * 16;
        int low = group < 8 ? scales[group] & 15 : scales[group - 8] >> 4;
        int factor = (low | (scales[8 + group % 4] >> (group / 4 * 2) & 3) << 4) - 32;
        wholes third = codes_at(block + part) >> (half * 4 + shift / 2) & 1;
        affine(to, (codes_at(block + 32 + half * 32 + part) >> shift & 3) - 4 + third * 4, scale * (float)factor, 0);
    }
}

/* Scale and minimum of group g of 8, of the 12 bytes that hold both. */
INLINE void factors_of(const uint8_t *scales, int g, int *factor, int *lowest) {
    if (g < 4) {
        *factor = scales[g] & 63;
        *lowest = scales[g + 4] & 63;
    } else {
        *factor = (scales[g + 4] & 15) | scales[g - 4] >> 6 << 4;
        *lowest = scales[g + 4] >> 4 | scales[g] >> 6 << 4;
    }
}
INLINE void unpack_q4_k(const uint8_t *block, float *to) {
    float scale = half_at(block), least = half_at(block + 2);
    for (int g = 0; g < 8; g++, to += 32) {
        int factor, lowest;
        factors_of(block + 4, g, &factor, &lowest);
        for (int part = 0; part < 32; part += 16) {
            wholes codes = codes_at(block + 16 + g / 2 * 32 + part) >> (g % 2 * 4) & 15;
            affine(to + part, codes, scale * (float)factor, -least * (float)lowest);
        }
    }
}
INLINE void unpack_q5_k(const uint8_t *block, float *to) {
    float scale = half_at(block), least = half_at(block + 2);
    for (int g = 0; g < 8; g++, to += 32) {
        int factor, lowest;
        factors_of(block + 4, g, &factor, &lowest);
        for (int part = 0; part < 32; part += 16) {
            wholes codes = codes_at(block + 48 + g / 2 * 32 + part) >> (g % 2 * 4) & 15;
            wholes fifth = codes_at(block + 16 + part) >> g & 1;
            affine(to + part, codes | fifth << 4, scale * (float)factor, -least * (float)lowest);
        }
    }
}
INLINE void unpack_q6_k(const uint8_t *block, float *to) {
    float scale = half_at(block + 208);
    for (int group = 0; group < 16; group++, to += 16) {
        int half = group / 8, quarter = group % 8 / 2, part = group % 2 * 16;
        wholes low = codes_at(block + half * 64 + quarter % 2 * 32 + part) >> (quarter / 2 * 4) & 15;
        wholes high = codes_at(block + 128 + half * 32 + part) >> (quarter * 2) & 3;
        affine(to, (low | high << 4) - 32, scale * (float)(int8_t)block[192 + group], 0);
    }
}
INLINE void unpack_iq4_xs(const uint8_t *block, float *to) {
    float scale = half_at(block);
    uint32_t upper = (uint32_t)block[2] | (uint32_t)block[3] << 8;
    for (int g = 0; g < 8; g++, to += 32) {
        int factor = (int)((block[4 + g / 2] >> (g % 2 * 4) & 15) | (upper >> (2 * g) & 3) << 4) - 32;
        wholes codes = codes_at(block + 8 + g * 16);
        *(row *)to = of_table(codes & 15, UNEVEN) * (scale * (float)factor);
        *(row *)(to + 16) = of_table(codes >> 4, UNEVEN) * (scale * (float)factor);
    }
}
