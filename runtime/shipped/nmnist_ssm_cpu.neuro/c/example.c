/* Reads a recording (N-MNIST .bin: 5 bytes an event, big-endian) and prints the label every 1000 events.
 *
 *   cc -O2 example.c ../libmodel.so -o example && LD_LIBRARY_PATH=.. ./example .. recording.bin
 */
#include <stdio.h>
#include <stdlib.h>

#include "neurocompile.h"

static int fail(const char *what, int code) {
    fprintf(stderr, "%s: %s\n", what, nc_message(code));
    return 1;
}

/* Prints the number of events and the best class. */
static int answer(nc_session *session, const nc_info *info, float *logits, long events) {
    int code = nc_readout(session, logits, info->classes);
    if (code) return fail("readout", code);
    uint32_t best = 0;
    for (uint32_t k = 1; k < info->classes; k++)
        if (logits[k] > logits[best]) best = k;
    const char *label = nc_label(best);
    if (label)
        printf("%ld %s %g\n", events, label, (double)logits[best]);
    else
        printf("%ld %u %g\n", events, (unsigned)best, (double)logits[best]);
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s BUNDLE RECORDING.bin\n", argv[0]);
        return 2;
    }
    nc_info info;
    nc_model *model;
    nc_session *session;
    int code = nc_query(&info, sizeof info);
    if (!code) code = nc_model_open(argv[1], &model);
    if (code) return fail(argv[1], code);
    code = nc_session_open(model, 1.0, &session);
    FILE *file = fopen(argv[2], "rb");
    float *logits = malloc(info.classes * sizeof *logits);
    if (code || !file || !logits) return fail(argv[2], code ? code : NC_ERROR_FILE);

    unsigned char row[5];
    long events = 0;
    int64_t wraps = 0, before = 0;
    while (fread(row, 1, sizeof row, file) == sizeof row) {
        int64_t t = (int64_t)(row[2] & 0x7f) << 16 | row[3] << 8 | row[4];
        if (row[1] == 240) { /* the clock of the sensor has come round */
            wraps++;
            continue;
        }
        t += wraps << 13;
        if (t < before) t = before;
        code = nc_push(session, t, row[0], row[1], row[2] >> 7);
        if (code < 0) return fail("event", code);
        before = t;
        if (++events % 1000 == 0 && answer(session, &info, logits, events)) return 1;
    }
    code = answer(session, &info, logits, events);
    free(logits);
    fclose(file);
    nc_session_close(session);
    nc_model_close(model);
    return code;
}
