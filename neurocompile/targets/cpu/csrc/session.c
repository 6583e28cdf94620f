/* Sessions and the C interface; the front end follows, token_dt.c or window.c. The program above defines the NC_ constants, `nc_stream`, `nc_item`,
 * `nc_answer`, `nc_recount`, `nc_reset_states`, `nc_prefetch`, `nc_states` and `nc_labels`. */

#include <stdio.h>
#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h> /* model.c asks for _DEFAULT_SOURCE, without which -std=c17 hides MADV_HUGEPAGE */
#endif

#define NC_LATEST ((int64_t)1 << 62)
#define NC_HUGE_PAGE ((size_t)2 << 20)

struct nc_session {
    nc_stream stream;
    const unsigned char *weights;
    double tick_us;
#if NC_SCRATCH
    _Alignas(64) unsigned char scratch[NC_SCRATCH];
#endif
};
#if defined(NC_WINDOW)
static int nc_window_fits(const nc_window *window);
#endif
#if NC_SCRATCH
static unsigned char *nc_scratch(nc_stream *s) { return ((nc_session *)s)->scratch; }
#endif

typedef struct {
    unsigned char magic[8];
    unsigned char program[32];
    uint64_t size;
    unsigned char padding[16];
} nc_weights_header;

typedef struct {
    unsigned char magic[8];
    unsigned char program[32];
} nc_snapshot_header;

static const unsigned char nc_weights_magic[8] = {'N', 'C', 'W', 'E', 'I', 'G', 'H', '1'};
static const unsigned char nc_snapshot_magic[8] = {'N', 'C', 'S', 'N', 'A', 'P', 'S', '1'};

/* -- library ------------------------------------------------------------------------------------------------------ */

/* What is called before the processor has been asked is plain code, see processor.c. */

NC_PLAIN uint32_t nc_abi_version(void) { return NC_ABI_VERSION; }

NC_PLAIN const char *nc_message(int code) {
    static const char *const sentences[] = {
        "no error",
        "an argument is null or out of range",
        "the weights cannot be opened or read",
        "the weights are damaged or belong to another library; export the model again",
        "out of memory",
        "a buffer has another size than nc_query tells",
        "an event lies outside the model's sensor",
        "an event is earlier than the one before it, or its time is impossible",
        "an event has a token outside the model's vocabulary",
        "a snapshot is damaged or was taken of another program",
        "this processor lacks instructions that the library was compiled for",
        "all events of a window have the same time, for which the model has no answer",
    };
    return code <= 0 && code > -(int)(sizeof sentences / sizeof *sentences) ? sentences[-code] : "unknown error";
}

NC_PLAIN int nc_query(nc_info *info, size_t size_of_info) {
    static const nc_info about = {
        .abi = NC_ABI_VERSION,
        .classes = NC_CLASSES,
        .states = NC_STATES,
        .first_readout = NC_FIRST_READOUT,
        .width = NC_WIDTH,
        .height = NC_HEIGHT,
        .bulk_items = NC_BULK_ITEMS,
        .delay_items = NC_DELAY_ITEMS,
        .session_bytes = sizeof(nc_session),
        .snapshot_bytes = sizeof(nc_snapshot_header) + sizeof(nc_stream),
        .weights_bytes = NC_WEIGHTS_BYTES,
        .name = NC_FAMILY,
    };
    if (!info) return NC_ERROR_ARGUMENT;
    if (size_of_info != sizeof *info) return NC_ERROR_SIZE;
    *info = about;
    return NC_OK;
}

NC_PLAIN const char *nc_label(uint32_t number) {
#if NC_LABELS
    if (number < NC_LABELS) return nc_labels[number];
#endif
    (void)number;
    return NULL;
}

NC_PLAIN int nc_describe_state(uint32_t number, nc_state_info *info) {
    if (!info || number >= NC_STATES) return NC_ERROR_ARGUMENT;
    info->name = nc_states[number].name;
    info->dtype = nc_states[number].dtype;
    info->bytes = nc_states[number].bytes;
    return NC_OK;
}

/* -- models ------------------------------------------------------------------------------------------------------- */

/* Huge pages where the system has them: a firing walks through megabytes of weights. */
static unsigned char *nc_weights_memory(void) {
    size_t size = (NC_WEIGHTS_BYTES + NC_HUGE_PAGE - 1) / NC_HUGE_PAGE * NC_HUGE_PAGE;
    unsigned char *memory = aligned_alloc(NC_HUGE_PAGE, size);
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (memory) madvise(memory, size, MADV_HUGEPAGE);
#endif
    return memory;
}

static int nc_header_fits(const unsigned char *weights) {
    nc_weights_header header;
    memcpy(&header, weights, sizeof header);
    return !memcmp(header.magic, nc_weights_magic, 8) && !memcmp(header.program, nc_program_id, 32) &&
           header.size == NC_WEIGHTS_BYTES;
}

static __attribute__((noinline)) int nc_from_memory(const void *weights, size_t size, nc_model **model) {
    if (size != NC_WEIGHTS_BYTES || !nc_header_fits(weights)) return NC_ERROR_WEIGHTS;
    unsigned char *memory = nc_weights_memory();
    if (!memory) return NC_ERROR_MEMORY;
    memcpy(memory, weights, size);
    *model = (nc_model *)memory;
    return NC_OK;
}

static __attribute__((noinline)) int nc_from_folder(const char *folder, nc_model **model) {
    char path[4096];
    int length = snprintf(path, sizeof path, "%s/model.weights", folder);
    if (length < 0 || (size_t)length >= sizeof path) return NC_ERROR_ARGUMENT;
    FILE *file = fopen(path, "rb");
    if (!file) return NC_ERROR_FILE;
    unsigned char *memory = nc_weights_memory();
    if (!memory) {
        fclose(file);
        return NC_ERROR_MEMORY;
    }
    size_t done = fread(memory, 1, NC_WEIGHTS_BYTES, file);
    int more = fgetc(file) != EOF;
    int failed = ferror(file);
    fclose(file);
    if (failed || more || done != NC_WEIGHTS_BYTES || !nc_header_fits(memory)) {
        free(memory);
        return failed ? NC_ERROR_FILE : NC_ERROR_WEIGHTS;
    }
    *model = (nc_model *)memory;
    return NC_OK;
}

NC_PLAIN int nc_model_from_memory(const void *weights, size_t size, nc_model **model) {
    if (!model) return NC_ERROR_ARGUMENT;
    *model = NULL;
    if (!weights) return NC_ERROR_ARGUMENT;
    return nc_processor_fits() ? nc_from_memory(weights, size, model) : NC_ERROR_PROCESSOR;
}

NC_PLAIN int nc_model_open(const char *folder, nc_model **model) {
    if (!model) return NC_ERROR_ARGUMENT;
    *model = NULL;
    if (!folder) return NC_ERROR_ARGUMENT;
    return nc_processor_fits() ? nc_from_folder(folder, model) : NC_ERROR_PROCESSOR;
}

void nc_model_close(nc_model *model) { free(model); }

/* -- sessions ----------------------------------------------------------------------------------------------------- */

int nc_reset(nc_session *session) {
    if (!session) return NC_ERROR_ARGUMENT;
    memset(&session->stream, 0, sizeof session->stream);
    nc_reset_states(&session->stream);
    return NC_OK;
}

int nc_session_place(const nc_model *model, double tick_us, void *memory, size_t size, nc_session **session) {
    if (!session) return NC_ERROR_ARGUMENT;
    *session = NULL;
    if (!model || !memory || (uintptr_t)memory % 64 || !(tick_us > 0 && isfinite(tick_us))) return NC_ERROR_ARGUMENT;
    if (size < sizeof(nc_session)) return NC_ERROR_SIZE;
    nc_session *made = memory;
    made->weights = (const unsigned char *)model;
    made->tick_us = tick_us;
    nc_reset(made);
    *session = made;
    return NC_OK;
}

int nc_session_open(const nc_model *model, double tick_us, nc_session **session) {
    if (!session) return NC_ERROR_ARGUMENT;
    *session = NULL;
    void *memory = aligned_alloc(64, (sizeof(nc_session) + 63) / 64 * 64);
    if (!memory) return NC_ERROR_MEMORY;
    int code = nc_session_place(model, tick_us, memory, sizeof(nc_session), session);
    if (code) free(memory);
    return code;
}

void nc_session_close(nc_session *session) { free(session); }

/* -- events ------------------------------------------------------------------------------------------------------- */

NC_INLINE int nc_check(int64_t last, int first, int64_t t, int32_t x, int32_t y) {
    if ((uint32_t)x >= NC_WIDTH || (uint32_t)y >= NC_HEIGHT) return NC_ERROR_SENSOR;
    if (t < -NC_LATEST || t > NC_LATEST || (!first && t < last)) return NC_ERROR_TIME;
    return NC_OK;
}

NC_INLINE int64_t nc_token(int64_t x, int64_t y, int64_t p) {
#if NC_RULE == 0
    (void)y;
    (void)p;
    return x;
#elif NC_RULE == 1
    return x * y + (int64_t)NC_WIDTH * NC_HEIGHT * p;
#else
    return x + NC_WIDTH * y + (int64_t)NC_WIDTH * NC_HEIGHT * p;
#endif
}

/* nc_push and nc_push_many are the front end's: token_dt.c or window.c. */

int nc_settle(nc_session *session) {
    if (!session) return NC_ERROR_ARGUMENT;
#if NC_DELAY_ITEMS
    nc_finish(&session->stream, session->weights);
#endif
    return NC_OK;
}

int nc_readout(nc_session *session, float *logits, size_t count) {
    if (!session || !logits) return NC_ERROR_ARGUMENT;
    if (count != NC_CLASSES) return NC_ERROR_SIZE;
    nc_answer(&session->stream, session->weights, logits);
    return NC_OK;
}

/* -- state -------------------------------------------------------------------------------------------------------- */

int nc_get_state(const nc_session *session, uint32_t number, void *data, size_t size) {
    if (!session || !data || number >= NC_STATES) return NC_ERROR_ARGUMENT;
    if (size != nc_states[number].bytes) return NC_ERROR_SIZE;
    memcpy(data, (const char *)&session->stream + nc_states[number].offset, size);
    return NC_OK;
}

int nc_set_state(nc_session *session, uint32_t number, const void *data, size_t size) {
    if (!session || !data || number >= NC_STATES) return NC_ERROR_ARGUMENT;
    if (size != nc_states[number].bytes) return NC_ERROR_SIZE;
    memcpy((char *)&session->stream + nc_states[number].offset, data, size);
    return NC_OK;
}

int nc_get_position(const nc_session *session, nc_position *position, size_t size_of_position) {
    if (!session || !position) return NC_ERROR_ARGUMENT;
    if (size_of_position != sizeof *position) return NC_ERROR_SIZE;
    *position = session->stream.position;
    return NC_OK;
}

/* Whether a session can continue from here: tokens index tables. */
static int nc_position_fits(const nc_position *p) {
    return p->events >= 0 && p->items >= 0 && p->items <= p->events && p->last >= -NC_LATEST && p->last <= NC_LATEST &&
           p->pending >= 0 && p->pending < NC_VOCABULARY && p->token >= 0 && p->token < NC_VOCABULARY;
}

int nc_set_position(nc_session *session, const nc_position *position, size_t size_of_position) {
    if (!session || !position) return NC_ERROR_ARGUMENT;
    if (size_of_position != sizeof *position) return NC_ERROR_SIZE;
    if (!nc_position_fits(position)) return NC_ERROR_SNAPSHOT;
    session->stream.position = *position;
    nc_recount(&session->stream);
#if NC_DELAY_ITEMS
    nc_drop(&session->stream);
#endif
    return NC_OK;
}

int nc_snapshot(const nc_session *session, void *data, size_t size) {
    if (!session || !data) return NC_ERROR_ARGUMENT;
    if (size != sizeof(nc_snapshot_header) + sizeof(nc_stream)) return NC_ERROR_SIZE;
    nc_snapshot_header header;
    memcpy(header.magic, nc_snapshot_magic, sizeof header.magic);
    memcpy(header.program, nc_program_id, sizeof header.program);
    memcpy(data, &header, sizeof header);
    memcpy((char *)data + sizeof header, &session->stream, sizeof session->stream);
    return NC_OK;
}

int nc_restore(nc_session *session, const void *data, size_t size) {
    if (!session || !data) return NC_ERROR_ARGUMENT;
    if (size != sizeof(nc_snapshot_header) + sizeof(nc_stream)) return NC_ERROR_SIZE;
    nc_snapshot_header header;
    memcpy(&header, data, sizeof header);
    if (memcmp(header.magic, nc_snapshot_magic, 8) || memcmp(header.program, nc_program_id, 32))
        return NC_ERROR_SNAPSHOT;
    nc_position position;
    memcpy(&position, (const char *)data + sizeof header + offsetof(nc_stream, position), sizeof position);
    if (!nc_position_fits(&position)) return NC_ERROR_SNAPSHOT;
#if defined(NC_WINDOW)
    nc_window window;
    memcpy(&window, (const char *)data + sizeof header + offsetof(nc_stream, window), sizeof window);
    if (!nc_window_fits(&window)) return NC_ERROR_SNAPSHOT;
#endif
    memcpy(&session->stream, (const char *)data + sizeof header, sizeof session->stream);
#if !NC_DELAY_ITEMS
    nc_recount(&session->stream);
#endif
    return NC_OK;
}
