/* neurocompile: the C interface of a compiled stream program, version 1.
 *
 * One library holds the code of one program; its weights lie beside it in `model.weights`. A model (weights, read only)
 * is shared by any number of sessions; a session is one event stream with its own state. Functions on different
 * sessions may run at the same time; one session is used by one thread at a time. After `nc_session_open` nothing
 * allocates, locks or sets errno.
 *
 * Functions that can fail return `NC_OK` or a negative code, for which `nc_message` has a sentence. A call that fails
 * leaves the session as it was. Times are in ticks; a session is told how many microseconds one tick lasts.
 */
#ifndef NEUROCOMPILE_H
#define NEUROCOMPILE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NC_ABI_VERSION 1

enum {
    NC_OK = 0,
    NC_ERROR_ARGUMENT = -1,  /* a pointer is null or a number impossible */
    NC_ERROR_FILE = -2,      /* the weights cannot be opened or read */
    NC_ERROR_WEIGHTS = -3,   /* the weights are damaged or belong to another library */
    NC_ERROR_MEMORY = -4,    /* out of memory */
    NC_ERROR_SIZE = -5,      /* a buffer has another size than needed */
    NC_ERROR_SENSOR = -6,    /* an event lies outside the sensor */
    NC_ERROR_TIME = -7,      /* an event goes back in time, or its time is impossible */
    NC_ERROR_TOKEN = -8,     /* an event has a token outside the vocabulary */
    NC_ERROR_SNAPSHOT = -9,  /* a snapshot is damaged or belongs to another program */
    NC_ERROR_PROCESSOR = -10, /* the processor lacks instructions that the library was compiled for */
    NC_ERROR_STILL = -11      /* all events of a window have the same time */
};

typedef struct nc_model nc_model;
typedef struct nc_session nc_session;

/* What there is to know about a program; filled by `nc_query`. */
typedef struct nc_info {
    uint32_t abi;            /* NC_ABI_VERSION of the library */
    uint32_t classes;        /* length of the readout */
    uint32_t states;         /* number of state tensors */
    uint32_t first_readout;  /* items after which the readout rests on a complete group */
    uint32_t width, height;  /* of the sensor */
    uint32_t bulk_items;     /* pushes of at least so many events share the reading of weights; 0: none do */
    uint32_t delay_items;    /* items that an answer may lack, see `nc_settle`; 0: it lacks none */
    uint64_t session_bytes;  /* memory of one session */
    uint64_t snapshot_bytes; /* size of a snapshot */
    uint64_t weights_bytes;  /* size of model.weights */
    char name[64];           /* of the program's family */
} nc_info;

/* One state tensor; filled by `nc_describe_state`. */
typedef struct nc_state_info {
    const char *name;
    const char *dtype; /* NumPy's name */
    uint64_t bytes;
} nc_state_info;

/* Where a stream is: everything a session remembers besides its states. */
typedef struct nc_position {
    int64_t events;  /* events taken since the last reset */
    int64_t last;    /* time of the last one, in ticks */
    int64_t pending; /* its token, while it waits for the gap after it */
    int64_t items;   /* items processed */
    int64_t token;   /* values of the last item */
    double elapsed;  /* sum of all gaps in milliseconds */
    float dt;
    float elapsed_item;
} nc_position;

#ifndef NC_API
#define NC_API
#endif

/* The library. */
NC_API uint32_t nc_abi_version(void);
NC_API const char *nc_message(int code);
NC_API int nc_query(nc_info *info, size_t size_of_info);
NC_API const char *nc_label(uint32_t number); /* NULL beyond the last, or where the model has no labels */
NC_API int nc_describe_state(uint32_t number, nc_state_info *info);

/* Models. `folder` is the bundle; the bytes given to `nc_model_from_memory` are copied. Close a model after its sessions. */
NC_API int nc_model_open(const char *folder, nc_model **model);
NC_API int nc_model_from_memory(const void *weights, size_t size, nc_model **model);
NC_API void nc_model_close(nc_model *model);

/* Sessions. `nc_session_place` builds one in memory of the caller's, aligned to 64 bytes; it needs no closing. */
NC_API int nc_session_open(const nc_model *model, double tick_us, nc_session **session);
NC_API int nc_session_place(const nc_model *model, double tick_us, void *memory, size_t size, nc_session **session);
NC_API void nc_session_close(nc_session *session);
NC_API int nc_reset(nc_session *session);

/* Events: x column or channel, y row or ear, p polarity. All return the number of items that became complete.
 * `nc_push_many` puts firings off until several can share the reading of weights, and is up to date when it returns;
 * `nc_push_singly` takes one event after the other. */
NC_API int nc_push(nc_session *session, int64_t t, int32_t x, int32_t y, int32_t p);
NC_API int64_t nc_push_many(nc_session *session, size_t count, const int64_t *t, const uint16_t *x, const uint16_t *y,
                            const uint8_t *p);
NC_API int64_t nc_push_singly(nc_session *session, size_t count, const int64_t *t, const uint16_t *x,
                              const uint16_t *y, const uint8_t *p);

/* Exported with --smooth, a library spreads rare work over the events that follow, and an answer may lack what the last
 * `delay_items` items would have brought. This does all work that is left; afterwards nothing is lacking. */
NC_API int nc_settle(nc_session *session);

/* The running answer, one number per class. `count` must be `classes`. */
NC_API int nc_readout(nc_session *session, float *logits, size_t count);

/* State. Sizes must be exactly those that `nc_query` and `nc_describe_state` tell. */
NC_API int nc_get_state(const nc_session *session, uint32_t number, void *data, size_t size);
NC_API int nc_set_state(nc_session *session, uint32_t number, const void *data, size_t size);
NC_API int nc_get_position(const nc_session *session, nc_position *position, size_t size_of_position);
NC_API int nc_set_position(nc_session *session, const nc_position *position, size_t size_of_position);
/* Programs that answer for windows: part 0 are the newest events, oldest first, as many as a window at most; part 1 is the
 * last complete window. Set the position first. */
NC_API int nc_get_window(const nc_session *session, uint32_t part, int64_t *token, int64_t *time, size_t count);
NC_API int nc_set_window(nc_session *session, uint32_t part, const int64_t *token, const int64_t *time, size_t count);
NC_API int nc_snapshot(const nc_session *session, void *data, size_t size);
NC_API int nc_restore(nc_session *session, const void *data, size_t size);

#ifdef __cplusplus
}
#endif
#endif
