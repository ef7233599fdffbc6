/* x as it is multiplied: groups of up to FEW rows, (pairs of columns, parts, rows of the group).
 *
 * Rows are divided evenly, since a group of few rows leaves the processor waiting for its own sums. After all groups
 * come the sums over the columns that share a scale, (such runs, rows of the group) for each group. Before all of it
 * is each thread's own place for the words of columns that are wanted in another order.
 *
 * Included where `struct product` and `given` are known.
 */

#pragma once

INLINE int64_t groups_of(const struct product *job) { return across(job->rows, FEW); }
INLINE int64_t first_row(const struct product *job, int64_t group) { return group * job->rows / groups_of(job); }
INLINE given *group_at(const struct product *job, int64_t row) {
    return job->laid + row * parts_of(job) * PAIRS * across(job->columns, BLOCK_COLUMNS);
}
INLINE float *sums_at(const struct product *job, int64_t row) {
    int64_t each = across(job->columns, BLOCK_COLUMNS) * (BLOCK_COLUMNS / width_of(job));
    return (float *)group_at(job, job->rows) + row * each;
}

/* A multiple of 512 bytes: columns that have an order are a multiple of 32. */
INLINE int64_t words_size(const struct foreign *foreign, int64_t columns) {
    return foreign->order ? SIDE * BLOCK_ROWS * columns : 0;
}
INLINE uint8_t *words_of(const struct product *job, int64_t member) {
    return job->words + member * words_size(&job->foreign, job->columns);
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

/* A whole block's columns of a row, as they lie: bfloat16 numbers are pairs already. */
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
    const int32_t *order = job->foreign.order;
    int width = width_of(job);
    for (int64_t k = 0; k < columns; k += BLOCK_COLUMNS) {
        float numbers[BLOCK_COLUMNS] = {0};
        int count = (int)lesser(columns - k, BLOCK_COLUMNS);
        if (!order && count == BLOCK_COLUMNS) lay_block(job, at + k, numbers, to, step, kind, parts);
        else {
            for (int i = 0; i < count; i++) numbers[i] = widen(job->x, at + (order ? order[k + i] : k + i), kind);
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
