/* Times a compiled model through its C interface: one event per call, events from a file, results as raw numbers.
 *
 *   step_latency_loop BUNDLE EVENTS ROUNDS OUT
 *
 * EVENTS holds the count (int64), then columns t (int64), x, y (uint16), p (uint8). OUT receives, as float64: the cost
 * of reading the clock in ns; per round the processor seconds of a pass without clock reads, event by event and by
 * nc_push_many; then the nanoseconds of every event of one pass with clock reads. The first pass is a warm-up.
 */
#define _POSIX_C_SOURCE 199309L
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "neurocompile.h"

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int stop(const char *what) {
    fprintf(stderr, "%s\n", what);
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 5) return stop("usage: step_latency_loop BUNDLE EVENTS ROUNDS OUT");
    FILE *in = fopen(argv[2], "rb"), *out = fopen(argv[4], "wb");
    int64_t count = 0;
    if (!in || !out || fread(&count, 8, 1, in) != 1 || count < 1) return stop("cannot read the events");
    size_t n = (size_t)count;
    int64_t *t = malloc(8 * n);
    uint16_t *x = malloc(2 * n), *y = malloc(2 * n);
    uint8_t *p = malloc(n);
    double *samples = malloc(8 * n);
    if (!t || !x || !y || !p || !samples) return stop("out of memory");
    if (fread(t, 8, n, in) != n || fread(x, 2, n, in) != n || fread(y, 2, n, in) != n || fread(p, 1, n, in) != n)
        return stop("the events are cut short");
    nc_model *model;
    nc_session *session;
    int code = nc_model_open(argv[1], &model);
    if (code || (code = nc_session_open(model, 1.0, &session))) return stop(nc_message(code));

    int64_t begin = nanoseconds();
    for (int k = 0; k < 1000000; k++) nanoseconds();
    double result = (double)(nanoseconds() - begin) / 1e6;
    fwrite(&result, 8, 1, out);
    for (int round = -1; round < atoi(argv[3]); round++) {
        for (int many = 0; many < 2; many++) {
            nc_reset(session);
            double start = seconds(CLOCK_THREAD_CPUTIME_ID);
            if (many) nc_push_many(session, n, t, x, y, p);
            else
                for (size_t k = 0; k < n; k++)
                    if (nc_push(session, t[k], x[k], y[k], p[k]) < 0) return stop("an event was refused");
            result = seconds(CLOCK_THREAD_CPUTIME_ID) - start;
            if (round >= 0) fwrite(&result, 8, 1, out);
        }
    }
    nc_reset(session);
    for (size_t k = 0; k < n; k++) {
        int64_t before = nanoseconds();
        nc_push(session, t[k], x[k], y[k], p[k]);
        samples[k] = (double)(nanoseconds() - before);
    }
    fwrite(samples, 8, n, out);
    return fclose(out) ? stop("cannot write the results") : 0;
}
