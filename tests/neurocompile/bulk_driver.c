/* Pushes the same made-up stream in pieces of all sizes and one by one; exit code 1 if the answers differ. */

#include "neurocompile.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define EVENTS 3000

static uint32_t seed = 1;
static uint32_t below(uint32_t n) { return (seed = seed * 1664525u + 1013904223u) / 65536u % n; }

int main(int argc, char **argv) {
    static int64_t t[EVENTS];
    static uint16_t x[EVENTS], y[EVENTS];
    static uint8_t p[EVENTS];
    static const uint32_t pieces[] = {1, 3, 15, 16, 17, 64, 65, 333};
    nc_info info;
    nc_model *model;
    nc_session *bulk, *single;
    if (argc != 2 || nc_query(&info, sizeof info) || nc_model_open(argv[1], &model)) return 2;
    if (nc_session_open(model, 1, &bulk) || nc_session_open(model, 1, &single)) return 2;
    for (int k = 0; k < EVENTS; k++) {
        t[k] = (k ? t[k - 1] : 0) + below(500);
        x[k] = (uint16_t)below(info.width), y[k] = (uint16_t)below(info.height), p[k] = (uint8_t)below(2);
    }
    float *a = malloc(4 * info.classes), *b = malloc(4 * info.classes), worst = 0, largest = 1e-6f;
    unsigned char *kept = malloc(info.snapshot_bytes);
    for (size_t k = 0; k < EVENTS;) {
        size_t n = pieces[below(sizeof pieces / sizeof *pieces)];
        if (n > EVENTS - k) n = EVENTS - k;
        if (nc_snapshot(bulk, kept, info.snapshot_bytes) || nc_restore(bulk, kept, info.snapshot_bytes)) return 2;
        if (nc_push_many(bulk, n, t + k, x + k, y + k, p + k) < 0) return 2;
        if (nc_push_singly(single, n, t + k, x + k, y + k, p + k) < 0) return 2;
        k += n;
        if (nc_settle(bulk) || nc_settle(single)) return 2;
        if (nc_readout(bulk, a, info.classes) || nc_readout(single, b, info.classes)) return 2;
        for (uint32_t c = 0; c < info.classes; c++) {
            worst = fmaxf(worst, fabsf(a[c] - b[c]));
            largest = fmaxf(largest, fabsf(b[c]));
        }
    }
    printf("%g\n", worst / largest);
    free(kept), free(a), free(b);
    nc_session_close(bulk), nc_session_close(single), nc_model_close(model);
    return worst <= 1e-3f * largest ? 0 : 1;
}
