/* Threads that stand by for the next product of a pass, and read ahead while they do.
 *
 * With one row of activations a product is short, and between two of them one thread works through Python and small
 * operations. Passes call the same products in the same order, so whoever has nothing to do asks for the first bytes of
 * the matrix that came next the last time: memory goes on being read. A prefetch of an address that is no longer there
 * does nothing, so what was learnt may be out of date.
 *
 * Work ends when it is done, not when all have come: a thread that another process keeps from its core is not waited
 * for, as OpenMP's barriers do (a pass beside one busy process: 0.25 s, against 1.8 s).
 *
 * OpenMP's threads spin for some milliseconds after their work, and would fight with these for the cores. So the crew
 * works only while packed products come in the order that was learnt, which is where little else is shared out: not
 * between plain products, which are torch's, nor with experts, whose routers are plain.
 */

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include "crew.h"

enum { PATIENCE = 1 << 17, CHUNK = 4096, MOST_AHEAD = 8 << 20, STEADY = 128 };
enum { FOLLOWER_BITS = 14, PROBES = 16 };

/* One caller at a time has the crew. `turn` counts the calls; who is `inside` may look at the work `at_hand`. */
static pthread_mutex_t door = PTHREAD_MUTEX_INITIALIZER, bed = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t bell = PTHREAD_COND_INITIALIZER;
static _Atomic int64_t turn, inside, asleep, wanted;
static struct crew *_Atomic at_hand;
static int64_t hired;
static pid_t owner;

/* What is read ahead of the next call, a chunk at a time. */
static const char *_Atomic ahead;
static _Atomic int64_t ahead_bytes, ahead_taken;

/* What was read after what. */
static struct follower {
    const void *before, *after;
    int64_t bytes;
} followers[1 << FOLLOWER_BITS];
static const void *last_read;
static int64_t as_learnt; /* packed products in a row that came as expected */

INLINE void breathe(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

INLINE struct follower *follower_of(const void *reads) {
    uint64_t home = (uint64_t)(uintptr_t)reads * 0x9e3779b97f4a7c15u >> (64 - FOLLOWER_BITS);
    for (uint64_t i = 0; i < PROBES; i++) {
        struct follower *found = followers + (home + i) % (1 << FOLLOWER_BITS);
        if (!found->before || found->before == reads) return found;
    }
    return followers + home;
}

static int read_ahead(void) {
    if (atomic_load_explicit(&ahead_taken, memory_order_relaxed) >= ahead_bytes) return 0;
    int64_t from = atomic_fetch_add_explicit(&ahead_taken, CHUNK, memory_order_relaxed);
    if (from >= ahead_bytes) return 0;
    for (int64_t i = 0; i < CHUNK; i += 64) __builtin_prefetch(ahead + from + i, 0, 2);
    return 1;
}

static void sleep_until_called(int64_t seen) {
    pthread_mutex_lock(&bed);
    atomic_fetch_add(&asleep, 1);
    while (atomic_load(&turn) == seen) pthread_cond_wait(&bell, &bed);
    atomic_fetch_sub(&asleep, 1);
    pthread_mutex_unlock(&bed);
}

static void *stand_by(void *given) {
    int64_t number = (int64_t)(intptr_t)given, seen = -1;
    for (;;) {
        for (int64_t waited = 0; atomic_load(&turn) == seen; waited++) {
            if (read_ahead()) continue;
            if (waited > PATIENCE) sleep_until_called(seen);
            breathe();
        }
        seen = atomic_load(&turn);
        /* The caller takes the work away before it asks who is inside: either we see nothing, or it waits for us. */
        atomic_fetch_add(&inside, 1);
        struct crew *crew = atomic_load(&at_hand);
        if (crew && number < atomic_load(&wanted)) take_part(crew);
        atomic_fetch_sub(&inside, 1);
    }
    return NULL;
}

/* Threads of a parent process are not there after a fork. Signals are for the threads that were there before. */
static void hire(int64_t count) {
    if (owner != getpid()) {
        owner = getpid(), hired = 0;
        atomic_store(&inside, 0), atomic_store(&asleep, 0);
        pthread_mutex_init(&bed, NULL), pthread_cond_init(&bell, NULL);
    }
    if (hired >= count) return;
    sigset_t every, before;
    sigfillset(&every);
    pthread_sigmask(SIG_SETMASK, &every, &before);
    for (pthread_t thread; hired < count; hired++) {
        if (pthread_create(&thread, NULL, stand_by, (void *)(intptr_t)hired)) break;
        pthread_detach(thread);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

INLINE void learn(const void *reads, int64_t bytes, int leads) {
    struct follower *next = follower_of(last_read);
    if (next->before != last_read || next->after != reads) as_learnt = 0;
    else as_learnt += leads;
    *next = (struct follower){last_read, reads, bytes};
    last_read = reads;
    atomic_store_explicit(&ahead_bytes, 0, memory_order_relaxed);
}

INLINE void expect(const void *reads) {
    struct follower *next = follower_of(reads);
    if (next->before != reads) return;
    atomic_store_explicit(&ahead, next->after, memory_order_relaxed);
    atomic_store_explicit(&ahead_taken, 0, memory_order_relaxed);
    atomic_store_explicit(&ahead_bytes, next->bytes < MOST_AHEAD ? next->bytes : MOST_AHEAD, memory_order_relaxed);
}

INLINE void work_together(struct crew *crew, int64_t threads) {
    hire(threads - 1);
    atomic_store(&wanted, threads - 1);
    atomic_store(&at_hand, crew);
    atomic_fetch_add(&turn, 1);
    if (atomic_load(&asleep)) {
        pthread_mutex_lock(&bed);
        pthread_cond_broadcast(&bell);
        pthread_mutex_unlock(&bed);
    }
    take_part(crew);
    atomic_store(&at_hand, NULL);
    for (int64_t waited = 0; atomic_load(&inside); waited++) waited < 4096 ? breathe() : (void)sched_yield();
}

/* As share_out; 0 where that is to be called instead. The work reads `bytes` of a matrix from `reads` on, or NULL;
 * it `leads` if it is a packed product. */
EXPORT int windlass_standing_crew(const void *job, work_of *work, int64_t items, int64_t threads, const void *reads,
                                  int64_t bytes, int leads) {
    struct crew crew = {job, work, items, 0, 0};
    if (pthread_mutex_trylock(&door)) return 0;
    if (reads) learn(reads, bytes, leads);
    int steady = as_learnt >= STEADY;
    if (threads > items) threads = items;
    if (threads > MOST_THREADS) threads = MOST_THREADS;
    if (steady && threads > 1) work_together(&crew, threads);
    else if (steady) take_part(&crew);
    if (steady && reads) expect(reads);
    pthread_mutex_unlock(&door);
    return steady;
}

/* How often the crew was called so far. */
EXPORT int64_t windlass_turns(void) { return atomic_load(&turn); }
