/* y = x W' for one or two rows of bfloat16 numbers and a matrix as a checkpoint has it, at the speed at which memory is read.
 *
 * Each row of W is read once, front to back, by one thread, and multiplied with all rows of x. Products are exact, sums
 * float32, in an order that the number of threads does not change.
 *
 * R rows of x and y, K columns, N outputs. Plain C and GNU vectors, so gcc and clang on any processor.
 */

#include "crew.h"
#include "sixteen.h"

enum { MOST_ROWS = 2, ITEM_ROWS = 64, AHEAD = 4096 }; /* with more rows torch is as fast */
#if PAIRED_PRODUCTS
enum { STEP = 32 }; /* numbers multiplied at once */
#else
enum { STEP = LANES };
#endif

/* What a call is given; windlass/kernels/native/plain.py fills the same fields. */
struct plain {
    const uint16_t *x, *w; /* (R, K), (N, K) bfloat16 */
    uint16_t *y;           /* (R, N) bfloat16 */
    int64_t rows, columns, outputs, threads;
};

INLINE floats add_product(floats sum, const uint16_t *w, const uint16_t *x) {
#if PAIRED_PRODUCTS
    return (floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_loadu_si512(w), (__m512bh)_mm512_loadu_si512(x));
#else
    return sum + load(w, 0, BFLOAT16) * load(x, 0, BFLOAT16);
#endif
}

INLINE float sum_of(floats lanes) {
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
    return lanes[0];
}

/* Row n of W. There are several sums, lest each waits for the last. */
INLINE void multiply_row(const struct plain *job, int64_t n, int rows) {
    const int each = 4 / rows;
    int64_t columns = job->columns, whole = columns / (4 * STEP) * (4 * STEP), k = 0;
    const uint16_t *w = job->w + n * columns, *x = job->x;
    floats sum[MOST_ROWS][4];
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < each; i++) sum[r][i] = all(0.0f);
    for (; k < whole; k += 4 * STEP) {
        for (int i = 0; i < 8 * STEP; i += 64) __builtin_prefetch((const char *)(w + k) + AHEAD + i, 0, 3);
        for (int i = 0; i < 4; i++)
            for (int r = 0; r < rows; r++)
                sum[r][i % each] = add_product(sum[r][i % each], w + k + i * STEP, x + r * columns + k + i * STEP);
    }
    for (; k < columns; k += STEP) {
        uint16_t end[STEP] = {0}, other[STEP] = {0};
        size_t bytes = (size_t)lesser(columns - k, STEP) * 2;
        memcpy(end, w + k, bytes);
        for (int r = 0; r < rows; r++) {
            memcpy(other, x + r * columns + k, bytes);
            sum[r][0] = add_product(sum[r][0], end, other);
        }
    }
    for (int r = 0; r < rows; r++) {
        for (int i = 1; i < each; i++) sum[r][0] += sum[r][i];
        put(job->y, r * job->outputs + n, (row){sum_of(sum[r][0])}, 1, BFLOAT16);
    }
}

static void multiply_item(const void *given, int64_t item, int64_t member) {
    const struct plain *job = given;
    int64_t last = lesser((item + 1) * ITEM_ROWS, job->outputs);
    (void)member;
    for (int64_t n = item * ITEM_ROWS; n < last; n++) {
        if (job->rows == 1) multiply_row(job, n, 1);
        else multiply_row(job, n, 2);
    }
}

/* Fills y. At most windlass_most_rows rows. */
EXPORT void windlass_plain_product(const struct plain *job) {
    share_out(job, multiply_item, across(job->outputs, ITEM_ROWS), job->threads);
}

EXPORT int64_t windlass_most_rows(void) { return MOST_ROWS; }
