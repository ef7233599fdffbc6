/* Matrices whose rows are blocks one after another (GGUF's types): unpacked row by row, or multiplied with a few rows.
 *
 * A block becomes float32 numbers in the first cache; they are rounded and stored, or multiplied at once with up to
 * FEW rows of x, in float32. Which thread does it changes no bit.
 *
 * R rows of x and y, N rows of the matrix and K columns, a multiple of the numbers of a block.
 */

#include "crew.h"
#include "gguf_blocks.h"

enum { FEW = 4, MOST_NUMBERS = 256, ITEM_ROWS = 8 };

/* What a call is given; windlass/kernels/native/rows.py fills the same fields. */
struct matrix {
    const uint8_t *blocks; /* (N, bytes of a row) */
    const float *x;        /* (R, K), or NULL where rows are unpacked */
    void *y;               /* (R, N) or (N, K) of `kind` */
    int64_t kind, encoding, rows, columns, outputs, threads;
};

#define TYPES(DO)                                                                                                    \
    DO(Q4_0, q4_0, 32, 18) DO(Q4_1, q4_1, 32, 20) DO(Q5_0, q5_0, 32, 22) DO(Q5_1, q5_1, 32, 24)                      \
    DO(Q8_0, q8_0, 32, 34) DO(Q2_K, q2_k, 256, 84) DO(Q3_K, q3_k, 256, 110) DO(Q4_K, q4_k, 256, 144)                 \
    DO(Q5_K, q5_k, 256, 176) DO(Q6_K, q6_k, 256, 210) DO(IQ4_NL, iq4_nl, 32, 18) DO(IQ4_XS, iq4_xs, 256, 136)        \
    DO(MXFP4, mxfp4, 32, 17)

/* Sums over K of each of up to FEW rows, in 16 lanes. `x` advances by `numbers`. */
INLINE void add_products(const float *numbers, int count, const float *x, int64_t columns, row *sums, int rows) {
    for (int i = 0; i < count; i += 16)
        for (int r = 0; r < rows; r++) sums[2 * r + i / 16 % 2] += *(const row *)(numbers + i) * *(const row *)(x + r * columns + i);
}

INLINE float sum_of(row sums) {
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++) sums[i] += sums[i + half];
    return sums[0];
}

typedef void unpack_of(const struct matrix *, int64_t);

#define FUNCTIONS(NAME, name, numbers, size)                                                                         \
    static void rows_##name(const struct matrix *job, int64_t n) {                                                   \
        const uint8_t *block = job->blocks + n * (job->columns / numbers) * size;                                    \
        float buffer[numbers] __attribute__((aligned(64)));                                                          \
        for (int64_t k = 0; k < job->columns; k += numbers, block += size) {                                         \
            unpack_##name(block, buffer);                                                                            \
            for (int i = 0; i < numbers; i += 16)                                                                    \
                put(job->y, n * job->columns + k + i, *(row *)(buffer + i), 16, (int)job->kind);                     \
        }                                                                                                            \
    }                                                                                                                \
    INLINE void times_##name(const struct matrix *job, int64_t n, int64_t first, int rows) {                         \
        const uint8_t *block = job->blocks + n * (job->columns / numbers) * size;                                    \
        float buffer[numbers] __attribute__((aligned(64)));                                                          \
        row sums[2 * FEW];                                                                                           \
        for (int i = 0; i < 2 * rows; i++) sums[i] = (row){0};                                                       \
        for (int64_t k = 0; k < job->columns; k += numbers, block += size) {                                         \
            for (int i = 0; i < size; i += 64) __builtin_prefetch(block + 2048 + i, 0, 3);                           \
            unpack_##name(block, buffer);                                                                            \
            add_products(buffer, numbers, job->x + first * job->columns + k, job->columns, sums, rows);              \
        }                                                                                                            \
        for (int r = 0; r < rows; r++)                                                                               \
            put(job->y, (first + r) * job->outputs + n, (row){sum_of(sums[2 * r] + sums[2 * r + 1])}, 1,             \
                (int)job->kind);                                                                                     \
    }                                                                                                                \
    static void product_##name(const struct matrix *job, int64_t n) {                                                \
        for (int64_t r = 0; r < job->rows; r += FEW) switch (job->rows - r) {                                        \
            case 1: times_##name(job, n, r, 1); break;                                                               \
            case 2: times_##name(job, n, r, 2); break;                                                               \
            case 3: times_##name(job, n, r, 3); break;                                                               \
            default: times_##name(job, n, r, FEW);                                                                   \
            }                                                                                                        \
    }
TYPES(FUNCTIONS)

struct type {
    const char *name;
    int64_t numbers, size;
    unpack_of *unpack, *multiply;
};
#define ENTRY(NAME, name, numbers, size) {#NAME, numbers, size, rows_##name, product_##name},
static const struct type types[] = {TYPES(ENTRY)};

static void take_rows(const void *given, int64_t item, int64_t member) {
    const struct matrix *job = given;
    const struct type *type = types + job->encoding;
    int64_t last = lesser((item + 1) * ITEM_ROWS, job->outputs);
    (void)member;
    for (int64_t n = item * ITEM_ROWS; n < last; n++) (job->x ? type->multiply : type->unpack)(job, n);
}

/* Fills y. */
EXPORT void windlass_packed_rows(const struct matrix *job) {
    share_out(job, take_rows, across(job->outputs, ITEM_ROWS), job->threads);
}

/* The number of a type, or -1; numbers and bytes of its blocks. */
EXPORT int64_t windlass_encoding(const char *name, int64_t *numbers, int64_t *size) {
    for (int64_t i = 0; i < (int64_t)(sizeof types / sizeof *types); i++)
        if (strcmp(types[i].name, name) == 0) {
            *numbers = types[i].numbers;
            *size = types[i].size;
            return i;
        }
    return -1;
}
