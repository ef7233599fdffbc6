/* Decode attention over paged keys and values: one pass over the memory that holds them, as fast as it is read.
 *
 * An item of work is one key head of one run (some pages of one sequence). Its pages are read once, a tile of keys
 * and values at a time, for all query rows of the group; softmax is kept online (Milakov and Gimelshein, 2018), and
 * runs of one sequence come together by their log-sum-exp. Runs do not depend on the number of threads, so neither
 * do the results. Products and sums are in float32; of bfloat16 keys the products are exact.
 *
 * S sequences, U runs, H query heads, Hk key heads, G = H / Hk query rows for a key, P slots of a page, Dk and Dv
 * sizes of keys and values. Keys lie as (pages, Hk, P, Dk), values as (pages, Hk, P, Dv). Only the slots that a read
 * names are loaded into a result. Plain C and GNU vectors, so gcc and clang on any processor.
 */

#include "crew.h"
#include "lanes.h"

enum { TILE = 64, ROWS = 4 };

/* What a call is given; windlass/kernels/native/decode.py fills the same fields. Run u of sequence run_owner[u] reads
 * slots start[i] .. stop[i] of pages page[i] for i in run_first[u] .. run_first[u + 1]; the runs of a sequence are
 * neighbours. partial (U, H, Dv) and partial_log (U, H) may be out and log_sum themselves where U = S. */
struct decode {
    const void *query, *keys, *values; /* (S, H, Dk), (pages, Hk, P, Dk), (pages, Hk, P, Dv) */
    const int32_t *page, *start, *stop, *run_first, *run_owner;
    float *partial, *partial_log, *out, *log_sum; /* out (S, H, Dv), log_sum (S, H) */
    float *scratch;                               /* (threads, scratch_size) */
    int64_t kind, sequences, runs, heads, key_heads, page_tokens, key_dim, value_dim, threads, scratch_size;
    /* Of packed pages, which lie in `keys` one after the other: bits of a code (else 0), and bytes. */
    int64_t bits, page_bytes, key_scales_at, values_at, value_scales_at, value_group;
    float scaling, softcap; /* softcap 0 for none */
};

/* --- a tile: some keys of a page, and up to ROWS query rows ------------------------------------------------------
 * Scores lie as (keys, stride), a key's rows side by side; stride is 1, 2 or 4. `rows`, `stride` and `kind` are
 * constants where these are expanded. */

/* Scores of LANES / stride keys, of which the last may be given more than once. */
INLINE floats score_group(const void *query, int64_t query_step, const char *const *keys, int64_t dim, int rows,
                          int stride, int kind) {
    floats sums[LANES] = {{0}};
    int64_t d = 0;
#if PAIRED_PRODUCTS
    if (kind == BFLOAT16) {
        for (; d < dim; d += 32) {
            __mmask32 part = dim - d >= 32 ? ~(__mmask32)0 : ((__mmask32)1 << (dim - d)) - 1;
            __m512i row[ROWS];
            for (int r = 0; r < rows; r++)
                row[r] = _mm512_maskz_loadu_epi16(part, (const uint16_t *)query + r * query_step + d);
            for (int k = 0; k < LANES / stride; k++) {
                __m512bh key = (__m512bh)_mm512_maskz_loadu_epi16(part, (const uint16_t *)keys[k] + d);
                for (int r = 0; r < rows; r++) {
                    floats *sum = sums + k * stride + r;
                    *sum = (floats)_mm512_dpbf16_ps((__m512)*sum, key, (__m512bh)row[r]);
                }
            }
        }
        return sum_each(sums);
    }
#endif
    for (; d + LANES <= dim; d += LANES)
        for (int k = 0; k < LANES / stride; k++) {
            floats key = load(keys[k], d, kind);
            for (int r = 0; r < rows; r++) sums[k * stride + r] += key * load(query, r * query_step + d, FLOAT32);
        }
    if (d < dim)
        for (int k = 0; k < LANES / stride; k++) {
            floats key = load_end(keys[k], d, dim - d, kind);
            for (int r = 0; r < rows; r++) sums[k * stride + r] += key * load(query, r * query_step + d, FLOAT32);
        }
    return sum_each(sums);
}

/* Turns scores into weights e^(score - largest) and brings `largest` and `total` up to date; shrink[r] is what the
 * results of earlier tiles are multiplied by. */
INLINE void soften(float *scores, int count, int rows, int stride, const struct decode *job, float *largest,
                   float *total, float *shrink) {
    int used = count * stride, padded = (used + LANES - 1) / LANES * LANES;
    floats top = all(-INFINITY), sums = all(0.0f), maxima;
    float lanes[LANES];
    for (int i = 0; i < padded; i += LANES) {
        floats score = load(scores, i, FLOAT32) * job->scaling;
        if (job->softcap != 0) score = hyperbolic_tangent(score / job->softcap) * job->softcap;
        store(scores + i, score);
    }
    for (int i = used; i < padded; i++) scores[i] = -INFINITY;
    for (int i = 0; i < padded; i += LANES) {
        floats score = load(scores, i, FLOAT32);
        top = pick((words)(score > top), score, top);
    }
    store(lanes, top);
    for (int i = stride; i < LANES; i++) lanes[i % stride] = larger(lanes[i % stride], lanes[i]);
    for (int r = 0; r < rows; r++) {
        float now = larger(largest[r], lanes[r]);
        shrink[r] = now == largest[r] ? 1.0f : expf(largest[r] - now);
        largest[r] = now;
    }
    for (int i = 0; i < LANES; i++) lanes[i] = i % stride < rows ? largest[i % stride] : 0.0f;
    maxima = load(lanes, 0, FLOAT32);
    for (int i = 0; i < padded; i += LANES) {
        floats weight = exponential(load(scores, i, FLOAT32) - maxima);
        store(scores + i, weight);
        sums += weight;
    }
    store(lanes, sums);
    for (int i = stride; i < LANES; i++) lanes[i % stride] += lanes[i];
    for (int r = 0; r < rows; r++) total[r] = total[r] * shrink[r] + lanes[r];
}

/* Columns c .. c + columns * LANES of out = out * shrink + weights * values; rows `ahead` are fetched on the way. */
INLINE void add_columns(const float *weights, const char *values, const char *ahead, int count, int64_t dim, int64_t c,
                        float *out, const float *shrink, int rows, int stride, int columns, int kind) {
    floats sums[ROWS][8];
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < columns; i++) sums[r][i] = all(0.0f);
    for (int k = 0; k < count; k++) {
        if (ahead) fetch(ahead + k * dim * size_of(kind), dim * size_of(kind));
        for (int i = 0; i < columns; i++) {
            floats value = load(values, k * dim + c + i * LANES, kind);
            for (int r = 0; r < rows; r++) sums[r][i] += value * weights[k * stride + r];
        }
    }
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < columns; i++) {
            /* A tile is added up by itself first: a long sum would round each value as coarsely as itself. */
            float *at = out + r * dim + c + i * LANES;
            store(at, load(at, 0, FLOAT32) * shrink[r] + sums[r][i]);
        }
}

INLINE void add_values(const float *weights, const char *values, const char *ahead, int count, int64_t dim,
                       float *out, const float *shrink, int rows, int stride, int kind) {
    int64_t c = 0;
    if (LANES == 16 && rows <= 3)
        for (; c + 8 * LANES <= dim; c += 8 * LANES)
            add_columns(weights, values, c ? NULL : ahead, count, dim, c, out, shrink, rows, stride, 8, kind);
    if (LANES == 16 || rows <= 2)
        for (; c + 4 * LANES <= dim; c += 4 * LANES)
            add_columns(weights, values, c ? NULL : ahead, count, dim, c, out, shrink, rows, stride, 4, kind);
    for (; c + 2 * LANES <= dim; c += 2 * LANES)
        add_columns(weights, values, c ? NULL : ahead, count, dim, c, out, shrink, rows, stride, 2, kind);
    for (; c + LANES <= dim; c += LANES)
        add_columns(weights, values, c ? NULL : ahead, count, dim, c, out, shrink, rows, stride, 1, kind);
    for (; c < dim; c++)
        for (int r = 0; r < rows; r++) {
            float sum = 0.0f;
            for (int k = 0; k < count; k++) sum += widen(values, k * dim + c, kind) * weights[k * stride + r];
            out[r * dim + c] = out[r * dim + c] * shrink[r] + sum;
        }
}

/* A tile in memory, and where the next one of the same run lies (NULL after the last). */
struct tile {
    const char *keys, *values, *next_keys, *next_values;
    int count;
};

INLINE void attend_tile(const struct decode *job, const struct tile *tile, const void *query, int64_t query_step,
                        float *out, float *largest, float *total, int rows, int stride, int kind, int first) {
    float scores[TILE * ROWS] __attribute__((aligned(64))), shrink[ROWS];
    int64_t key_bytes = job->key_dim * size_of(kind);
    for (int k = 0; k < tile->count; k += LANES / stride) {
        const char *keys[LANES];
        for (int i = 0; i < LANES / stride; i++)
            keys[i] = tile->keys + (k + i < tile->count ? k + i : tile->count - 1) * key_bytes;
        /* The next tile comes while this one is computed: its keys with the scores, its values with the values. */
        if (first && tile->next_keys) fetch(tile->next_keys + k * key_bytes, LANES / stride * key_bytes);
        store(scores + k * stride, score_group(query, query_step, keys, job->key_dim, rows, stride, kind));
    }
    soften(scores, tile->count, rows, stride, job, largest, total, shrink);
    const char *ahead = first ? tile->next_values : NULL;
    add_values(scores, tile->values, ahead, tile->count, job->value_dim, out, shrink, rows, stride, kind);
}

/* --- an item: one key head of one run ---------------------------------------------------------------------------- */

static const char *page_of(const struct decode *job, const void *stored, int64_t read, int64_t head, int64_t slot,
                           int64_t dim) {
    int64_t row = (job->page[read] * job->key_heads + head) * job->page_tokens + slot;
    return (const char *)stored + row * dim * size_of((int)job->kind);
}

/* All query rows of the group over a tile, up to ROWS together; the tile stays in the first caches. */
INLINE void attend_rows(const struct decode *job, const struct tile *tile, const char *query, int64_t query_step,
                        float *out, float *largest, float *total, int kind) {
    int64_t group = job->heads / job->key_heads;
    int64_t query_bytes = query_step * (kind == BFLOAT16 && PAIRED_PRODUCTS ? 2 : 4);
    for (int64_t row = 0; row < group; row += ROWS) {
        const char *asked = query + row * query_bytes;
        float *sum = out + row * job->value_dim, *most = largest + row, *whole = total + row;
        int first = row == 0;
        switch (group - row) {
        case 1: attend_tile(job, tile, asked, query_step, sum, most, whole, 1, 1, kind, first); break;
        case 2: attend_tile(job, tile, asked, query_step, sum, most, whole, 2, 2, kind, first); break;
        case 3: attend_tile(job, tile, asked, query_step, sum, most, whole, 3, 4, kind, first); break;
        default: attend_tile(job, tile, asked, query_step, sum, most, whole, 4, 4, kind, first);
        }
    }
}

INLINE void attend_item(const struct decode *job, int64_t run, int64_t head, float *scratch, int kind) {
    int64_t group = job->heads / job->key_heads, dim = job->key_dim, value_dim = job->value_dim;
    int64_t row = run * job->heads + head * group, asked = job->run_owner[run] * job->heads + head * group;
    float *out = job->partial + row * value_dim, *largest = job->partial_log + row, *total = scratch;
    const char *query = (const char *)job->query + asked * dim * size_of(kind);
    int64_t query_step = dim;
    if (!(kind == BFLOAT16 && PAIRED_PRODUCTS)) {
        float *wide = scratch + (group + LANES - 1) / LANES * LANES;
        query_step = (dim + LANES - 1) / LANES * LANES;
        for (int64_t g = 0; g < group; g++)
            for (int64_t d = 0; d < query_step; d++)
                wide[g * query_step + d] = d < dim ? widen(query, g * dim + d, kind) : 0.0f;
        query = (const char *)wide;
    }
    memset(out, 0, (size_t)(group * value_dim) * sizeof *out);
    for (int64_t g = 0; g < group; g++) largest[g] = -INFINITY, total[g] = 0.0f;
    int64_t last = job->run_first[run + 1];
    for (int64_t read = job->run_first[run]; read < last; read++)
        for (int64_t slot = job->start[read]; slot < job->stop[read]; slot += TILE) {
            int64_t left = job->stop[read] - slot;
            struct tile tile = {page_of(job, job->keys, read, head, slot, dim),
                                page_of(job, job->values, read, head, slot, value_dim), NULL, NULL,
                                (int)(left < TILE ? left : TILE)};
            if (left > TILE) {
                tile.next_keys = tile.keys + TILE * dim * size_of(kind);
                tile.next_values = tile.values + TILE * value_dim * size_of(kind);
            } else if (read + 1 < last) {
                tile.next_keys = page_of(job, job->keys, read + 1, head, job->start[read + 1], dim);
                tile.next_values = page_of(job, job->values, read + 1, head, job->start[read + 1], value_dim);
            }
            attend_rows(job, &tile, query, query_step, out, largest, total, kind);
        }
    for (int64_t g = 0; g < group; g++) {
        float share = 1.0f / total[g];
        for (int64_t d = 0; d < value_dim; d++) out[g * value_dim + d] *= share;
        largest[g] += logf(total[g]);
    }
}

static void attend_float32(const struct decode *job, int64_t run, int64_t head, float *scratch) {
    attend_item(job, run, head, scratch, FLOAT32);
}
static void attend_bfloat16(const struct decode *job, int64_t run, int64_t head, float *scratch) {
    attend_item(job, run, head, scratch, BFLOAT16);
}
#include "packed_pages.h"

#if HAS_FLOAT16
static void attend_float16(const struct decode *job, int64_t run, int64_t head, float *scratch) {
    attend_item(job, run, head, scratch, FLOAT16);
}
#endif

static void attend(const void *given, int64_t item, int64_t member) {
    const struct decode *job = given;
    float *scratch = job->scratch + member * job->scratch_size;
    int64_t run = item / job->key_heads, head = item % job->key_heads;
    if (job->bits == 8) return attend_int8(job, run, head, scratch);
    if (job->bits == 4) return attend_int4(job, run, head, scratch);
    if (job->kind == FLOAT32) attend_float32(job, run, head, scratch);
    if (job->kind == BFLOAT16) attend_bfloat16(job, run, head, scratch);
#if HAS_FLOAT16
    if (job->kind == FLOAT16) attend_float16(job, run, head, scratch);
#endif
}

/* Adds up the runs of a sequence; one that has none sees nothing: result 0, log-sum-exp -inf. */
static void gather(const void *given, int64_t sequence, int64_t member) {
    const struct decode *job = given;
    int64_t first = 0, heads = job->heads, dim = job->value_dim;
    (void)member;
    while (first < job->runs && job->run_owner[first] < sequence) first++;
    int64_t last = first;
    while (last < job->runs && job->run_owner[last] == sequence) last++;
    for (int64_t h = 0; h < heads; h++) {
        float *out = job->out + (sequence * heads + h) * dim;
        float largest = -INFINITY, total = 0.0f;
        for (int64_t u = first; u < last; u++) largest = larger(largest, job->partial_log[u * heads + h]);
        for (int64_t u = first; u < last; u++) total += expf(job->partial_log[u * heads + h] - largest);
        memset(out, 0, (size_t)dim * sizeof *out);
        for (int64_t u = first; u < last; u++) {
            float share = expf(job->partial_log[u * heads + h] - largest) / total;
            const float *part = job->partial + (u * heads + h) * dim;
            for (int64_t d = 0; d < dim; d++) out[d] += share * part[d];
        }
        job->log_sum[sequence * heads + h] = first < last ? largest + logf(total) : -INFINITY;
    }
}

/* Fills out and log_sum. */
EXPORT void windlass_decode_attention(const struct decode *job) {
    share_out(job, attend, job->runs * job->key_heads, job->threads);
    if (job->partial != job->out) share_out(job, gather, job->sequences, job->threads);
}

/* Floats that a thread needs. */
EXPORT int64_t windlass_scratch(int64_t group, int64_t key_dim) {
    return (group + LANES - 1) / LANES * LANES + group * ((key_dim + LANES - 1) / LANES * LANES);
}
