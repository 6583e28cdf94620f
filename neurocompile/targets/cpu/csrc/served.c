/* A session that is driven through pipes, so that a library for another processor can be run in an emulator: commands
 * of one letter and their arguments come in, a 64-bit code and its data go out. Not part of a bundle. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "neurocompile.h"
#if defined(NC_CLUSTERS)
#include "clusters.h"
#endif

static void take(void *data, size_t size) {
    if (size && fread(data, size, 1, stdin) != 1) exit(0); /* The other side is gone. */
}

static void give(int64_t code, const void *data, size_t size) {
    fwrite(&code, sizeof code, 1, stdout);
    if (code >= 0 && size) fwrite(data, size, 1, stdout);
    fflush(stdout);
}

static void *room(size_t size) {
    void *memory = malloc(size ? size : 1);
    if (!memory) {
        fputs("out of memory\n", stderr);
        exit(1);
    }
    return memory;
}

/* `weighted`: intensities follow. */
static int64_t push_many(nc_session *session, int weighted) {
    uint64_t count;
    take(&count, sizeof count);
    int64_t *t = room(8 * count);
    uint16_t *x = room(2 * count), *y = room(2 * count);
    uint8_t *p = room(count);
    take(t, 8 * count);
    take(x, 2 * count);
    take(y, 2 * count);
    take(p, count);
    float *intensity = room(4 * count);
    if (weighted) take(intensity, 4 * count);
#if defined(NC_CLUSTERS)
    int64_t made = weighted ? nc_push_clusters(session, count, t, x, y, p, intensity)
                            : nc_push_many(session, count, t, x, y, p);
#else
    int64_t made = weighted ? NC_ERROR_ARGUMENT : nc_push_many(session, count, t, x, y, p);
#endif
    free(intensity);
    free(t);
    free(x);
    free(y);
    free(p);
    return made;
}

static int64_t push(nc_session *session) {
    struct {
        int64_t t;
        int32_t x, y, p, unused;
    } event;
    take(&event, sizeof event);
    return nc_push(session, event.t, event.x, event.y, event.p);
}

int main(int count, char **arguments) {
    if (count != 3) {
        fputs("usage: served FOLDER TICK_US\n", stderr);
        return 2;
    }
    nc_model *model;
    nc_session *session;
    int code = nc_model_open(arguments[1], &model);
    if (!code) code = nc_session_open(model, atof(arguments[2]), &session);
    if (code) {
        fprintf(stderr, "%s\n", nc_message(code));
        return 1;
    }
    nc_info info;
    nc_query(&info, sizeof info);
    float *logits = room(sizeof *logits * info.classes);
    unsigned char *snapshot = room(info.snapshot_bytes);
    give(0, NULL, 0);
    for (;;) {
        char command;
        take(&command, 1);
        if (command == 'e') {
            give(push(session), NULL, 0);
        } else if (command == 'm' || command == 'w') {
            give(push_many(session, command == 'w'), NULL, 0);
        } else if (command == 'a') {
            give(nc_readout(session, logits, info.classes), logits, sizeof *logits * info.classes);
        } else if (command == 's') {
            uint32_t number;
            nc_state_info about = {0};
            take(&number, sizeof number);
            code = nc_describe_state(number, &about);
            void *data = room(about.bytes);
            if (!code) code = nc_get_state(session, number, data, about.bytes);
            give(code, data, about.bytes);
            free(data);
        } else if (command == 'i') {
            nc_position position;
            code = nc_get_position(session, &position, sizeof position);
            give(code ? code : position.items, NULL, 0);
        } else if (command == '0') {
            give(nc_reset(session), NULL, 0);
        } else if (command == 'f') {
            give(nc_settle(session), NULL, 0);
        } else if (command == 'g') {
            code = nc_snapshot(session, snapshot, info.snapshot_bytes);
            give(code ? code : (int64_t)info.snapshot_bytes, snapshot, info.snapshot_bytes);
        } else if (command == 'p') {
            take(snapshot, info.snapshot_bytes);
            give(nc_restore(session, snapshot, info.snapshot_bytes), NULL, 0);
        } else {
            fprintf(stderr, "unknown command %d\n", command);
            return 2;
        }
    }
}
