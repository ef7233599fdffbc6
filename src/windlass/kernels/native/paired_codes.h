/* Packed pages by paired products of bfloat16 (AVX-512): a code of 4 bits becomes bfloat16 by a look-up, 32 at a time.
 *
 * A vector of 32 words holds 128 codes of 4 bits, the j-th of a word read by a shift of 4 j; a code of 8 bits is two
 * of them, the high one looked up as 16 times its value, so every code is exact. Queries times scales are rounded to
 * bfloat16, and so are weights times scales; zeros join in float32. Word i of a row holds bytes 2 i and 2 i + 1, so
 * queries are laid out as even and odd channels. `rows`, `stride` and `bits` are constants where these are expanded.
 */

#if PAIRED_PRODUCTS && defined(__AVX512VL__)
#define PAIRED_CODES 1

/* Whether the values of a page come in whole blocks of 64 channels that share their scales. */
INLINE int pairs_codes(const struct decode *job, int bits) {
    int64_t row = row_bytes(job->value_dim, bits);
    return job->kind == BFLOAT16 && job->value_group == 64 && row % 64 == 0;
}

/* bfloat16 of 0 .. 15, twice, times 1 or 16. */
INLINE __m512i look_up(int high) {
    uint16_t words[32];
    for (int i = 0; i < 32; i++) {
        float number = (float)(i % 16) * (high ? 16.0f : 1.0f);
        uint32_t word;
        memcpy(&word, &number, 4);
        words[i] = (uint16_t)(word >> 16);
    }
    return _mm512_loadu_si512(words);
}

INLINE __m512bh codes_at(__m512i words, int nibble, __m512i table) {
    return (__m512bh)_mm512_permutexvar_epi16(_mm512_srli_epi16(words, 4 * nibble), table);
}

INLINE __m512i row_words(const uint8_t *row, int64_t left) {
    __mmask64 part = left >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << left) - 1;
    return _mm512_maskz_loadu_epi8(part, row);
}

INLINE int64_t blocks_of(int64_t row) { return (row + 63) / 64; }

/* scaled (G, parts, padded row) float32 -> paired (G, blocks, parts, 2, 32) bfloat16: even channels, then odd ones. */
INLINE void pair_queries(const float *scaled, int64_t group, int64_t row, uint16_t *paired, int bits) {
    uint16_t even[32], odd[32];
    for (int i = 0; i < 32; i++) even[i] = (uint16_t)(2 * i), odd[i] = (uint16_t)(2 * i + 1);
    __m512i evens = _mm512_loadu_si512(even), odds = _mm512_loadu_si512(odd);
    int64_t step = padded(row), parts = parts_of(bits);
    for (int64_t g = 0; g < group * parts; g++)
        for (int64_t block = 0; block < blocks_of(row); block++) {
            __m512 four[4];
            for (int i = 0; i < 4; i++) {
                int64_t at = block * 64 + i * 16;
                four[i] = at < step ? (__m512)load(scaled, g * step + at, FLOAT32) : _mm512_setzero_ps();
            }
            __m512i low = (__m512i)_mm512_cvtne2ps_pbh(four[1], four[0]);
            __m512i high = (__m512i)_mm512_cvtne2ps_pbh(four[3], four[2]);
            uint16_t *to = paired + (((g / parts) * blocks_of(row) + block) * parts + g % parts) * 64;
            _mm512_storeu_si512(to, _mm512_permutex2var_epi16(low, evens, high));
            _mm512_storeu_si512(to + 32, _mm512_permutex2var_epi16(low, odds, high));
        }
}

/* As packed_scores. */
INLINE floats paired_scores(const uint16_t *paired, const uint8_t *const *keys, int64_t row, int rows, int stride,
                            int bits) {
    floats sums[LANES] = {{0}};
    __m512i low = look_up(0), high = look_up(1);
    int64_t parts = parts_of(bits), blocks = blocks_of(row);
    for (int64_t block = 0; block < blocks; block++)
        for (int nibble = 0; nibble < 4; nibble++) {
            /* Nibbles 0 and 1 are of byte 2 i, 2 and 3 of byte 2 i + 1. */
            int64_t at = (bits == 8 ? 0 : nibble % 2) * 2 + nibble / 2;
            __m512bh asked[ROWS];
            for (int r = 0; r < rows; r++)
                asked[r] = (__m512bh)_mm512_loadu_si512(paired + ((r * blocks + block) * parts * 2 + at) * 32);
            for (int k = 0; k < LANES / stride; k++) {
                __m512i words = row_words(keys[k] + block * 64, row - block * 64);
                __m512bh codes = codes_at(words, nibble, bits == 8 && nibble % 2 ? high : low);
                for (int r = 0; r < rows; r++) {
                    floats *sum = sums + k * stride + r;
                    *sum = (floats)_mm512_dpbf16_ps((__m512)*sum, codes, asked[r]);
                }
            }
        }
    return sum_each(sums);
}

/* As scale_weights, to bfloat16: pairs (groups, TILE / 2, stride) of the weights of two tokens side by side. */
INLINE void pair_weights(const float *weights, const uint16_t *scales, int64_t tokens, int64_t groups, int count,
                         uint32_t *pairs, float *offset, int rows, int stride) {
    uint16_t order[16];
    int32_t token[16];
    for (int t = 0; t < 8 / stride; t++)
        for (int r = 0; r < stride; r++) {
            order[2 * (t * stride + r)] = (uint16_t)(2 * t * stride + r);
            order[2 * (t * stride + r) + 1] = (uint16_t)((2 * t + 1) * stride + r);
        }
    for (int i = 0; i < 16; i++) token[i] = i / stride;
    __m256i to_pairs = _mm256_loadu_si256((const __m256i *)order);
    __m512i of_token = _mm512_loadu_si512(token);
    for (int64_t g = 0; g < groups; g++) {
        float scale[TILE + LANES], zero[TILE + LANES], lanes[LANES];
        floats sums = all(0.0f);
        for (int k = 0; k < count + LANES; k += LANES) {
            store(scale + k, halves_of(scales + g * tokens + k, count - k));
            store(zero + k, halves_of(scales + (groups + g) * tokens + k, count - k));
            if (k + LANES >= TILE) break;
        }
        for (int i = 0; i < count * stride; i += LANES) {
            floats weight = load(weights, i, FLOAT32);
            __m512 s = _mm512_permutexvar_ps(of_token, (__m512)load(scale, i / stride, FLOAT32));
            __m512 z = _mm512_permutexvar_ps(of_token, (__m512)load(zero, i / stride, FLOAT32));
            sums += weight * (floats)z;
            __m256i words = (__m256i)_mm512_cvtneps_pbh((__m512)weight * s);
            _mm256_storeu_si256((__m256i *)(pairs + g * (TILE / 2) * stride + i / 2),
                                _mm256_permutexvar_epi16(to_pairs, words));
        }
        store(lanes, sums);
        for (int i = stride; i < LANES; i++) lanes[i % stride] += lanes[i];
        for (int r = 0; r < rows; r++) offset[g * ROWS + r] = lanes[r];
    }
}

/* 64 channels of out = out * shrink + pairs * codes + offset, of nibble `part` of even and odd bytes (4 bits), or of
 * both nibbles (8 bits); `values` is the block's first byte in the row of the tile's first token. */
INLINE void add_paired_block(const uint32_t *pairs, const float *offset, const uint8_t *values, const uint8_t *ahead,
                             int count, int64_t row, float *out, int64_t dim, const float *shrink, int part, int rows,
                             int stride, int bits) {
    floats sums[ROWS][4];
    __m512i low = look_up(0), high = look_up(1);
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < 4; i++) sums[r][i] = all(0.0f);
    for (int k = 0; k < count; k += 2) {
        __m512i first = _mm512_loadu_si512(values + k * row);
        __m512i second = _mm512_loadu_si512(values + (k + 1 < count ? k + 1 : k) * row);
        if (ahead) fetch((const char *)ahead + k * row, 2 * row);
        for (int odd = 0; odd < 2; odd++)
            for (int half = 0; half < (bits == 8 ? 2 : 1); half++) {
                int nibble = 2 * odd + (bits == 8 ? half : part);
                __m512i table = half ? high : low;
                __m512i one = (__m512i)codes_at(first, nibble, table), two = (__m512i)codes_at(second, nibble, table);
                __m512bh near = (__m512bh)_mm512_unpacklo_epi16(one, two);
                __m512bh far = (__m512bh)_mm512_unpackhi_epi16(one, two);
                for (int r = 0; r < rows; r++) {
                    __m512bh weight = (__m512bh)_mm512_set1_epi32((int)pairs[(k / 2) * stride + r]);
                    sums[r][odd] = (floats)_mm512_dpbf16_ps((__m512)sums[r][odd], near, weight);
                    sums[r][2 + odd] = (floats)_mm512_dpbf16_ps((__m512)sums[r][2 + odd], far, weight);
                }
            }
    }
    for (int r = 0; r < rows; r++) {
        /* Lane 4 L + m of sums[r][0] is channel 16 L + 2 m, of [1] the next, of [2] and [3] those 8 further on. */
        __m512 u[4], v[4];
        for (int i = 0; i < 2; i++) {
            u[2 * i] = _mm512_unpacklo_ps((__m512)sums[r][2 * i], (__m512)sums[r][2 * i + 1]);
            u[2 * i + 1] = _mm512_unpackhi_ps((__m512)sums[r][2 * i], (__m512)sums[r][2 * i + 1]);
        }
        __m512 a = _mm512_shuffle_f32x4(u[0], u[1], 0x44), b = _mm512_shuffle_f32x4(u[2], u[3], 0x44);
        __m512 c = _mm512_shuffle_f32x4(u[0], u[1], 0xee), d = _mm512_shuffle_f32x4(u[2], u[3], 0xee);
        v[0] = _mm512_shuffle_f32x4(a, b, 0x88), v[1] = _mm512_shuffle_f32x4(a, b, 0xdd);
        v[2] = _mm512_shuffle_f32x4(c, d, 0x88), v[3] = _mm512_shuffle_f32x4(c, d, 0xdd);
        for (int i = 0; i < 4; i++) {
            float *to = out + r * dim + 16 * i;
            store(to, load(to, 0, FLOAT32) * shrink[r] + ((floats)v[i] + offset[r]));
        }
    }
}

INLINE void add_paired_values(const struct decode *job, const uint32_t *pairs, const float *offset,
                              const uint8_t *values, const uint8_t *ahead, int count, float *out, const float *shrink,
                              int rows, int stride, int bits) {
    int64_t dim = job->value_dim, row = row_bytes(dim, bits);
    for (int64_t b = 0; b < row; b += 64)
        for (int part = 0; part < parts_of(bits); part++) {
            int64_t at = part * row + b, group = at / 64;
            const uint8_t *next = b || part ? NULL : ahead;
            add_paired_block(pairs + group * (TILE / 2) * stride, offset + group * ROWS, values + b, next, count, row,
                             out + at, dim, shrink, part, rows, stride, bits);
        }
}
#else
#define PAIRED_CODES 0
#endif
