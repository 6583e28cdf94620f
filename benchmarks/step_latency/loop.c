/* Times a compiled model through its C interface, in the process that opened it: the functions of `neurocompile.h` come
 * as pointers, so that one copy of this library times any number of models.
 *
 * Clock: the time stamp counter between fences on x86-64, the monotonic clock elsewhere. Both are in `nl_tick`.
 */
#define _POSIX_C_SOURCE 199309L
#include <stddef.h>
#include <stdint.h>
#include <time.h>

typedef int (*push_function)(void *, int64_t, int32_t, int32_t, int32_t);
typedef int64_t (*push_many_function)(void *, size_t, const int64_t *, const uint16_t *, const uint16_t *,
                                      const uint8_t *);

/* Columns of a recording. */
typedef struct {
    size_t count;
    const int64_t *t;
    const uint16_t *x, *y;
    const uint8_t *p;
} events;

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static inline int64_t tick(void) {
#if defined(__x86_64__)
    __builtin_ia32_lfence();
    int64_t now = (int64_t)__builtin_ia32_rdtsc();
    __builtin_ia32_lfence();
    return now;
#else
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
#endif
}

/* Ticks per second into rate[0], measured over 50 ms; the least ticks between two reads into rate[1]. */
void nl_clock(double *rate) {
    double begin = seconds(CLOCK_MONOTONIC), end;
    int64_t first = tick(), last;
    do {
        end = seconds(CLOCK_MONOTONIC);
        last = tick();
    } while (end - begin < 0.05);
    rate[0] = (double)(last - first) / (end - begin);
    int64_t least = INT64_MAX;
    for (int k = 0; k < 100000; k++) {
        int64_t before = tick(), passed = tick() - before;
        least = passed < least ? passed : least;
    }
    rate[1] = (double)least;
}

/* Pushes `e` one event per call. Session s of `sessions` takes its own stretch of the recording, [s n, (s + 1) n) with
 * n = count / sessions, and the sessions take turns. spent[0] is processor time of this thread, spent[1] wall time.
 * Returns 0, or the code of the event that was refused. */
int nl_pass(push_function push, void *const *session, size_t sessions, const events *e, double *spent) {
    size_t each = e->count / sessions;
    double wall = seconds(CLOCK_MONOTONIC), processor = seconds(CLOCK_THREAD_CPUTIME_ID);
    for (size_t k = 0; k < each; k++)
        for (size_t s = 0; s < sessions; s++) {
            size_t n = s * each + k;
            int code = push(session[s], e->t[n], e->x[n], e->y[n], e->p[n]);
            if (code < 0) return code;
        }
    spent[0] = seconds(CLOCK_THREAD_CPUTIME_ID) - processor;
    spent[1] = seconds(CLOCK_MONOTONIC) - wall;
    return 0;
}

/* The same for the bulk call on one session. */
int nl_bulk(push_many_function push_many, void *session, const events *e, double *spent) {
    double wall = seconds(CLOCK_MONOTONIC), processor = seconds(CLOCK_THREAD_CPUTIME_ID);
    int64_t code = push_many(session, e->count, e->t, e->x, e->y, e->p);
    if (code < 0) return (int)code;
    spent[0] = seconds(CLOCK_THREAD_CPUTIME_ID) - processor;
    spent[1] = seconds(CLOCK_MONOTONIC) - wall;
    return 0;
}

/* Pushes one event per call and reads the clock around every block of events, [starts[b], starts[b + 1]).
 * ticks[b] is what block b took, the cost of one clock read included. */
int nl_blocks(push_function push, void *session, const events *e, size_t blocks, const int64_t *starts, int64_t *ticks) {
    for (size_t b = 0; b < blocks; b++) {
        int64_t before = tick();
        for (int64_t k = starts[b]; k < starts[b + 1]; k++) {
            int code = push(session, e->t[k], e->x[k], e->y[k], e->p[k]);
            if (code < 0) return code;
        }
        ticks[b] = tick() - before;
    }
    return 0;
}
