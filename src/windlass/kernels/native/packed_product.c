/* y = x W' for W in Windlass's own blocks, GGUF's types or other programs' formats, unpacked next to the arithmetic.
 *
 * Products are exact and sums are float32, whatever the kind of x: a number of x becomes one (bfloat16), two (float16)
 * or three (float32) bfloat16 numbers that add up to it, and levels of W are bfloat16 as they are. Processors that do
 * not multiply pairs of bfloat16 get float32 numbers instead. A block's sum is scaled once, and the offset of its rows
 * is multiplied with the sum of x over the block.
 *
 * Up to FEW rows of x each own block is read once and never stored. Else some columns become a tile of levels in the
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
enum { AWQ_LINE = 128, MOST_TILES = AWQ_LINE / (SIDE * BLOCK_ROWS) }; /* rows whose codes of a column lie in 64 bytes */
enum { PAIRS = BLOCK_COLUMNS / 2, DEEP = 4, LEAST_WIDTH = 16, GROUPS = 256 / FEW, AHEAD = 2048, ALONE = 1 << 15 };

/* Where other programs' scales and zeros lie: number `down` times the row plus `across` times the group of columns.
 * `order` has the columns as their groups follow each other, or is NULL where they do so anyway. */
struct foreign {
    const void *scales, *zeros;
    const int32_t *order;
    int64_t width, group, row_block, scale_kind, scale_down, scale_across, zero_kind, zero_down, zero_across;
    int64_t zero_shift, flipped; /* added to zeros; bits of a word of codes that are the other way round */
};

/* W, the same in every call; windlass/kernels/native/product.py fills the same fields. */
struct matrix {
    const uint8_t *blocks; /* (Bn, Bk, block bytes) */
    const uint16_t *books; /* (4, 16) bfloat16, or the numbers of other programs' codes */
    int64_t format, columns, outputs;
    struct foreign foreign;
};

/* A call. */
struct product {
    const void *x; /* (R, K) of `kind` */
    const uint8_t *blocks;
    const uint16_t *books;
    void *y;        /* (R, N) of `kind` */
    uint8_t *words; /* windlass_thread_scratch bytes for each of so many threads */
    given *laid;    /* windlass_row_scratch bytes for each of R rows */
    int64_t kind, format, rows, columns, outputs, threads;
    struct foreign foreign;
};

/* How a matrix lies: `width` columns share a scale (0 where the call says it), and an offset where there are some; rows
 * of GGUF's types lie one after another, `size` bytes to `numbers` columns. The formats are at the end of this file. */
struct tile;
struct format {
    const char *name;
    int width, shifted;
    int64_t numbers, size;
    void (*fill)(const struct product *job, struct tile *tile, int64_t block_row, int side, int64_t b, int64_t count);
};
static const struct format formats[];
enum { INT4, INT8 }; /* the first formats */

INLINE int width_of(const struct product *job) {
    int width = formats[job->format].width;
    return width ? width : (int)job->foreign.width;
}
INLINE int parts_of(const struct product *job) {
    return MOST_PARTS == 1 || job->kind == BFLOAT16 ? 1 : job->kind == FLOAT16 ? 2 : 3;
}

#include "laid_rows.h"

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

/* Levels of SIDE times 16 rows by DEEP * 64 columns, with what they are scaled and moved by. `lines` are codes that lie
 * far apart in the matrix, copied from `held` on, for several tiles; `words` are those of all columns, (SIDE, such words)
 * vectors, where columns have an order. */
struct tile {
    pairs level[DEEP * PAIRS][SIDE];
    row scale[DEEP * BLOCK_COLUMNS / LEAST_WIDTH][SIDE], offset[DEEP * BLOCK_COLUMNS / LEAST_WIDTH][SIDE];
    const uint8_t *held;
    uint8_t *words;
    uint8_t lines[DEEP * BLOCK_COLUMNS][AWQ_LINE / 2] __attribute__((aligned(64)));
};

#include "foreign_tiles.h"

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

/* Runs of `width` columns that share a scale, and an offset where they are `shifted`. */
struct runs {
    int64_t count;
    int width, shifted;
};

/* total (rows, SIDE) += a group's rows times the tile. */
INLINE void multiply_tile(const struct tile *tile, const struct runs *runs, const given *x, const float *sums,
                          row *total, int rows, int parts) {
    const int each = rows <= 2 ? 2 : 1, width = runs->width / 2, shifted = runs->shifted;
    const pairs(*level)[SIDE] = tile->level;
    for (int64_t b = 0; b < runs->count; b++, sums += rows) {
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
                if (shifted) total[r * SIDE + s] += tile->offset[b][s] * sums[r];
            }
    }
}

/* --- a function for each number of rows and parts, so that sums stay in registers --------------------------------- */

typedef void few_of(const struct product *, int64_t);
typedef void many_of(const struct tile *, const struct runs *, const given *, const float *, row *);

#define FUNCTIONS(rows, parts)                                                                                       \
    static void few_4_##rows##_##parts(const struct product *job, int64_t item) {                                    \
        multiply_few(job, item, rows, parts, 4);                                                                     \
    }                                                                                                                \
    static void few_8_##rows##_##parts(const struct product *job, int64_t item) {                                    \
        multiply_few(job, item, rows, parts, 8);                                                                     \
    }                                                                                                                \
    static void many_##rows##_##parts(const struct tile *tile, const struct runs *runs, const given *x,              \
                                      const float *sums, row *total) {                                               \
        multiply_tile(tile, runs, x, sums, total, rows, parts);                                                      \
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

/* Where rows are not in blocks, the last 16 may be in part those before. */
INLINE int64_t top_row(const struct product *job, int64_t block_row) {
    return job->format > INT8 ? lesser(block_row * BLOCK_ROWS, job->outputs - BLOCK_ROWS) : block_row * BLOCK_ROWS;
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

#define FOREIGN(DO)                                                                                                  \
    DO(awq, "awq", 4, WHOLE, fill_words_of_rows(job, tile, n, side, k, columns))                                     \
    DO(gptq4, "gptq-4", 4, WHOLE, fill_down(job, tile, n, side, k, columns, 4))                                      \
    DO(gptq8, "gptq-8", 8, WHOLE, fill_down(job, tile, n, side, k, columns, 8))                                      \
    DO(int4, "along-4", 4, WHOLE, fill_along(job, tile, n, side, k, columns, 4, WHOLE))                              \
    DO(int8, "along-8", 8, WHOLE, fill_along(job, tile, n, side, k, columns, 8, WHOLE))                              \
    DO(fp8, "fp8", 8, LOOKED_UP, fill_along(job, tile, n, side, k, columns, 8, LOOKED_UP))                           \
    DO(fp4, "fp4", 4, LOOKED_UP, fill_along(job, tile, n, side, k, columns, 4, LOOKED_UP))
#define FILL_FOREIGN(name, said, bits, levels, fill)                                                                 \
    static void foreign_##name(const struct product *job, struct tile *tile, int64_t block_row, int side, int64_t b, \
                               int64_t count) {                                                                      \
        int64_t n = top_row(job, block_row), k = b * BLOCK_COLUMNS;                                                  \
        int64_t columns = lesser(count * BLOCK_COLUMNS, job->columns - k);                                           \
        fill_factors(&job->foreign, tile, n, side, k, columns, bits, levels);                                        \
        fill;                                                                                                        \
    }
#define FOREIGN_FORMAT(name, said, bits, levels, fill) {said, 0, 0, 0, 0, foreign_##name},
FOREIGN(FILL_FOREIGN)

static const struct format formats[] = {
    [INT4] = {"int4", BLOCK_COLUMNS, 1, 0, 0, fill_int4},
    [INT8] = {"int8", BLOCK_COLUMNS, 1, 0, 0, fill_int8},
    TYPES(FORMAT) FOREIGN(FOREIGN_FORMAT)
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

/* Tiles of one item, one beside the other: where columns lie far apart, as many as a line of memory serves. */
INLINE int64_t tiles_of(const struct product *job) {
    int64_t sides = across(across(job->outputs, BLOCK_ROWS), SIDE), tiles = MOST_TILES;
    if (formats[job->format].fill != foreign_awq) return 1;
    while (tiles > 1 && across(sides, tiles) < 2 * job->threads) tiles /= 2;
    return tiles;
}

/* Some tiles of SIDE times 16 rows of W times up to GROUPS groups. */
static void multiply_blocks(const void *given_job, int64_t item, int64_t member) {
    const struct product *job = given_job;
    const struct format *format = formats + job->format;
    int64_t deep = across(job->columns, BLOCK_COLUMNS), high = across(job->outputs, BLOCK_ROWS), tiles = tiles_of(job);
    int64_t sides = across(high, SIDE * tiles), first = item / sides * GROUPS, parts = parts_of(job);
    int64_t last = lesser(first + GROUPS, groups_of(job)), begin = first_row(job, first);
    int64_t top = item % sides * tiles * SIDE, end = lesser(top + tiles * SIDE, high);
    struct tile tile __attribute__((aligned(64)));
    row total[MOST_TILES][GROUPS * FEW][SIDE] __attribute__((aligned(64)));
    struct runs runs = {0, width_of(job), format->shifted || job->foreign.zero_kind};
    tile.held = NULL, tile.words = words_of(job, member);
    for (int64_t t = 0; t < tiles; t++) memset(total[t], 0, (size_t)(first_row(job, last) - begin) * sizeof *total[t]);
    for (int64_t b = 0; b < deep; b += DEEP) {
        int64_t count = lesser(deep - b, DEEP), each = BLOCK_COLUMNS / runs.width;
        runs.count = across(lesser(count * BLOCK_COLUMNS, job->columns - b * BLOCK_COLUMNS), runs.width);
        for (int64_t t = 0; top + t * SIDE < end; t++) {
            for (int s = 0; s < SIDE; s++) format->fill(job, &tile, lesser(top + t * SIDE + s, high - 1), s, b, count);
            for (int64_t group = first; group < last; group++) {
                int64_t r = first_row(job, group), rows = first_row(job, group + 1) - r;
                const given *x = group_at(job, r) + b * PAIRS * parts * rows;
                many[parts - 1][rows - 1](&tile, &runs, x, sums_at(job, r) + b * each * rows, total[t][r - begin]);
            }
        }
    }
    for (int64_t at = top; at < end; at++)
        for (int64_t r = begin; r < first_row(job, last); r++)
            write(job, r, top_row(job, at), total[(at - top) / SIDE][r - begin][(at - top) % SIDE]);
}

/* `scratch` is what threads need, then what rows need. */
INLINE struct product product_of(const struct matrix *w, const void *x, void *y, uint8_t *scratch, int64_t kind,
                                 int64_t rows, int64_t threads) {
    given *laid = (given *)(scratch + threads * words_size(&w->foreign, w->columns));
    return (struct product){x, w->blocks, w->books, y, scratch, laid, kind, w->format, rows, w->columns, w->outputs,
                            threads, w->foreign};
}

/* Fills y. Formats other than int4 and int8 need at least 16 outputs. */
EXPORT void windlass_packed_product(const struct matrix *w, const void *x, void *y, uint8_t *scratch, int64_t kind,
                                    int64_t rows, int64_t threads) {
    struct product call = product_of(w, x, y, scratch, kind, rows, threads), *job = &call;
    int64_t groups = groups_of(job), high = across(job->outputs, BLOCK_ROWS);
    share_out(job, lay_group, groups, job->rows * job->columns < ALONE ? 1 : job->threads);
    if (groups == 1 && job->format <= INT8) share_out(job, multiply_block_rows, across(high, run_of(job)), job->threads);
    else share_out(job, multiply_blocks, across(high, SIDE * tiles_of(job)) * across(groups, GROUPS), job->threads);
}

/* The number of a format, or -1 where this processor has no way for it. */
EXPORT int64_t windlass_product_format(const char *name) {
    for (int64_t i = 0; i < (int64_t)(sizeof formats / sizeof *formats); i++)
        if (strcmp(formats[i].name, name) == 0) return i;
    return -1;
}

/* Bytes that a call needs for each row of x as it is multiplied. */
EXPORT int64_t windlass_row_scratch(const struct matrix *w, int64_t kind) {
    struct product job = product_of(w, NULL, NULL, NULL, kind, 1, 0);
    return (char *)sums_at(&job, 1) - (char *)job.laid;
}

/* And for each thread. */
EXPORT int64_t windlass_thread_scratch(const struct matrix *w) { return words_size(&w->foreign, w->columns); }
