/* Threads that share out the items of a job: each takes the next item until none is left.
 *
 * With OpenMP they are torch's own, whose symbols are found where torch has loaded them; else they are made for a call.
 */

#pragma once

#include <stdatomic.h>
#include <stdint.h>
#if !defined(_OPENMP)
#include <pthread.h>
#endif

#include "lanes.h"

enum { MOST_THREADS = 256 };

/* `member` numbers the threads of a call from 0 on. */
typedef void work_of(const void *job, int64_t item, int64_t member);

struct crew {
    const void *job;
    work_of *work;
    int64_t items;
    _Atomic int64_t next;
    _Atomic int64_t members;
};

static void *take_part(void *given) {
    struct crew *crew = given;
    int64_t member = atomic_fetch_add(&crew->members, 1);
    for (;;) {
        int64_t item = atomic_fetch_add(&crew->next, 1);
        if (item >= crew->items) return NULL;
        crew->work(crew->job, item, member);
    }
}

static void share_out(const void *job, work_of *work, int64_t items, int64_t threads) {
    struct crew crew = {job, work, items, 0, 0};
    if (threads > items) threads = items;
    if (threads > MOST_THREADS) threads = MOST_THREADS;
    if (threads <= 1) {
        take_part(&crew);
        return;
    }
#if defined(_OPENMP)
#pragma omp parallel num_threads((int)threads)
    take_part(&crew);
#else
    pthread_t others[MOST_THREADS];
    int64_t begun = 0;
    while (begun + 1 < threads && pthread_create(&others[begun], NULL, take_part, &crew) == 0) begun++;
    take_part(&crew);
    for (int64_t i = 0; i < begun; i++) pthread_join(others[i], NULL);
#endif
}

/* Who the threads are, for people. */
EXPORT const char *windlass_threads(void) {
#if defined(_OPENMP)
    return "torch's own threads";
#else
    return "threads of its own";
#endif
}
