/* Packs rows of weights into Windlass's own blocks: the same arithmetic as kernels/block_fit.py, so the same bytes.
 *
 * What is done, and why, is said there. Here 16 rows of a block lie in the lanes of vectors and the columns follow
 * one another, so that sums are added up in the order of the columns whatever the width of a vector. Compiled without
 * contraction: a fused product would round differently from torch.
 *
 * Legend: a block is ROWS rows by COLUMNS columns; s, z are scale and offset in units of the group's half range.
 */

#include "byte_search.h"

enum { CELLS = 32, LEVELS = 16, BOOKS = 4 };

/* A codebook, and for the fast way which of its middles lies in which cell of a line cut evenly. */
struct book {
    float level[LEVELS], middle[LEVELS];
    float cell_scale, cell_shift, edge[CELLS];
    int32_t base[CELLS];
};

struct line {
    floats scale, offset, error;
};

/* To the nearest bfloat16 whose two lowest bits are `book`. */
INLINE floats marked(floats a, uint32_t book) {
    words bits = (words)a, sign = bits & 0x80000000u, size = bits & 0x7fffffffu;
    words moved = size + 0x20000u - (book << 16);
    moved = (words)pick((words)(moved > 0x80000000u), all(0.0f), (floats)moved);
    return (floats)(sign | ((moved >> 18 << 18) + (book << 16)));
}

INLINE int cell_of(float x, const struct book *book) {
    float at = x * book->cell_scale + book->cell_shift;
    at = at > 0.0f ? at : 0.0f;
    return (int)(at < CELLS - 1 ? at : CELLS - 1);
}

/* Fills the cells; false where two middles share one, so that cells cannot tell. */
static int cut(struct book *book, float cells, float shift) {
    book->cell_scale = cells / (book->middle[LEVELS - 2] - book->middle[0]);
    book->cell_shift = shift - book->middle[0] * book->cell_scale;
    for (int i = 0; i < CELLS; i++) book->edge[i] = INFINITY, book->base[i] = 0;
    for (int i = 0; i + 1 < LEVELS; i++) {
        int cell = cell_of(book->middle[i], book);
        if (book->edge[cell] != INFINITY) return 0;
        book->edge[cell] = book->middle[i];
        for (int above = cell + 1; above < CELLS; above++) book->base[above]++;
    }
    return 1;
}

/* False where no way of cutting was found. */
static int lay_out(struct book *book, const float *levels) {
    for (int i = 0; i < LEVELS; i++) book->level[i] = levels[i];
    for (int i = 0; i + 1 < LEVELS; i++) book->middle[i] = (levels[i + 1] + levels[i]) * 0.5f;
    for (int cells = CELLS - 1; cells >= LEVELS; cells--)
        for (int step = 0; step < 20; step++)
            if (cut(book, cells, step * 0.05f)) return 1;
    return 0;
}

/* How many middles lie below x, and the level there. */
INLINE floats nearest_level(floats x, const struct book *book, int by_cells, words *code) {
#if defined(__AVX512F__)
    if (by_cells) {
        __m512 at = _mm512_add_ps(_mm512_mul_ps((__m512)x, _mm512_set1_ps(book->cell_scale)),
                                  _mm512_set1_ps(book->cell_shift));
        at = _mm512_min_ps(_mm512_max_ps(at, _mm512_setzero_ps()), _mm512_set1_ps(CELLS - 1));
        __m512i cell = _mm512_cvttps_epi32(at);
        __m512 edge = _mm512_permutex2var_ps(_mm512_loadu_ps(book->edge), cell, _mm512_loadu_ps(book->edge + 16));
        __m512i base = _mm512_permutex2var_epi32(_mm512_loadu_si512(book->base), cell,
                                                 _mm512_loadu_si512(book->base + 16));
        __mmask16 above = _mm512_cmp_ps_mask((__m512)x, edge, _CMP_GT_OQ);
        base = _mm512_mask_add_epi32(base, above, base, _mm512_set1_epi32(1));
        *code = (words)base;
        return (floats)_mm512_permutexvar_ps(base, _mm512_loadu_ps(book->level));
    }
#endif
    floats level = all(book->level[0]);
    words count = (words)all(0.0f);
    for (int i = 0; i + 1 < LEVELS; i++) {
        words above = (words)(x > book->middle[i]);
        level = pick(above, all(book->level[i + 1]), level);
        count -= above;
    }
    *code = count;
    return level;
}

/* Codes nearest to y on a line, then the line that fits them best by weighted least squares. */
INLINE struct line improved(const struct group *group, const struct book *book, int by_cells,
                            struct line line) {
    floats over = inverse(line.scale), sum = all(0.0f), squares = all(0.0f), products = all(0.0f);
    for (int k = 0; k < COLUMNS; k++) {
        words code;
        floats level = nearest_level((group->y[k] - line.offset) * over, book, by_cells, &code);
        floats weighted = group->h[k] * level;
        sum += weighted;
        squares += weighted * level;
        products += weighted * group->y[k];
    }
    floats mean = sum / group->total;
    floats together = products - mean * group->sum_y, apart = squares - mean * sum;
    words sound = (words)(apart > 1e-6f) & (words)(magnitude(together) > 1e-12f);
    floats scale = pick(sound, together / apart, line.scale);
    floats offset = pick(sound, group->mean_y - scale * mean, line.offset);
    return (struct line){scale, offset, group->spread_y - scale * together};
}

/* The scale that fits best once the offset is what its bytes say. */
INLINE floats refitted(const struct group *group, const struct book *book, int by_cells, floats scale,
                       floats offset) {
    floats over = inverse(scale), squares = all(0.0f), products = all(0.0f);
    for (int k = 0; k < COLUMNS; k++) {
        words code;
        floats from = group->w[k] - offset;
        floats level = nearest_level(from * over, book, by_cells, &code);
        floats weighted = group->h[k] * level;
        squares += weighted * level;
        products += weighted * from;
    }
    return pick((words)(squares > 0.0f), products / squares, scale);
}

/* Keeps scale and offset where the error they leave is the smallest so far. */
INLINE void judge(const struct group *group, const struct book *book, int by_cells, floats scale,
                  floats offset, struct best *best) {
    floats over = inverse(scale), error = all(0.0f);
    words codes[COLUMNS];
    for (int k = 0; k < COLUMNS; k++) {
        floats level = nearest_level((group->w[k] - offset) * over, book, by_cells, &codes[k]);
        floats miss = (level * scale + offset - group->w[k]) * group->over_half;
        error += group->h[k] * miss * miss;
    }
    words better = (words)(error < best->error);
    best->scale = pick(better, scale, best->scale);
    best->offset = pick(better, offset, best->offset);
    best->error = pick(better, error, best->error);
    for (int k = 0; k < COLUMNS; k++) best->codes[k] = (codes[k] & better) | (best->codes[k] & ~better);
}

/* The best start, improved; a first scale spreads the levels over a share of the range. */
INLINE struct line fitted(const struct group *group, const struct book *book, int by_cells, float lowest,
                          float highest, float sign, const struct packing *job) {
    struct line best = {all(0.0f), all(0.0f), all(INFINITY)};
    for (int64_t i = 0; i < job->start_count; i++) {
        float scale = sign * 2.0f * job->starts[i] / (highest - lowest);
        struct line line = {all(scale), all(-scale * (highest + lowest) * 0.5f), all(0.0f)};
        line = improved(group, book, by_cells, line);
        words better = (words)(line.error < best.error);
        best.scale = pick(better, line.scale, best.scale);
        best.offset = pick(better, line.offset, best.offset);
        best.error = pick(better, line.error, best.error);
    }
    for (int64_t i = 0; i < job->rounds; i++) best = improved(group, book, by_cells, best);
    return best;
}

INLINE void fit_levels(const struct group *group, const struct book *books, int by_cells, const struct packing *job,
                       struct best *best) {
    for (uint32_t number = 0; number < BOOKS; number++)
        for (int mirrored = 0; mirrored < 2; mirrored++) {
            const struct book *book = books + number;
            struct line line = fitted(group, book, by_cells, book->level[0], book->level[LEVELS - 1],
                                      mirrored ? -1.0f : 1.0f, job);
            floats offset = marked(line.offset * group->half + group->middle, number);
            floats scale = rounded(line.scale * group->half);
            scale = rounded(refitted(group, book, by_cells, scale, offset));
            judge(group, book, by_cells, scale, offset, best);
        }
}
static void fit_by_cells(const struct group *group, const struct book *books, const struct packing *job,
                         struct best *best) {
    fit_levels(group, books, 1, job, best);
}
static void fit_by_counting(const struct group *group, const struct book *books, const struct packing *job,
                            struct best *best) {
    fit_levels(group, books, 0, job, best);
}

/* Reads a group of 16 rows into lanes; what lies beyond rows is zero, beyond columns the row's first number. Returns
 * how many numbers are not finite. */
static int64_t gather(const struct packing *job, int64_t row, int64_t column, float (*lanes)[ROWS]) {
    int64_t wrong = 0, width = job->columns - column < COLUMNS ? job->columns - column : COLUMNS;
    for (int r = 0; r < ROWS; r++) {
        if (row + r >= job->rows) {
            for (int k = 0; k < COLUMNS; k++) lanes[k][r] = 0.0f;
            continue;
        }
        int64_t at = (row + r) * job->row_step + column;
        for (int64_t k = 0; k < width; k++) {
            float value = widen(job->weights, at + k, job->kind);
            wrong += !(value - value == 0.0f);
            lanes[k][r] = value;
        }
        for (int64_t k = width; k < COLUMNS; k++) lanes[k][r] = lanes[0][r];
    }
    return wrong;
}

static void prepare(struct group *group, const float (*lanes)[ROWS], int part, const float *importance) {
    floats lowest, highest;
    for (int k = 0; k < COLUMNS; k++) {
        floats w;
        memcpy(&w, lanes[k] + part * LANES, sizeof w);
        group->w[k] = w, group->h[k] = importance[k];
        lowest = k ? lower_of(w, lowest) : w;
        highest = k ? upper_of(w, highest) : w;
    }
    group->middle = highest * 0.5f + lowest * 0.5f;
    group->half = upper_of(highest * 0.5f - lowest * 0.5f, magnitude(group->middle) * 0.0078125f);
    group->half = upper_of(group->half, all(1e-30f));
    group->over_half = 1.0f / group->half;
    group->total = 0.0f;
    group->sum_y = all(0.0f);
    floats squares = all(0.0f);
    for (int k = 0; k < COLUMNS; k++) {
        group->y[k] = (group->w[k] - group->middle) * group->over_half;
        floats weighted = group->h[k] * group->y[k];
        group->total += group->h[k];
        group->sum_y += weighted;
        squares += weighted * group->y[k];
    }
    group->mean_y = group->sum_y / group->total;
    group->spread_y = squares - group->mean_y * group->sum_y;
}

/* The level nearest to x in each lane's own book, which the low bits of the offset name. */
INLINE floats nearest_marked(floats x, const struct book *books, words number, words *code) {
    floats level = all(0.0f);
    *code = (words)level;
    for (uint32_t i = 0; i < BOOKS; i++) {
        words own, mine = (words)(number == i);
        floats here = nearest_level(x, books + i, 0, &own);
        level = pick(mine, here, level);
        *code = (own & mine) | (*code & ~mine);
    }
    return level;
}

/* Chooses codes anew, a column after another, each for what the errors of those before have made of it: the products
 * with inputs that go together then differ less. */
static void pass_on(const struct group *group, const struct book *books, int64_t bits, const float *passing,
                    struct best *best) {
    floats w[COLUMNS], over = inverse(best->scale), error = all(0.0f);
    words number = (words)best->offset >> 16 & 3u;
    memcpy(w, group->w, sizeof w);
    for (int k = 0; k < COLUMNS; k++) {
        floats x = (w[k] - best->offset) * over;
        floats level = bits == 8 ? nearest_byte(x, &best->codes[k]) : nearest_marked(x, books, number, &best->codes[k]);
        floats value = level * best->scale + best->offset;
        floats left = w[k] - value, miss = (value - group->w[k]) * group->over_half;
        error += group->h[k] * miss * miss;
        for (int j = k + 1; j < COLUMNS; j++) w[j] -= left * passing[k * COLUMNS + j];
    }
    best->error = error;
}

/* Adds up what the blocks leave of the weights, for people: in doubles, a lane after another. */
static void account(const struct group *group, const struct best *best, int64_t lanes, double *sums) {
    double squares[LANES] = {0.0};
    for (int k = 0; k < COLUMNS; k++)
        for (int i = 0; i < LANES; i++) squares[i] += (double)group->h[k] * group->w[k][i] * group->w[k][i];
    for (int64_t i = 0; i < LANES && i < lanes; i++) {
        sums[0] += (double)best->error[i] * group->half[i] * group->half[i];
        sums[1] += squares[i];
    }
}

static void write_block(uint8_t *block, int64_t bits, uint8_t (*codes)[ROWS], const float *scale, const float *offset) {
    if (bits == 4)
        for (int q = 0; q < COLUMNS / 4; q++)
            for (int r = 0; r < ROWS; r++)
                for (int p = 0; p < 2; p++) block[32 * q + 2 * r + p] = codes[4 * q + p][r] | codes[4 * q + 2 + p][r] << 4;
    else
        for (int k = 0; k < COLUMNS; k++)
            for (int r = 0; r < ROWS; r++) block[32 * (k / 2) + 2 * r + k % 2] = codes[k][r];
    uint16_t *ends = (uint16_t *)(block + ROWS * COLUMNS * bits / 8);
    for (int r = 0; r < ROWS; r++) {
        uint32_t word;
        memcpy(&word, scale + r, 4);
        ends[r] = word >> 16;
        memcpy(&word, offset + r, 4);
        ends[ROWS + r] = word >> 16;
    }
}

/* Fills the blocks, rows by rows; returns how many numbers were not finite, for which blocks mean nothing. */
EXPORT int64_t windlass_pack(const struct packing *job) {
    struct book books[BOOKS];
    int by_cells = 1;
    for (int i = 0; i < BOOKS; i++) by_cells &= lay_out(books + i, job->books + i * LEVELS);
    int64_t wrong = 0, across = (job->columns + COLUMNS - 1) / COLUMNS;
    int64_t size = ROWS * COLUMNS * job->bits / 8 + 4 * ROWS;
    for (int64_t row = 0; row < job->rows; row += ROWS)
        for (int64_t b = 0; b < across; b++) {
            float lanes[COLUMNS][ROWS], scale[ROWS], offset[ROWS];
            uint8_t codes[COLUMNS][ROWS];
            wrong += gather(job, row, b * COLUMNS, lanes);
            for (int part = 0; part < PARTS; part++) {
                struct group group;
                struct best best = {all(0.0f), all(0.0f), all(INFINITY), {{0}}};
                prepare(&group, (const float(*)[ROWS])lanes, part, job->importance + b * COLUMNS);
                if (job->bits == 8) fit_bytes(&group, job, &best);
                else if (by_cells) fit_by_cells(&group, books, job, &best);
                else fit_by_counting(&group, books, job, &best);
                if (job->passing) pass_on(&group, books, job->bits, job->passing + b * COLUMNS * COLUMNS, &best);
                account(&group, &best, job->rows - row - part * LANES, job->sums);
                store(scale + part * LANES, best.scale);
                store(offset + part * LANES, best.offset);
                for (int k = 0; k < COLUMNS; k++)
                    for (int i = 0; i < LANES; i++) codes[k][part * LANES + i] = best.codes[k][i];
            }
            write_block(job->blocks + ((row / ROWS) * across + b) * size, job->bits, codes, scale, offset);
        }
    return wrong;
}

/* Whether levels are found by cells, which is the fast way, for these codebooks (4, 16). */
EXPORT int windlass_packs_by_cells(const float *levels) {
    struct book books[BOOKS];
    int by_cells = 1;
    for (int i = 0; i < BOOKS; i++) by_cells &= lay_out(books + i, levels + i * LEVELS);
    return by_cells;
}
