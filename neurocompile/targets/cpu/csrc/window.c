/* Front end window: a ring of the newest N events; the last N become an item every H events, from the N-th on. */

static int nc_due(int64_t events) { return events >= NC_WINDOW && (events - NC_WINDOW) % NC_HOP == 0; }

static int64_t nc_kept(const nc_stream *s) {
    return s->position.events < NC_WINDOW ? s->position.events : NC_WINDOW;
}

/* The newest events, oldest first: from the ring to two columns, or back. */
static void nc_unroll(const nc_stream *s, int64_t *token, int64_t *time) {
    const int64_t kept = nc_kept(s), oldest = (s->position.events - kept) % NC_WINDOW;
    for (int64_t k = 0; k < kept; k++) {
        int64_t slot = oldest + k < NC_WINDOW ? oldest + k : oldest + k - NC_WINDOW;
        token[k] = s->window.token[slot];
        time[k] = s->window.time[slot];
    }
}

/* Takes a checked event; returns whether a window became complete and was processed. */
static int nc_take(nc_session *session, int64_t t, int64_t token) {
    nc_stream *s = &session->stream;
    const int64_t slot = s->position.events % NC_WINDOW;
    s->window.token[slot] = token;
    s->window.time[slot] = t;
    s->position.events++;
    s->position.last = t;
    if (!nc_due(s->position.events)) return 0;
    nc_unroll(s, s->window.item_token, s->window.item_time);
    nc_item(s, session->weights);
    s->position.items++;
    return 1;
}

int nc_push(nc_session *session, int64_t t, int32_t x, int32_t y, int32_t p) {
    if (!session) return NC_ERROR_ARGUMENT;
    const nc_stream *s = &session->stream;
    const int64_t events = s->position.events;
    int code = nc_check(s->position.last, events == 0, t, x, y);
    if (code) return code;
    if (nc_due(events + 1) && s->window.time[(events + 1) % NC_WINDOW] == t) return NC_ERROR_STILL;
    return nc_take(session, t, nc_token(x, y, p != 0));
}

int64_t nc_push_many(nc_session *session, size_t count, const int64_t *t, const uint16_t *x, const uint16_t *y,
                     const uint8_t *p) {
    if (!session || (count && (!t || !x || !y || !p))) return NC_ERROR_ARGUMENT;
    const nc_stream *s = &session->stream;
    const int64_t events = s->position.events;
    int64_t last = s->position.last;
    for (size_t k = 0; k < count; k++) {
        int code = nc_check(last, events == 0 && k == 0, t[k], x[k], y[k]);
        if (code) return code;
        last = t[k];
    }
    for (size_t k = 0; k < count; k++) {
        if (!nc_due(events + (int64_t)k + 1)) continue;
        const int64_t oldest = (int64_t)k + 1 - NC_WINDOW;
        if ((oldest >= 0 ? t[oldest] : s->window.time[(events + oldest) % NC_WINDOW]) == t[k]) return NC_ERROR_STILL;
    }
    int64_t items = 0;
    for (size_t k = 0; k < count; k++) items += nc_take(session, t[k], nc_token(x[k], y[k], p[k] != 0));
    return items;
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
    if (count && time[count - 1] != s->position.last) return NC_ERROR_SNAPSHOT;
    for (size_t k = 0; k < count; k++) {
        const int64_t slot = (s->position.events - (int64_t)(count - k)) % NC_WINDOW;
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
    }
    return 1;
}

int64_t nc_push_singly(nc_session *session, size_t count, const int64_t *t, const uint16_t *x, const uint16_t *y,
                       const uint8_t *p) {
    return nc_push_many(session, count, t, x, y, p);
}
