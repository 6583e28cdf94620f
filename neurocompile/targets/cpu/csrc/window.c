/* Front end window: of every NC_EVERY events the last is taken. A ring holds the newest N that were; the last N become an
 * item every H of them, from the N-th on. Where items have intensities, clusters.c offers pushes with them. */

static int64_t nc_taken(const nc_stream *s) { return s->position.events / NC_EVERY; }

/* Whether the event after `events` completes an item. */
static int nc_due(int64_t events) {
    const int64_t taken = (events + 1) / NC_EVERY;
    return (events + 1) % NC_EVERY == 0 && taken >= NC_WINDOW && (taken - NC_WINDOW) % NC_HOP == 0;
}

static int64_t nc_kept(const nc_stream *s) { return nc_taken(s) < NC_WINDOW ? nc_taken(s) : NC_WINDOW; }

/* The newest events, oldest first: from the ring to two columns, or back. */
static void nc_unroll(const nc_stream *s, int64_t *token, int64_t *time) {
    const int64_t kept = nc_kept(s), oldest = (nc_taken(s) - kept) % NC_WINDOW;
    for (int64_t k = 0; k < kept; k++) {
        const int64_t slot = oldest + k < NC_WINDOW ? oldest + k : oldest + k - NC_WINDOW;
        token[k] = s->window.token[slot];
        time[k] = s->window.time[slot];
    }
}

#if NC_INTENSITY
static void nc_unroll_intensity(const nc_stream *s, float *intensity) {
    const int64_t kept = nc_kept(s), oldest = (nc_taken(s) - kept) % NC_WINDOW;
    for (int64_t k = 0; k < kept; k++) intensity[k] = s->window.intensity[(oldest + k) % NC_WINDOW];
}
#endif

/* Takes a checked event; returns whether a window became complete and was processed. */
static int nc_take(nc_session *session, int64_t t, int64_t token, float intensity) {
    nc_stream *s = &session->stream;
    const int due = nc_due(s->position.events);
    if ((s->position.events + 1) % NC_EVERY == 0) {
        const int64_t slot = nc_taken(s) % NC_WINDOW;
        s->window.token[slot] = token;
        s->window.time[slot] = t;
#if NC_INTENSITY
        s->window.intensity[slot] = intensity;
#endif
    }
    (void)intensity;
    s->position.events++;
    s->position.last = t;
    if (!due) return 0;
    nc_unroll(s, s->window.item_token, s->window.item_time);
#if NC_INTENSITY
    nc_unroll_intensity(s, s->window.item_intensity);
#endif
    nc_item(s, session->weights);
    s->position.items++;
    return 1;
}

static int nc_push_one(nc_session *session, int64_t t, int32_t x, int32_t y, int32_t p, float intensity) {
    if (!session) return NC_ERROR_ARGUMENT;
    const nc_stream *s = &session->stream;
    const int64_t events = s->position.events;
    int code = nc_check(s->position.last, events == 0, t, x, y);
    if (code) return code;
    if (NC_SCALED && nc_due(events) && s->window.time[(nc_taken(s) + 1) % NC_WINDOW] == t) return NC_ERROR_STILL;
    return nc_take(session, t, nc_token(x, y, p != 0), intensity);
}

/* The time of the event that was taken as number `number`, from 0, where those of a push follow those in the ring. */
static int64_t nc_time_of(const nc_stream *s, int64_t number, const int64_t *t) {
    const int64_t at = (number + 1) * NC_EVERY - 1 - s->position.events;
    return at >= 0 ? t[at] : s->window.time[number % NC_WINDOW];
}

/* `intensity` may be NULL: single events. */
static int64_t nc_push_all(nc_session *session, size_t count, const int64_t *t, const uint16_t *x, const uint16_t *y,
                           const uint8_t *p, const float *intensity) {
    if (!session || (count && (!t || !x || !y || !p))) return NC_ERROR_ARGUMENT;
    const nc_stream *s = &session->stream;
    const int64_t events = s->position.events;
    int64_t last = s->position.last;
    for (size_t k = 0; k < count; k++) {
        int code = nc_check(last, events == 0 && k == 0, t[k], x[k], y[k]);
        if (code) return code;
        last = t[k];
    }
    for (size_t k = 0; NC_SCALED && k < count; k++) {
        if (!nc_due(events + (int64_t)k)) continue;
        const int64_t oldest = (events + (int64_t)k + 1) / NC_EVERY - NC_WINDOW;
        if (nc_time_of(s, oldest, t) == t[k]) return NC_ERROR_STILL;
    }
    int64_t items = 0;
    for (size_t k = 0; k < count; k++)
        items += nc_take(session, t[k], nc_token(x[k], y[k], p[k] != 0), intensity ? intensity[k] : 1);
    return items;
}

int nc_push(nc_session *session, int64_t t, int32_t x, int32_t y, int32_t p) {
    return nc_push_one(session, t, x, y, p, 1);
}

int64_t nc_push_many(nc_session *session, size_t count, const int64_t *t, const uint16_t *x, const uint16_t *y,
                     const uint8_t *p) {
    return nc_push_all(session, count, t, x, y, p, NULL);
}

int nc_get_window(const nc_session *session, uint32_t part, int64_t *token, int64_t *time, size_t count) {
    if (!session || part > 1 || (count && (!token || !time))) return NC_ERROR_ARGUMENT;
    const nc_stream *s = &session->stream;
    if (count != (part ? NC_WINDOW : (size_t)nc_kept(s))) return NC_ERROR_SIZE;
    if (part) {
        memcpy(token, s->window.item_token, sizeof s->window.item_token);
        memcpy(time, s->window.item_time, sizeof s->window.item_time);
    } else {
        nc_unroll(s, token, time);
    }
    return NC_OK;
}

/* Whether events can be those of a stream: tokens index tables, times do not decrease. */
static int nc_events_fit(const int64_t *token, const int64_t *time, size_t count) {
    for (size_t k = 0; k < count; k++)
        if (token[k] < 0 || token[k] >= NC_VOCABULARY || time[k] < -NC_LATEST || time[k] > NC_LATEST ||
            (k && time[k] < time[k - 1]))
            return 0;
    return 1;
}

int nc_set_window(nc_session *session, uint32_t part, const int64_t *token, const int64_t *time, size_t count) {
    if (!session || part > 1 || (count && (!token || !time))) return NC_ERROR_ARGUMENT;
    nc_stream *s = &session->stream;
    if (count != (part ? NC_WINDOW : (size_t)nc_kept(s))) return NC_ERROR_SIZE;
    if (!nc_events_fit(token, time, count)) return NC_ERROR_SNAPSHOT;
    if (part) {
        memcpy(s->window.item_token, token, sizeof s->window.item_token);
        memcpy(s->window.item_time, time, sizeof s->window.item_time);
        return NC_OK;
    }
    if (count && (time[count - 1] > s->position.last || (NC_EVERY == 1 && time[count - 1] != s->position.last)))
        return NC_ERROR_SNAPSHOT;
    for (size_t k = 0; k < count; k++) {
        const int64_t slot = (nc_taken(s) - (int64_t)(count - k)) % NC_WINDOW;
        s->window.token[slot] = token[k];
        s->window.time[slot] = time[k];
    }
    return NC_OK;
}

/* Whether a stream that was copied from outside can continue. */
static int nc_window_fits(const nc_window *window) {
    for (int64_t k = 0; k < NC_WINDOW; k++) {
        const int64_t token[] = {window->token[k], window->item_token[k]};
        const int64_t time[] = {window->time[k], window->item_time[k]};
        for (int part = 0; part < 2; part++)
            if (!nc_events_fit(token + part, time + part, 1)) return 0;
#if NC_INTENSITY
        if (!(window->intensity[k] >= 0 && window->item_intensity[k] >= 0)) return 0;
#endif
    }
    return 1;
}

int64_t nc_push_singly(nc_session *session, size_t count, const int64_t *t, const uint16_t *x, const uint16_t *y,
                       const uint8_t *p) {
    return nc_push_many(session, count, t, x, y, p);
}
