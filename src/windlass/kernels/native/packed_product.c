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
#if WIDE_LOOKUP
#include "gguf_tiles.h"
#endif

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
enum { PAIRS = BLOCK_COLUMNS / 2, DEEP = 4, LEAST_WIDTH = 16, GROUPS = 256 / FEW, AHEAD = 2048, ALONE = 1 << 15 };

/* W, the same in every call; windlass/kernels/native/product.py fills the same fields. */
struct matrix {
    const uint8_t *blocks; /* (Bn, Bk, block bytes) */
    const uint16_t *books; /* (4, 16) bfloat16 */
    int64_t format, columns, outputs;
};

/* A call. */
struct product {
    const void *x; /* (R, K) of `kind` */
    const uint8_t *blocks;
    const uint16_t *books;
    void *y;     /* (R, N) of `kind` */
    given *laid; /* windlass_row_scratch bytes for each of R rows */
    int64_t kind, format, rows, columns, outputs, threads;
};

/* How a matrix lies: `width` columns share a scale, and an offset where there are some; rows of GGUF's types lie one
 * after another, `size` bytes to `numbers` columns. The formats are at the end of this file. */
struct tile;
struct format {
    const char *name;
    int width, shifted;
    int64_t numbers, size;
    void (*fill)(const struct product *job, struct tile *tile, int64_t block_row, int side, int64_t b, int64_t count);
};
static const struct format formats[];
enum { INT4, INT8 }; /* the first formats */

INLINE int parts_of(const struct product *job) {
    return MOST_PARTS == 1 || job->kind == BFLOAT16 ? 1 : job->kind == FLOAT16 ? 2 : 3;
}

/* --- x as it is multiplied: groups of up to FEW rows, (pairs of columns, parts, rows of the group) -----------------
 * Rows are divided evenly, since a group of few rows leaves the processor waiting for its own sums. After all groups
 * come the sums over the columns that share a scale, (such runs, rows of the group) for each group. */

INLINE int64_t groups_of(const struct product *job) { return across(job->rows, FEW); }
INLINE int64_t first_row(const struct product *job, int64_t group) { return group * job->rows / groups_of(job); }
INLINE given *group_at(const struct product *job, int64_t row) {
    return job->laid + row * parts_of(job) * PAIRS * across(job->columns, BLOCK_COLUMNS);
}
INLINE float *sums_at(const struct product *job, int64_t row) {
    int64_t each = across(job->columns, BLOCK_COLUMNS) * (BLOCK_COLUMNS / formats[job->format].width);
    return (float *)group_at(job, job->rows) + row * each;
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

/* A whole block's columns of a row: bfloat16 numbers are pairs already. */
INLINE void lay_block(const struct product *job, int64_t at, float *numbers, given *to, int step, int kind, int parts) {
    for (int i = 0; i < BLOCK_COLUMNS; i++) numbers[i] = widen(job->x, at + i, kind);
#if PAIRED_PRODUCTS
    if (kind == BFLOAT16) {
        const char *from = (const char *)job->x + 2 * at;
        if (step == 1) memcpy(to, from, PAIRS * sizeof *to);
        else
            for (int i = 0; i < PAIRS; i++) memcpy(to + i * step, from + 4 * i, sizeof *to);
        return;
    }
#endif
    for (int i = 0; i < PAIRS; i++) lay_pair(numbers[2 * i], numbers[2 * i + 1], to + i * parts * step, parts, step);
}

INLINE void lay_row(const struct product *job, int64_t row, given *to, float *sums, int step, int kind, int parts) {
    int64_t columns = job->columns, at = row * columns;
    int width = formats[job->format].width;
    for (int64_t k = 0; k < columns; k += BLOCK_COLUMNS) {
        float numbers[BLOCK_COLUMNS] = {0};
        if (columns - k >= BLOCK_COLUMNS) lay_block(job, at + k, numbers, to, step, kind, parts);
        else {
            for (int64_t i = 0; i < columns - k; i++) numbers[i] = widen(job->x, at + k + i, kind);
            for (int i = 0; i < PAIRS; i++)
                lay_pair(numbers[2 * i], numbers[2 * i + 1], to + i * parts * step, parts, step);
        }
        to += PAIRS * parts * step;
        for (int i = 0; i < BLOCK_COLUMNS; i += width, sums += step) {
            float sum[4] = {0};
            for (int c = 0; c < width; c++) sum[c % 4] += numbers[i + c];
            *sums = (sum[0] + sum[1]) + (sum[2] + sum[3]);
        }
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

/* Levels of SIDE times 16 rows by DEEP * 64 columns, with what they are scaled and moved by. */
struct tile {
    pairs level[DEEP * PAIRS][SIDE];
    row scale[DEEP * BLOCK_COLUMNS / LEAST_WIDTH][SIDE], offset[DEEP * BLOCK_COLUMNS / LEAST_WIDTH][SIDE];
};

/* `count` blocks from block b of the row on. */
INLINE void fill_blocks(const struct product *job, struct tile *tile, int64_t block_row, int side, int64_t b,
                        int64_t count, int bits) {
    const uint8_t *block = job->blocks + (block_row * across(job->columns, BLOCK_COLUMNS) + b) * block_bytes(bits);
    struct books books = open_books(job->books);
    for (int64_t i = 0; i < count; i++, block += block_bytes(bits)) {
        struct ends ends = ends_of(block, bits);
        tile->scale[i][side] = ends.scale;
        tile->offset[i][side] = ends.offset;
        for (int64_t line = 0; line < block_bytes(bits); line += 64) __builtin_prefetch(block + AHEAD + line, 0, 3);
#pragma GCC unroll 4
        for (int quad = 0; quad < QUADS; quad++) {
            pairs level[2];
            levels_of(block, quad, &ends, &books, bits, level);
            tile->level[i * PAIRS + 2 * quad][side] = level[0];
            tile->level[i * PAIRS + 2 * quad + 1][side] = level[1];
        }
    }
}

/* total (rows, SIDE) += a group's rows times the tile, `runs` of columns that share a scale. */
INLINE void multiply_tile(const struct tile *tile, int64_t runs, const struct format *format, const given *x,
                          const float *sums, row *total, int rows, int parts) {
    const int each = rows <= 2 ? 2 : 1, width = format->width / 2;
    const pairs(*level)[SIDE] = tile->level;
    for (int64_t b = 0; b < runs; b++, sums += rows) {
        row sum[FEW][SIDE][2];
        for (int r = 0; r < rows; r++)
            for (int s = 0; s < SIDE; s++)
                for (int i = 0; i < each; i++) sum[r][s][i] = (row){0};
        for (int k = 0; k < width; k += 2, level += 2, x += 2 * parts * rows)
            for (int i = 0; i < 2; i++)
                for (int p = 0; p < parts; p++)
                    for (int r = 0; r < rows; r++)
                        for (int s = 0; s < SIDE; s++) {
                            row *to = &sum[r][s][(i * parts + p) % each];
                            *to = dot(*to, level[i][s], x + (i * parts + p) * rows + r);
                        }
        for (int r = 0; r < rows; r++)
            for (int s = 0; s < SIDE; s++) {
                if (each == 2) sum[r][s][0] += sum[r][s][1];
                total[r * SIDE + s] += sum[r][s][0] * tile->scale[b][s];
                if (format->shifted) total[r * SIDE + s] += tile->offset[b][s] * sums[r];
            }
    }
}

/* --- a function for each number of rows and parts, so that sums stay in registers --------------------------------- */

typedef void few_of(const struct product *, int64_t);
typedef void many_of(const struct tile *, int64_t, const struct format *, const given *, const float *, row *);

#define FUNCTIONS(rows, parts)                                                                                       \
    static void few_4_##rows##_##parts(const struct product *job, int64_t item) {                                    \
        multiply_few(job, item, rows, parts, 4);                                                                     \
    }                                                                                                                \
    static void few_8_##rows##_##parts(const struct product *job, int64_t item) {                                    \
        multiply_few(job, item, rows, parts, 8);                                                                     \
    }                                                                                                                \
    static void many_##rows##_##parts(const struct tile *tile, int64_t runs, const struct format *format,            \
                                      const given *x, const float *sums, row *total) {                               \
        multiply_tile(tile, runs, format, x, sums, total, rows, parts);                                              \
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

/* --- formats ------------------------------------------------------------------------------------------------------ */

static void fill_int4(const struct product *job, struct tile *tile, int64_t block_row, int side, int64_t b,
                      int64_t count) {
    fill_blocks(job, tile, block_row, side, b, count, 4);
}
static void fill_int8(const struct product *job, struct tile *tile, int64_t block_row, int side, int64_t b,
                      int64_t count) {
    fill_blocks(job, tile, block_row, side, b, count, 8);
}

/* Of a type whose rows lie one after another: the last 16 rows may be in part those before. */
INLINE int64_t top_row(const struct product *job, int64_t block_row) {
    return formats[job->format].numbers ? lesser(block_row * BLOCK_ROWS, job->outputs - BLOCK_ROWS)
                                        : block_row * BLOCK_ROWS;
}

#if WIDE_LOOKUP
INLINE void fill_rows(const struct product *job, struct tile *tile, int64_t block_row, int side, int64_t b,
                      int64_t count, int64_t numbers, int64_t size, int width, void (*open)(const struct rows_of *)) {
    int64_t step = job->columns / numbers * size, k = b * BLOCK_COLUMNS;
    int64_t blocks = lesser(count * BLOCK_COLUMNS, job->columns - k) / numbers;
    const uint8_t *at = job->blocks + top_row(job, block_row) * step + k / numbers * size;
    for (int n = 0; n < BLOCK_ROWS; n++)
        for (int64_t line = 0; line < blocks * size; line += 64)
            __builtin_prefetch(at + n * step + 2 * blocks * size + line, 0, 3);
    for (int64_t i = 0; i < blocks; i++) {
        int64_t run = i * (numbers / width);
        struct rows_of to = {at + i * size, step, &tile->level[i * (numbers / 2)][side], &tile->scale[run][side],
                             &tile->offset[run][side], SIDE};
        open(&to);
    }
}
#define TYPES(DO)                                                                                                    \
    DO(Q4_0, q4_0, 32, 18, 32, 0) DO(Q4_1, q4_1, 32, 20, 32, 1) DO(Q5_0, q5_0, 32, 22, 32, 0)                        \
    DO(Q5_1, q5_1, 32, 24, 32, 1) DO(Q8_0, q8_0, 32, 34, 32, 0) DO(Q2_K, q2_k, 256, 84, 16, 1)                       \
    DO(Q3_K, q3_k, 256, 110, 16, 0) DO(Q4_K, q4_k, 256, 144, 32, 1) DO(Q5_K, q5_k, 256, 176, 32, 1)                  \
    DO(Q6_K, q6_k, 256, 210, 16, 0) DO(IQ4_NL, iq4_nl, 32, 18, 32, 0) DO(IQ4_XS, iq4_xs, 256, 136, 32, 0)            \
    DO(MXFP4, mxfp4, 32, 17, 32, 0)
#else
#define TYPES(DO)
#endif
#define FILL(NAME, name, numbers, size, width, shifted)                                                              \
    static void fill_##name(const struct product *job, struct tile *tile, int64_t block_row, int side, int64_t b,    \
                            int64_t count) {                                                                         \
        fill_rows(job, tile, block_row, side, b, count, numbers, size, width, tile_##name);                          \
    }
#define FORMAT(NAME, name, numbers, size, width, shifted) {#NAME, width, shifted, numbers, size, fill_##name},
TYPES(FILL)
static const struct format formats[] = {
    [INT4] = {"int4", BLOCK_COLUMNS, 1, 0, 0, fill_int4},
    [INT8] = {"int8", BLOCK_COLUMNS, 1, 0, 0, fill_int8},
    TYPES(FORMAT)
};

/* --- items of work ------------------------------------------------------------------------------------------------ */

/* Block rows of one item: neighbours in memory, so that each thread reads on where it was and runs ahead of itself. */
INLINE int64_t run_of(const struct product *job) {
    return across(across(job->outputs, BLOCK_ROWS), 4 * job->threads);
}

static void multiply_block_rows(const void *given_job, int64_t item, int64_t member) {
    const struct product *job = given_job;
    int64_t first = item * run_of(job), last = lesser(first + run_of(job), across(job->outputs, BLOCK_ROWS));
    (void)member;
    for (int64_t at = first; at < last; at++) few[job->format][parts_of(job) - 1][job->rows - 1](job, at);
}

/* SIDE times 16 rows of W times up to GROUPS groups. */
static void multiply_blocks(const void *given_job, int64_t item, int64_t member) {
    const struct product *job = given_job;
    const struct format *format = formats + job->format;
    int64_t deep = across(job->columns, BLOCK_COLUMNS), high = across(job->outputs, BLOCK_ROWS);
    int64_t sides = across(high, SIDE), first = item / sides * GROUPS, parts = parts_of(job);
    int64_t last = lesser(first + GROUPS, groups_of(job)), top = item % sides * SIDE, begin = first_row(job, first);
    struct tile tile __attribute__((aligned(64)));
    row total[GROUPS * FEW][SIDE] __attribute__((aligned(64)));
    (void)member;
    memset(total, 0, (size_t)(first_row(job, last) - begin) * sizeof *total);
    for (int64_t b = 0; b < deep; b += DEEP) {
        int64_t count = lesser(deep - b, DEEP), each = BLOCK_COLUMNS / format->width;
        int64_t columns = lesser(count * BLOCK_COLUMNS, job->columns - b * BLOCK_COLUMNS);
        for (int s = 0; s < SIDE; s++) format->fill(job, &tile, lesser(top + s, high - 1), s, b, count);
        for (int64_t group = first; group < last; group++) {
            int64_t r = first_row(job, group), rows = first_row(job, group + 1) - r;
            const given *x = group_at(job, r) + b * PAIRS * parts * rows;
            many[parts - 1][rows - 1](&tile, across(columns, format->width), format, x,
                                      sums_at(job, r) + b * each * rows, total[r - begin]);
        }
    }
    for (int64_t r = begin; r < first_row(job, last); r++)
        for (int64_t s = 0; s < SIDE && top + s < high; s++)
            write(job, r, top_row(job, top + s), total[r - begin][s]);
}

INLINE struct product product_of(const struct matrix *w, const void *x, void *y, given *laid, int64_t kind,
                                 int64_t rows, int64_t threads) {
    return (struct product){x, w->blocks, w->books, y, laid, kind, w->format, rows, w->columns, w->outputs, threads};
}

/* Fills y. Formats other than int4 and int8 need at least 16 outputs. */
EXPORT void windlass_packed_product(const struct matrix *w, const void *x, void *y, given *laid, int64_t kind,
                                    int64_t rows, int64_t threads) {
    struct product call = product_of(w, x, y, laid, kind, rows, threads), *job = &call;
    int64_t groups = groups_of(job), high = across(job->outputs, BLOCK_ROWS);
    share_out(job, lay_group, groups, job->rows * job->columns < ALONE ? 1 : job->threads);
    if (groups == 1 && job->format <= INT8) share_out(job, multiply_block_rows, across(high, run_of(job)), job->threads);
    else share_out(job, multiply_blocks, across(high, SIDE) * across(groups, GROUPS), job->threads);
}

/* The number of a format, or -1 where this processor has no way for it. */
EXPORT int64_t windlass_product_format(const char *name) {
    for (int64_t i = 0; i < (int64_t)(sizeof formats / sizeof *formats); i++)
        if (strcmp(formats[i].name, name) == 0) return i;
    return -1;
}

/* Bytes that a call needs for each row of x as it is multiplied. */
EXPORT int64_t windlass_row_scratch(const struct matrix *w, int64_t kind) {
    struct product job = product_of(w, NULL, NULL, NULL, kind, 1, 1);
    return (char *)sums_at(&job, 1) - (char *)job.laid;
}
