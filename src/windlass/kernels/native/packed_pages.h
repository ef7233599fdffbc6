/* Decode attention over packed pages: codes are multiplied as they lie, scales and zeros join query and weights.
 *
 * A score is sum_d q_d (s_d c_kd + z_d) = sum_d (q_d s_d) c_kd + q z: the scales of a page's channels are multiplied
 * into the query once a page, so a key costs a conversion and a product a code. A result is sum_k w_k (s_kg c_kd +
 * z_kg): the scales of tokens are multiplied into the weights, once a group of channels.
 *
 * Codes of 4 bits lie in two parts, the low and the high halves of a row of bytes; codes of 8 bits in one. The layout
 * of a page is that of windlass/facts/packed_page.py. Included by decode_attention.c, whose tile, rows and online
 * softmax these are. `bits` is a constant where these are expanded, like `rows` and `stride`.
 */

typedef uint8_t bytes __attribute__((vector_size(LANES)));
typedef int32_t ints __attribute__((vector_size(LANES * 4)));

enum { VALUE_GROUPS = 16 }; /* more groups of a value are taken VALUE_GROUPS at a time */

INLINE int parts_of(int bits) { return bits == 8 ? 1 : 2; }

INLINE ints wide_bytes(const uint8_t *at) {
#if defined(__AVX512F__)
    return (ints)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)at));
#elif defined(__AVX2__)
    return (ints)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)at));
#else
    bytes packed;
    memcpy(&packed, at, sizeof packed);
    return __builtin_convertvector(packed, ints);
#endif
}

/* LANES bytes -> the codes of each part. What lies behind a row is finite, and is multiplied by 0. */
INLINE void codes_of(const uint8_t *at, int bits, floats *codes) {
    ints wide = wide_bytes(at);
    codes[0] = __builtin_convertvector(bits == 8 ? wide : wide & 15, floats);
    if (bits != 8) codes[1] = __builtin_convertvector(wide >> 4, floats);
}

INLINE float half_number(uint16_t half) {
#if HAS_FLOAT16
    return widen(&half, 0, FLOAT16);
#else
    uint32_t word = (uint32_t)(half & 0x7fff) << 13;
    float size;
    memcpy(&size, &word, 4);
    return half & 0x8000 ? -size * 0x1p112f : size * 0x1p112f;
#endif
}

/* Up to LANES float16 numbers, and zeros. */
INLINE floats halves_of(const uint16_t *at, int64_t count) {
#if HAS_FLOAT16
    if (count >= LANES) return load(at, 0, FLOAT16);
#endif
    float lanes[LANES] = {0};
    for (int64_t i = 0; i < count && i < LANES; i++) lanes[i] = half_number(at[i]);
    return load(lanes, 0, FLOAT32);
}

/* One page of one head: rows of `row` bytes of codes, and scales and zeros behind each other. */
struct packed_head {
    const uint8_t *keys, *values;
    const uint16_t *key_scales, *value_scales;
};

INLINE int64_t padded(int64_t count) { return (count + LANES - 1) / LANES * LANES; }
INLINE int64_t row_bytes(int64_t dim, int bits) { return (dim * bits + 7) / 8; }

INLINE struct packed_head packed_head_of(const struct decode *job, int64_t read, int64_t head, int bits) {
    const uint8_t *page = (const uint8_t *)job->keys + job->page[read] * job->page_bytes;
    int64_t tokens = job->page_tokens, groups = job->value_dim / job->value_group;
    struct packed_head found = {
        page + head * tokens * row_bytes(job->key_dim, bits),
        page + job->values_at + head * tokens * row_bytes(job->value_dim, bits),
        (const uint16_t *)(page + job->key_scales_at) + head * 2 * job->key_dim,
        (const uint16_t *)(page + job->value_scales_at) + head * 2 * groups * tokens,
    };
    return found;
}

/* query (G, parts, padded row) times the page's scales -> scaled, alike; and times its zeros -> offset (G). */
INLINE void scale_queries(const struct decode *job, const struct packed_head *page, const float *query, int64_t group,
                          float *scaled, float *offset, int bits) {
    int64_t dim = job->key_dim, row = row_bytes(dim, bits), step = padded(row);
    for (int64_t g = 0; g < group; g++) {
        floats sum = all(0.0f);
        for (int part = 0; part < parts_of(bits); part++)
            for (int64_t b = 0; b < step; b += LANES) {
                int64_t at = part * row + b, count = row - b < dim - at ? row - b : dim - at;
                floats asked = load(query, (g * parts_of(bits) + part) * step + b, FLOAT32);
                store(scaled + (g * parts_of(bits) + part) * step + b,
                      asked * halves_of(page->key_scales + at, count));
                sum += asked * halves_of(page->key_scales + dim + at, count);
            }
        float lanes[LANES], total = 0.0f;
        store(lanes, sum);
        for (int i = 0; i < LANES; i++) total += lanes[i];
        offset[g] = total;
    }
}

/* As score_group, of keys that are codes. */
INLINE floats packed_scores(const float *scaled, const uint8_t *const *keys, int64_t row, int rows, int stride,
                            int bits) {
    floats sums[LANES] = {{0}};
    int64_t step = padded(row);
    for (int64_t b = 0; b < row; b += LANES)
        for (int k = 0; k < LANES / stride; k++) {
            floats codes[2];
            codes_of(keys[k] + b, bits, codes);
            for (int part = 0; part < parts_of(bits); part++)
                for (int r = 0; r < rows; r++)
                    sums[k * stride + r] +=
                        codes[part] * load(scaled, (r * parts_of(bits) + part) * step + b, FLOAT32);
        }
    return sum_each(sums);
}

/* weights (count, stride) times the scales of `groups` groups -> scaled (groups, TILE * stride), and sums with the
 * zeros -> offset (groups, ROWS). */
INLINE void scale_weights(const float *weights, const uint16_t *scales, int64_t tokens, int64_t all_groups, int groups,
                          int count, float *scaled, float *offset, int rows, int stride) {
    for (int g = 0; g < groups; g++) {
        float scale[TILE + LANES], zero[TILE + LANES];
        for (int k = 0; k < count; k += LANES) {
            store(scale + k, halves_of(scales + g * tokens + k, count - k));
            store(zero + k, halves_of(scales + (all_groups + g) * tokens + k, count - k));
        }
        float sums[ROWS] = {0};
        for (int k = 0; k < count; k++)
            for (int r = 0; r < stride; r++) scaled[(g * TILE + k) * stride + r] = weights[k * stride + r] * scale[k];
        for (int k = 0; k < count; k++)
            for (int r = 0; r < rows; r++) sums[r] += weights[k * stride + r] * zero[k];
        for (int r = 0; r < rows; r++) offset[g * ROWS + r] = sums[r];
    }
}

/* Bytes b .. b + columns * LANES of each row: out = out * shrink + weights * codes + offset; part p of them begins at
 * channel p * row of `out`. */
INLINE void add_packed_columns(const float *const *weights, const float *const *offset, const uint8_t *values,
                               const uint8_t *ahead, int count, int64_t row, int64_t dim, int64_t b, float *out,
                               const float *shrink, int rows, int stride, int columns, int bits) {
    floats sums[ROWS][4];
    int parts = parts_of(bits);
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < columns * parts; i++) sums[r][i] = all(offset[i][r]);
    for (int k = 0; k < count; k++) {
        if (ahead) fetch((const char *)ahead + k * row, row);
        for (int i = 0; i < columns; i++) {
            floats codes[2];
            codes_of(values + k * row + b + i * LANES, bits, codes);
            for (int part = 0; part < parts; part++)
                for (int r = 0; r < rows; r++)
                    sums[r][i * parts + part] += codes[part] * weights[i * parts + part][k * stride + r];
        }
    }
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < columns; i++)
            for (int part = 0; part < parts; part++) {
                int64_t c = b + i * LANES, at = part * row + c;
                int64_t left = row - c < dim - at ? row - c : dim - at;
                float *to = out + r * dim + at, lanes[LANES];
                if (left >= LANES) {
                    store(to, load(to, 0, FLOAT32) * shrink[r] + sums[r][i * parts + part]);
                    continue;
                }
                store(lanes, sums[r][i * parts + part]);
                for (int64_t d = 0; d < left; d++) to[d] = to[d] * shrink[r] + lanes[d];
            }
}

INLINE void add_packed_values(const struct decode *job, const float *scaled, const float *offset,
                              const uint8_t *values, const uint8_t *ahead, int count, float *out, const float *shrink,
                              int rows, int stride, int bits) {
    int64_t dim = job->value_dim, row = row_bytes(dim, bits), b = 0;
    int parts = parts_of(bits), most = (LANES == 16 || rows <= 2 ? 4 : 2) / parts;
    while (b < row) {
        int columns = b + most * LANES <= row ? most : 1;
        const float *weights[4], *offsets[4];
        for (int i = 0; i < columns; i++)
            for (int part = 0; part < parts; part++) {
                int64_t at = part * row + b + i * LANES;
                int64_t group = at < dim ? at / job->value_group : 0;
                weights[i * parts + part] = scaled + group * TILE * stride;
                offsets[i * parts + part] = offset + group * ROWS;
            }
        const uint8_t *next = b ? NULL : ahead;
        if (columns == 4)
            add_packed_columns(weights, offsets, values, next, count, row, dim, b, out, shrink, rows, stride, 4, bits);
        else if (columns == 2)
            add_packed_columns(weights, offsets, values, next, count, row, dim, b, out, shrink, rows, stride, 2, bits);
        else
            add_packed_columns(weights, offsets, values, next, count, row, dim, b, out, shrink, rows, stride, 1, bits);
        b += columns * LANES;
    }
}

/* A tile of a packed page from `slot` on; `next` is the run's next page, if it has one. */
struct packed_tile {
    struct packed_head page, next;
    int64_t slot;
    int count, last;
};

INLINE void attend_packed_tile(const struct decode *job, const struct packed_tile *tile, const float *query,
                               const float *offset, float *out, float *largest, float *total, int rows, int stride,
                               int bits, int first) {
    float scores[TILE * ROWS] __attribute__((aligned(64))), shrink[ROWS];
    float scaled[VALUE_GROUPS * TILE * ROWS] __attribute__((aligned(64))), value_offset[VALUE_GROUPS * ROWS];
    int64_t row = row_bytes(job->key_dim, bits), tokens = job->page_tokens;
    const uint8_t *codes = tile->page.keys + tile->slot * row;
    float lanes[LANES];
    for (int i = 0; i < LANES; i++) lanes[i] = i % stride < rows ? offset[i % stride] : 0.0f;
    floats added = load(lanes, 0, FLOAT32);
    for (int k = 0; k < tile->count; k += LANES / stride) {
        const uint8_t *keys[LANES];
        for (int i = 0; i < LANES / stride; i++)
            keys[i] = codes + (k + i < tile->count ? k + i : tile->count - 1) * row;
        if (first && !tile->last) fetch((const char *)tile->next.keys + k * row, LANES / stride * row);
        store(scores + k * stride, packed_scores(query, keys, row, rows, stride, bits) + added);
    }
    soften(scores, tile->count, rows, stride, job, largest, total, shrink);
    int64_t groups = job->value_dim / job->value_group;
    scale_weights(scores, tile->page.value_scales + tile->slot, tokens, groups, (int)groups, tile->count, scaled,
                  value_offset, rows, stride);
    const uint8_t *ahead = first && !tile->last ? tile->next.values : NULL;
    const uint8_t *values = tile->page.values + tile->slot * row_bytes(job->value_dim, bits);
    add_packed_values(job, scaled, value_offset, values, ahead, tile->count, out, shrink, rows, stride, bits);
}

INLINE void attend_packed_rows(const struct decode *job, const struct packed_tile *tile, const float *query,
                               const float *offset, float *out, float *largest, float *total, int bits) {
    int64_t group = job->heads / job->key_heads;
    int64_t query_step = parts_of(bits) * padded(row_bytes(job->key_dim, bits));
    for (int64_t g = 0; g < group; g += ROWS) {
        const float *asked = query + g * query_step, *added = offset + g;
        float *sum = out + g * job->value_dim, *most = largest + g, *whole = total + g;
        int first = g == 0;
        switch (group - g) {
        case 1: attend_packed_tile(job, tile, asked, added, sum, most, whole, 1, 1, bits, first); break;
        case 2: attend_packed_tile(job, tile, asked, added, sum, most, whole, 2, 2, bits, first); break;
        case 3: attend_packed_tile(job, tile, asked, added, sum, most, whole, 3, 4, bits, first); break;
        default: attend_packed_tile(job, tile, asked, added, sum, most, whole, 4, 4, bits, first);
        }
    }
}

/* scratch: total (G), offset (G), both padded, query and scaled query (G, parts, padded row). */
INLINE void attend_packed_item(const struct decode *job, int64_t run, int64_t head, float *scratch, int bits) {
    int64_t group = job->heads / job->key_heads, dim = job->key_dim, value_dim = job->value_dim;
    int64_t row = run * job->heads + head * group, asked = job->run_owner[run] * job->heads + head * group;
    int64_t code_row = row_bytes(dim, bits), step = padded(code_row), all_steps = group * parts_of(bits) * step;
    float *out = job->partial + row * value_dim, *largest = job->partial_log + row;
    float *total = scratch, *offset = total + padded(group), *query = offset + padded(group);
    float *scaled = query + all_steps;
    const char *given = (const char *)job->query + asked * dim * size_of((int)job->kind);
    memset(query, 0, (size_t)all_steps * sizeof *query);
    for (int64_t g = 0; g < group; g++)
        for (int part = 0; part < parts_of(bits); part++)
            for (int64_t b = 0, d = part * code_row; b < code_row && d < dim; b++, d++)
                query[(g * parts_of(bits) + part) * step + b] = widen(given, g * dim + d, (int)job->kind);
    memset(out, 0, (size_t)(group * value_dim) * sizeof *out);
    for (int64_t g = 0; g < group; g++) largest[g] = -INFINITY, total[g] = 0.0f;
    int64_t end = job->run_first[run + 1];
    for (int64_t read = job->run_first[run]; read < end; read++) {
        struct packed_tile tile = {.page = packed_head_of(job, read, head, bits)};
        scale_queries(job, &tile.page, query, group, scaled, offset, bits);
        for (tile.slot = job->start[read]; tile.slot < job->stop[read]; tile.slot += TILE) {
            int64_t left = job->stop[read] - tile.slot;
            tile.count = (int)(left < TILE ? left : TILE);
            tile.last = left > TILE || read + 1 == end;
            if (!tile.last) tile.next = packed_head_of(job, read + 1, head, bits);
            attend_packed_rows(job, &tile, scaled, offset, out, largest, total, bits);
        }
    }
    for (int64_t g = 0; g < group; g++) {
        float share = 1.0f / total[g];
        for (int64_t d = 0; d < value_dim; d++) out[g * value_dim + d] *= share;
        largest[g] += logf(total[g]);
    }
}

static void attend_int8(const struct decode *job, int64_t run, int64_t head, float *scratch) {
    attend_packed_item(job, run, head, scratch, 8);
}
static void attend_int4(const struct decode *job, int64_t run, int64_t head, float *scratch) {
    attend_packed_item(job, run, head, scratch, 4);
}

/* Floats that a thread needs for packed pages. */
EXPORT int64_t windlass_packed_scratch(int64_t group, int64_t key_dim, int64_t bits) {
    return 2 * padded(group) + 2 * group * parts_of((int)bits) * padded(row_bytes(key_dim, (int)bits));
}
