/* Finds a scale and an offset for whole numbers of a byte: the same arithmetic as kernels/byte_fit.py, so the same bytes.
 *
 * What is done, and why, is said there.
 */

#pragma once

#include "weight_groups.h"

enum { KEPT = 4, SHIFTS = 8 };

/* A scale and how much of it the offset lies above the middle; the error that is guessed, in units of the half range. */
struct place {
    floats guess, scale, phase;
};

INLINE floats weighted(const struct group *group, int k, floats x, int even) { return even ? x : group->h[k] * x; }

/* x less the nearest whole number. */
INLINE floats apart(floats x) {
    const float round = 12582912.0f; /* 1.5 * 2^23 */
    return x - ((x + round) - round);
}

/* The best offset for a scale: the error is a wave over it, of which four points are known. */
INLINE struct place guessed(const struct group *group, floats scale, int even) {
    floats over = group->half / scale;
    floats squares = all(0.0f), sizes = squares, squares_between = squares, sizes_between = squares;
    for (int k = 0; k < COLUMNS; k++) {
        floats x = group->y[k] * over;
        floats miss = apart(x), between = apart(x - 0.25f);
        squares += weighted(group, k, miss * miss, even);
        sizes += weighted(group, k, magnitude(miss), even);
        squares_between += weighted(group, k, between * between, even);
        sizes_between += weighted(group, k, magnitude(between), even);
    }
    floats opposite = squares - sizes + group->total * 0.25f;
    floats opposite_between = squares_between - sizes_between + group->total * 0.25f;
    floats u = (opposite - squares) * 0.5f, v = (opposite_between - squares_between) * 0.5f;
    floats mean = ((squares + squares_between) + (opposite + opposite_between)) * 0.25f;
    floats more = upper_of(magnitude(u), magnitude(v)), less = lower_of(magnitude(u), magnitude(v));
    floats ratio = less * inverse(more);
    floats phase = ratio * (0.16842f - ratio * 0.0434f);
    phase = pick((words)(magnitude(v) > magnitude(u)), 0.25f - phase, phase);
    phase = pick((words)(u < 0.0f), 0.5f - phase, phase);
    phase = pick((words)(v < 0.0f), 1.0f - phase, phase);
    floats beyond = upper_of(magnitude(phase - 0.5f) + over - 128.0f, all(0.0f));
    floats unit = scale * group->over_half;
    floats left = mean - (more * 0.96f + less * 0.398f) + beyond * (group->total * 0.03125f);
    return (struct place){unit * unit * left, scale, phase};
}

/* The offset that bfloat16 holds nearest to `phase` scales above the middle, or to as many more or less that no number
 * falls off the end. */
INLINE floats held_offset(const struct group *group, floats scale, floats phase) {
    floats exact = group->middle + phase * scale;
    floats offset = rounded(exact), miss = magnitude(offset - exact), room = scale * 128.0f - group->half;
    for (int shift = -SHIFTS; shift <= SHIFTS; shift++) {
        floats moved = phase + (float)shift, there = group->middle + moved * scale, held = rounded(there);
        floats off = magnitude(held - there);
        words better = (words)(off < miss) & (words)(magnitude(moved - 0.5f) * scale <= room);
        offset = pick(better, held, offset);
        miss = pick(better, off, miss);
    }
    return offset;
}

INLINE void weigh_bytes(const struct group *group, floats scale, floats offset, struct best *best, int even) {
    floats over = inverse(scale), error = all(0.0f);
    for (int k = 0; k < COLUMNS; k++) {
        words code;
        floats level = nearest_byte((group->w[k] - offset) * over, &code);
        floats miss = (level * scale + offset - group->w[k]) * group->over_half;
        error += weighted(group, k, miss * miss, even);
    }
    words better = (words)(error < best->error);
    best->scale = pick(better, scale, best->scale);
    best->offset = pick(better, offset, best->offset);
    best->error = pick(better, error, best->error);
}

/* The whole range without a search: whatever the offset's bytes make of it, nothing is cut off. */
INLINE void weigh_range(const struct group *group, struct best *best, int even) {
    floats offset = rounded(group->middle), lowest = group->w[0], highest = group->w[0];
    for (int k = 1; k < COLUMNS; k++) {
        lowest = lower_of(group->w[k], lowest);
        highest = upper_of(group->w[k], highest);
    }
    floats reach = upper_of(upper_of(highest - offset, offset - lowest), all(1e-30f)) * (1.0f / 127.0f);
    weigh_bytes(group, (floats)(((words)reach + 0xffffu) & 0xffff0000u), offset, best, even);
}

INLINE void search_bytes(const struct group *group, const struct packing *job, struct best *best, int even) {
    struct place kept[KEPT];
    for (int i = 0; i < KEPT; i++) kept[i] = (struct place){all(INFINITY), group->half, all(0.0f)};
    words least = ((words)(group->half * 0.0078125f) + 0xffffu) & 0xffff0000u;
    for (uint32_t step = 0; step < job->rounds; step++) {
        struct place place = guessed(group, (floats)(least + (step << 16)), even);
        for (int i = 0; i < KEPT; i++) {
            words better = (words)(place.guess < kept[i].guess);
            struct place worse = kept[i];
            kept[i].guess = pick(better, place.guess, worse.guess);
            kept[i].scale = pick(better, place.scale, worse.scale);
            kept[i].phase = pick(better, place.phase, worse.phase);
            place.guess = pick(better, worse.guess, place.guess);
            place.scale = pick(better, worse.scale, place.scale);
            place.phase = pick(better, worse.phase, place.phase);
        }
    }
    weigh_range(group, best, even);
    for (int i = 0; i < KEPT; i++)
        for (int64_t j = 0; j < job->start_count; j++)
            weigh_bytes(group, kept[i].scale, held_offset(group, kept[i].scale, kept[i].phase + job->starts[j]), best,
                        even);
    floats over = inverse(best->scale);
    for (int k = 0; k < COLUMNS; k++) nearest_byte((group->w[k] - best->offset) * over, &best->codes[k]);
}
static void fit_bytes_evenly(const struct group *group, const struct packing *job, struct best *best) {
    search_bytes(group, job, best, 1);
}
static void fit_bytes_weighted(const struct group *group, const struct packing *job, struct best *best) {
    search_bytes(group, job, best, 0);
}

/* Where all columns count 1, nothing need be multiplied with it. */
static void fit_bytes(const struct group *group, const struct packing *job, struct best *best) {
    int even = 1;
    for (int k = 0; k < COLUMNS; k++) even &= group->h[k] == 1.0f;
    if (even) fit_bytes_evenly(group, job, best);
    else fit_bytes_weighted(group, job, best);
}
