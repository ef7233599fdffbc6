/* y = x W' + b for a few rows of 16-bit numbers and a matrix as a checkpoint has it, at the speed at which memory is read.
 *
 * W is read once: 48 rows are one thread's, some columns of them at a time, multiplied with all rows of x. These were
 * laid beside each other, so that what is needed of them comes from the first cache in one stream. Sums are float32,
 * each in an order that neither the number of threads nor that of the rows changes; the bias is added before they are
 * rounded.
 *
 * R rows of x and y, K columns, N outputs. Plain C and GNU vectors, so gcc and clang on any processor.
 */

#include "crew.h"
#include "sixteen.h"

/* Up to eight rows ours is faster wherever it was measured, with sixteen hardly (dev/packed_products.md). */
enum { MOST_ROWS = 8, ITEM_ROWS = 48, MOST_TILE = 6 };
/* Of all rows of x at a time: half of the first cache. */
enum { LAID_STEPS = 16384 / (LANES * 4) };
/* Sums that the registers hold beside what is multiplied; several rows of W at once, lest each sum waits for its last. */
enum { MOST_SUMS = LANES == 16 ? 24 : 8 };

/* What a call is given; windlass/kernels/native/plain.py fills the same fields. */
struct plain {
    const uint16_t *x, *w, *bias; /* (R, K), (N, K), (N,) or NULL */
    uint16_t *y;                  /* (R, N) */
    floats *laid;                 /* windlass_laid_bytes, aligned to 64 */
    int64_t kind, rows, columns, outputs, threads;
};

/* Numbers multiplied at once. */
INLINE int step_of(int kind) { return PAIRED_PRODUCTS && kind == BFLOAT16 ? 2 * LANES : LANES; }

/* A step of numbers: float32, or pairs of bfloat16 where the processor multiplies these. */
INLINE floats take(const uint16_t *from, int kind) {
    floats result;
    if (step_of(kind) == LANES) return load(from, 0, kind);
    memcpy(&result, from, sizeof result);
    return result;
}

static __attribute__((noinline)) floats take_end(const uint16_t *from, int64_t count, int kind) {
    uint16_t end[2 * LANES] = {0};
    memcpy(end, from, (size_t)count * 2);
    return take(end, kind);
}

INLINE floats add_product(floats sum, floats w, floats x, int kind) {
#if PAIRED_PRODUCTS
    if (kind == BFLOAT16) return (floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)w, (__m512bh)x);
#endif
    return sum + w * x;
}

/* A step of every row of x, then the next step; what is missing of the last one is zero. */
INLINE void lay(const struct plain *job, int kind) {
    const int step = step_of(kind);
    floats *to = job->laid;
    for (int64_t k = 0; k < job->columns; k += step)
        for (int64_t r = 0; r < job->rows; r++) {
            const uint16_t *x = job->x + r * job->columns + k;
            *to++ = k + step <= job->columns ? take(x, kind) : take_end(x, job->columns - k, kind);
        }
}

/* What is held of an item while its columns are walked, a few at a time. */
struct item {
    floats sum[ITEM_ROWS * MOST_ROWS + LANES]; /* of a tile, row of W by row of W: one for each row of x */
    float total[MOST_ROWS][ITEM_ROWS];
};

/* Columns k to stop of `tile` rows of W, whose first is at w, onto their sums; `ahead` is what comes next. */
INLINE void multiply_tile(
    const struct plain *job, floats *held, const uint16_t *w, const uint16_t *ahead, int64_t k, int64_t stop, int rows,
    int tile, int kind) {
    const int step = step_of(kind);
    const int64_t columns = job->columns;
    const floats *x = job->laid + k / step * rows;
    floats sum[MOST_TILE][MOST_ROWS], at[MOST_TILE];
#pragma GCC unroll 6
    for (int t = 0; t < tile; t++)
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) sum[t][r] = k ? held[t * rows + r] : all(0.0f);
    for (; k + step <= stop; k += step, x += rows) {
#pragma GCC unroll 6
        for (int t = 0; t < tile; t++) {
            at[t] = take(w + t * columns + k, kind);
            __builtin_prefetch(ahead + t * columns + k, 0, 2); /* into the second cache */
        }
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 6
            for (int t = 0; t < tile; t++) sum[t][r] = add_product(sum[t][r], at[t], x[r], kind);
    }
#pragma GCC unroll 6
    for (int t = 0; t < tile; t++) {
        if (k < stop) at[t] = take_end(w + t * columns + k, stop - k, kind);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            if (k < stop) sum[t][r] = add_product(sum[t][r], at[t], x[r], kind);
            held[t * rows + r] = sum[t][r];
        }
    }
}

/* Columns k to stop of rows n to last of W. */
INLINE void multiply_columns(
    const struct plain *job, floats *held, int64_t n, int64_t last, int64_t k, int64_t stop, int rows, int kind) {
    const int tile = MOST_SUMS / rows < MOST_TILE ? MOST_SUMS / rows : MOST_TILE;
    const int64_t columns = job->columns;
    const uint16_t *w = job->w + n * columns, *next = w + stop - k;
    for (; n + tile <= last; n += tile, held += tile * rows, w += tile * columns) {
        const uint16_t *ahead = n + 2 * tile <= last || stop == columns ? w + tile * columns : next;
        multiply_tile(job, held, w, ahead, k, stop, rows, tile, kind);
    }
    for (; n < last; n++, held += rows, w += columns) multiply_tile(job, held, w, w, k, stop, rows, 1, kind);
}

/* Sums of lanes, and the bias; then they are rounded. Not expanded for each number of rows: compiling takes long. */
static __attribute__((noinline)) void finish(const struct plain *job, struct item *item, int64_t n, int64_t last) {
    int rows = (int)job->rows, kind = (int)job->kind, count = (int)(last - n);
    for (int i = 0; i < count * rows; i += LANES) {
        float each[LANES];
        store(each, sum_each(item->sum + i));
        for (int j = i; j < i + LANES && j < count * rows; j++) item->total[j % rows][j / rows] = each[j - i];
    }
    for (int i = 0; i < count && job->bias; i++) {
        float shift = widen(job->bias, n + i, kind);
        for (int r = 0; r < rows; r++) item->total[r][i] += shift;
    }
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < count; i += 16) {
            row value;
            memcpy(&value, item->total[r] + i, sizeof value);
            put(job->y, r * job->outputs + n + i, value, lesser(count - i, 16), kind);
        }
}

INLINE void multiply_rows(const struct plain *job, int64_t n, int64_t last, int rows, int kind) {
    const int64_t some = LAID_STEPS / rows * step_of(kind);
    struct item item;
    for (int64_t k = 0; k < job->columns; k += some)
        multiply_columns(job, item.sum, n, last, k, lesser(k + some, job->columns), rows, kind);
    finish(job, &item, n, last);
}

INLINE void multiply_kind(const struct plain *job, int64_t n, int64_t last, int kind) {
    switch (job->rows) {
    case 1: multiply_rows(job, n, last, 1, kind); break;
    case 2: multiply_rows(job, n, last, 2, kind); break;
    case 3: multiply_rows(job, n, last, 3, kind); break;
    case 4: multiply_rows(job, n, last, 4, kind); break;
    case 5: multiply_rows(job, n, last, 5, kind); break;
    case 6: multiply_rows(job, n, last, 6, kind); break;
    case 7: multiply_rows(job, n, last, 7, kind); break;
    case 8: multiply_rows(job, n, last, 8, kind); break;
    }
}

static void multiply_item(const void *given, int64_t item, int64_t member) {
    const struct plain *job = given;
    int64_t n = item * ITEM_ROWS, last = lesser(n + ITEM_ROWS, job->outputs);
    (void)member;
    if (job->kind == BFLOAT16) multiply_kind(job, n, last, BFLOAT16);
    else multiply_kind(job, n, last, FLOAT16);
}

/* Fills y. At most windlass_most_rows rows. */
EXPORT void windlass_plain_product(const struct plain *job) {
    if (job->kind == BFLOAT16) lay(job, BFLOAT16);
    else lay(job, FLOAT16);
    share_out(job, multiply_item, across(job->outputs, ITEM_ROWS), job->threads);
}

/* Of scratch for a call. */
EXPORT int64_t windlass_laid_bytes(int64_t kind, int64_t rows, int64_t columns) {
    return rows * across(columns, step_of((int)kind)) * (int64_t)sizeof(floats);
}

EXPORT int64_t windlass_most_rows(void) { return MOST_ROWS; }
