/* y = x W' for W in Windlass's own int4 or int8 blocks: codes are unpacked in registers, next to the arithmetic.
 *
 * Products are exact and sums are float32, whatever the kind of x: a number of x becomes one (bfloat16), two (float16)
 * or three (float32) bfloat16 numbers that add up to it, and levels of W are bfloat16 as they are. Processors that do
 * not multiply pairs of bfloat16 get float32 numbers instead. A block's sum is scaled once, and the offset of its rows
 * is multiplied with the sum of x over the block.
 *
 * Up to FEW rows of x each block is read once and never stored. For more, some blocks become a tile of levels in the
 * first cache, and groups of rows pass over it. Sums are taken in an order that the number of threads does not change.
 *
 * R rows of x and y, K columns, N outputs; Bn and Bk blocks along N and K. Plain C and GNU vectors, so gcc and clang
 * on any processor.
 */

#include "crew.h"
#include "own_blocks.h"

#if PAIRED_PRODUCTS
typedef uint32_t given; /* two columns of x as bfloat16 */
enum { MOST_PARTS = 3 };
#else
typedef struct { float first, second; } given;
enum { MOST_PARTS = 1 };
#endif
#if defined(__AVX512F__)
enum { FEW = 8, SIDE = 2 };
#else
enum { FEW = 4, SIDE = 1 };
#endif
enum { PAIRS = BLOCK_COLUMNS / 2, DEEP = 4, GROUPS = 256 / FEW, AHEAD = 4096 };

/* What a call is given; windlass/kernels/native/product.py fills the same fields. */
struct product {
    const void *x;         /* (R, K) of `kind` */
    const uint8_t *blocks; /* (Bn, Bk, block bytes) */
    const uint16_t *books; /* (4, 16) bfloat16 */
    void *y;               /* (R, N) of `kind` */
    given *laid;           /* windlass_product_scratch bytes */
    int64_t kind, bits, rows, columns, outputs, threads;
};

INLINE int parts_of(const struct product *job) {
    return MOST_PARTS == 1 || job->kind == BFLOAT16 ? 1 : job->kind == FLOAT16 ? 2 : 3;
}

/* --- x as it is multiplied: groups of up to FEW rows, (pairs of columns, parts, rows of the group) -----------------
 * Rows are divided evenly, since a group of few rows leaves the processor waiting for its own sums. After all groups
 * come the sums over blocks, (blocks, rows of the group) for each group. */

INLINE int64_t groups_of(const struct product *job) { return across(job->rows, FEW); }
INLINE int64_t first_row(const struct product *job, int64_t group) { return group * job->rows / groups_of(job); }
INLINE given *group_at(const struct product *job, int64_t row) {
    return job->laid + row * parts_of(job) * PAIRS * across(job->columns, BLOCK_COLUMNS);
}
INLINE float *sums_at(const struct product *job, int64_t row) {
    return (float *)group_at(job, job->rows) + row * across(job->columns, BLOCK_COLUMNS);
}

INLINE void lay_pair(float first, float second, given *to, int parts, int step) {
#if PAIRED_PRODUCTS
    for (int p = 0; p < parts; p++) {
        uint32_t a, b;
        memcpy(&a, &first, 4);
        memcpy(&b, &second, 4);
        a &= 0xffff0000u, b &= 0xffff0000u; /* cut off, not rounded: what is left is exact */
        to[p * step] = a >> 16 | b;
        float whole_first, whole_second;
        memcpy(&whole_first, &a, 4);
        memcpy(&whole_second, &b, 4);
        first -= whole_first, second -= whole_second;
    }
#else
    *to = (given){first, second};
#endif
}

INLINE void lay_row(const struct product *job, int64_t row, given *to, float *sums, int step, int kind, int parts) {
    int64_t columns = job->columns, at = row * columns;
    for (int64_t k = 0; k < columns; k += BLOCK_COLUMNS) {
        float numbers[BLOCK_COLUMNS] = {0}, sum[4] = {0};
        int count = (int)lesser(columns - k, BLOCK_COLUMNS);
        for (int i = 0; i < count; i++) numbers[i] = widen(job->x, at + k + i, kind);
        for (int i = 0; i < BLOCK_COLUMNS; i++) sum[i % 4] += numbers[i];
        for (int i = 0; i < PAIRS; i++, to += parts * step)
            lay_pair(numbers[2 * i], numbers[2 * i + 1], to, parts, step);
        *sums = (sum[0] + sum[1]) + (sum[2] + sum[3]);
        sums += step;
    }
}

static void lay_group(const void *given_job, int64_t group, int64_t member) {
    const struct product *job = given_job;
    int64_t first = first_row(job, group), count = first_row(job, group + 1) - first;
    (void)member;
    for (int64_t r = 0; r < count; r++) {
        given *to = group_at(job, first) + r;
        float *sums = sums_at(job, first) + r;
        if (job->kind == BFLOAT16) lay_row(job, first + r, to, sums, (int)count, BFLOAT16, 1);
        if (job->kind == FLOAT16) lay_row(job, first + r, to, sums, (int)count, FLOAT16, MOST_PARTS == 1 ? 1 : 2);
        if (job->kind == FLOAT32) lay_row(job, first + r, to, sums, (int)count, FLOAT32, MOST_PARTS);
    }
}

/* --- arithmetic --------------------------------------------------------------------------------------------------- */

INLINE row dot(row sum, pairs level, const given *x) {
#if PAIRED_PRODUCTS
    return (row)_mm512_dpbf16_ps((__m512)sum, (__m512bh)level, (__m512bh)_mm512_set1_epi32((int)*x));
#else
    return sum + first_of(level) * x->first + second_of(level) * x->second;
#endif
}

/* The last block of rows has fewer outputs. */
INLINE void write(const struct product *job, int64_t r, int64_t n, row value) {
    put(job->y, r * job->outputs + n, value, lesser(job->outputs - n, BLOCK_ROWS), (int)job->kind);
}

/* Rows of one group times 16 rows of W, each block read once. Few rows have several sums, lest each waits for the last. */
INLINE void multiply_few(const struct product *job, int64_t item, int rows, int parts, int bits) {
    int64_t deep = across(job->columns, BLOCK_COLUMNS), step = block_bytes(bits);
    const uint8_t *block = job->blocks + item * deep * step;
    const given *x = group_at(job, 0);
    const float *sums = sums_at(job, 0);
    const int each = rows <= 2 ? 4 : rows <= 5 ? 2 : 1;
    struct books books = open_books(job->books);
    row total[FEW];
    for (int r = 0; r < rows; r++) total[r] = (row){0};
    for (int64_t b = 0; b < deep; b++, block += step, sums += rows) {
        struct ends ends = ends_of(block, bits);
        row sum[FEW][4];
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < each; i++) sum[r][i] = (row){0};
        for (int64_t i = 0; i < step; i += 64) __builtin_prefetch(block + AHEAD + i, 0, 3);
        for (int quad = 0; quad < QUADS; quad += 2) {
            pairs level[4];
            levels_of(block, quad, &ends, &books, bits, level);
            levels_of(block, quad + 1, &ends, &books, bits, level + 2);
            for (int i = 0; i < 4; i++)
                for (int p = 0; p < parts; p++)
                    for (int r = 0; r < rows; r++)
                    {
                        row *to = &sum[r][(i * parts + p) % each];
                        *to = dot(*to, level[i], x + (i * parts + p) * rows + r);
                    }
            x += 4 * parts * rows;
        }
        for (int r = 0; r < rows; r++) {
            if (each == 4) sum[r][0] += sum[r][2], sum[r][1] += sum[r][3];
            if (each >= 2) sum[r][0] += sum[r][1];
            total[r] += sum[r][0] * ends.scale + ends.offset * sums[r];
        }
    }
    for (int r = 0; r < rows; r++) write(job, r, item * BLOCK_ROWS, total[r]);
}

/* Levels of DEEP blocks of SIDE block rows, and their ends. */
struct tile {
    pairs level[DEEP][PAIRS][SIDE];
    row scale[DEEP][SIDE], offset[DEEP][SIDE];
};

INLINE void fill_tile(const struct product *job, struct tile *tile, const uint8_t *const *side, int64_t count, int bits) {
    struct books books = open_books(job->books);
    for (int64_t b = 0; b < count; b++)
        for (int s = 0; s < SIDE; s++) {
            const uint8_t *block = side[s] + b * block_bytes(bits);
            struct ends ends = ends_of(block, bits);
            tile->scale[b][s] = ends.scale;
            tile->offset[b][s] = ends.offset;
            for (int64_t i = 0; i < block_bytes(bits); i += 64) __builtin_prefetch(block + AHEAD + i, 0, 3);
#pragma GCC unroll 4
            for (int quad = 0; quad < QUADS; quad++) {
                pairs level[2];
                levels_of(block, quad, &ends, &books, bits, level);
                tile->level[b][2 * quad][s] = level[0];
                tile->level[b][2 * quad + 1][s] = level[1];
            }
        }
}

/* total (rows, SIDE) += a group's rows times the tile. */
INLINE void multiply_tile(const struct tile *tile, int64_t count, const given *x, const float *sums, row *total,
                          int rows, int parts) {
    for (int64_t b = 0; b < count; b++, sums += rows) {
        row sum[FEW][SIDE];
        for (int r = 0; r < rows; r++)
            for (int s = 0; s < SIDE; s++) sum[r][s] = (row){0};
#pragma GCC unroll 2
        for (int k = 0; k < PAIRS; k++) {
            pairs level[SIDE];
            for (int s = 0; s < SIDE; s++) level[s] = tile->level[b][k][s];
            for (int p = 0; p < parts; p++)
                for (int r = 0; r < rows; r++, x++)
                    for (int s = 0; s < SIDE; s++) sum[r][s] = dot(sum[r][s], level[s], x);
        }
        for (int r = 0; r < rows; r++)
            for (int s = 0; s < SIDE; s++)
                total[r * SIDE + s] += sum[r][s] * tile->scale[b][s] + tile->offset[b][s] * sums[r];
    }
}

/* --- a function for each number of rows and parts, so that sums stay in registers --------------------------------- */

typedef void few_of(const struct product *, int64_t);
typedef void many_of(const struct tile *, int64_t, const given *, const float *, row *);

#define FUNCTIONS(rows, parts)                                                                                       \
    static void few_4_##rows##_##parts(const struct product *job, int64_t item) {                                    \
        multiply_few(job, item, rows, parts, 4);                                                                     \
    }                                                                                                                \
    static void few_8_##rows##_##parts(const struct product *job, int64_t item) {                                    \
        multiply_few(job, item, rows, parts, 8);                                                                     \
    }                                                                                                                \
    static void many_##rows##_##parts(const struct tile *tile, int64_t count, const given *x, const float *sums,     \
                                      row *total) {                                                                  \
        multiply_tile(tile, count, x, sums, total, rows, parts);                                                     \
    }
#define NAMES(name, parts) {name##1_##parts, name##2_##parts, name##3_##parts, name##4_##parts MORE(name, parts)}
#if defined(__AVX512F__)
#define MORE(name, parts) , name##5_##parts, name##6_##parts, name##7_##parts, name##8_##parts
#define PART(parts)                                                                                                  \
    FUNCTIONS(1, parts) FUNCTIONS(2, parts) FUNCTIONS(3, parts) FUNCTIONS(4, parts) FUNCTIONS(5, parts)              \
    FUNCTIONS(6, parts) FUNCTIONS(7, parts) FUNCTIONS(8, parts)
#else
#define MORE(name, parts)
#define PART(parts) FUNCTIONS(1, parts) FUNCTIONS(2, parts) FUNCTIONS(3, parts) FUNCTIONS(4, parts)
#endif
#if PAIRED_PRODUCTS
PART(1) PART(2) PART(3)
#define TABLE(name) {NAMES(name, 1), NAMES(name, 2), NAMES(name, 3)}
#else
PART(1)
#define TABLE(name) {NAMES(name, 1)}
#endif
static few_of *const few[2][MOST_PARTS][FEW] = {TABLE(few_4_), TABLE(few_8_)};
static many_of *const many[MOST_PARTS][FEW] = TABLE(many_);

/* --- items of work ------------------------------------------------------------------------------------------------ */

static void multiply_block_row(const void *given_job, int64_t item, int64_t member) {
    const struct product *job = given_job;
    (void)member;
    few[job->bits == 8][parts_of(job) - 1][job->rows - 1](job, item);
}

/* SIDE block rows times up to GROUPS groups. */
static void multiply_blocks(const void *given_job, int64_t item, int64_t member) {
    const struct product *job = given_job;
    int64_t deep = across(job->columns, BLOCK_COLUMNS), high = across(job->outputs, BLOCK_ROWS);
    int64_t sides = across(high, SIDE), first = item / sides * GROUPS, parts = parts_of(job);
    int64_t last = lesser(first + GROUPS, groups_of(job)), top = item % sides * SIDE, begin = first_row(job, first);
    struct tile tile __attribute__((aligned(64)));
    row total[GROUPS * FEW][SIDE] __attribute__((aligned(64)));
    (void)member;
    memset(total, 0, (size_t)(first_row(job, last) - begin) * sizeof *total);
    for (int64_t b = 0; b < deep; b += DEEP) {
        const uint8_t *side[SIDE];
        int64_t count = lesser(deep - b, DEEP), step = block_bytes((int)job->bits);
        for (int s = 0; s < SIDE; s++) side[s] = job->blocks + (lesser(top + s, high - 1) * deep + b) * step;
        if (job->bits == 8) fill_tile(job, &tile, side, count, 8);
        else fill_tile(job, &tile, side, count, 4);
        for (int64_t group = first; group < last; group++) {
            int64_t r = first_row(job, group), rows = first_row(job, group + 1) - r;
            const given *x = group_at(job, r) + b * PAIRS * parts * rows;
            many[parts - 1][rows - 1](&tile, count, x, sums_at(job, r) + b * rows, total[r - begin]);
        }
    }
    for (int64_t r = begin; r < first_row(job, last); r++)
        for (int64_t s = 0; s < SIDE && top + s < high; s++)
            write(job, r, (top + s) * BLOCK_ROWS, total[r - begin][s]);
}

/* Fills y. */
EXPORT void windlass_packed_product(const struct product *job) {
    int64_t groups = groups_of(job), high = across(job->outputs, BLOCK_ROWS);
    share_out(job, lay_group, groups, job->threads);
    if (groups == 1) share_out(job, multiply_block_row, high, job->threads);
    else share_out(job, multiply_blocks, across(high, SIDE) * across(groups, GROUPS), job->threads);
}

/* Bytes that a call needs for x as it is multiplied. */
EXPORT int64_t windlass_product_scratch(const struct product *job) {
    return (char *)sums_at(job, job->rows) - (char *)job->laid;
}
