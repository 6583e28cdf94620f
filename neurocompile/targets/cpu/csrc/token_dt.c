/* Front end token_dt: a token and the gap before or after it. */

/* Takes a checked event; returns whether an item became complete and was processed. */
NC_INLINE int nc_take(nc_session *session, int64_t t, int64_t token, void *bulk) {
    nc_stream *s = &session->stream;
    int first = s->position.events == 0;
    int64_t gap = first ? 0 : t - s->position.last;
    s->position.events++;
    s->position.last = t;
#if NC_GAP_AFTER
    int64_t now = s->position.pending;
    s->position.pending = token;
    /* The row is needed when the next event arrives: by then it is in the cache. */
    if (first || !NC_SPREAD) nc_prefetch(session->weights, token);
    if (first) return 0;
    token = now;
#endif
#ifdef NC_FIXED_DT
    (void)gap;
    float dt = (float)(NC_FIXED_DT / 1000);
#else
    float dt = (float)((double)gap * session->tick_us / 1000);
#endif
    s->position.elapsed += dt;
    s->position.token = token;
    s->position.dt = dt;
    s->position.elapsed_item = (float)s->position.elapsed;
#if NC_BULK_ITEMS
    if (bulk) nc_bulk_item(s, session->weights, bulk);
    else
#endif
        nc_item(s, session->weights);
    (void)bulk;
    s->position.items++;
    return 1;
}

int nc_push(nc_session *session, int64_t t, int32_t x, int32_t y, int32_t p) {
    if (!session) return NC_ERROR_ARGUMENT;
    const nc_stream *s = &session->stream;
    int code = nc_check(s->position.last, s->position.events == 0, t, x, y);
    if (code) return code;
    int64_t token = nc_token(x, y, p != 0);
    if (token >= NC_VOCABULARY) return NC_ERROR_TOKEN;
    return nc_take(session, t, token, NULL);
}

static int64_t nc_push_all(nc_session *session, size_t count, const int64_t *t, const uint16_t *x, const uint16_t *y,
                           const uint8_t *p, int in_bulk) {
    if (!session || (count && (!t || !x || !y || !p))) return NC_ERROR_ARGUMENT;
    const nc_stream *s = &session->stream;
    int64_t last = s->position.last;
    for (size_t k = 0; k < count; k++) {
        int code = nc_check(last, s->position.events == 0 && k == 0, t[k], x[k], y[k]);
        if (!code && nc_token(x[k], y[k], p[k] != 0) >= NC_VOCABULARY) code = NC_ERROR_TOKEN;
        if (code) return code;
        last = t[k];
    }
    int64_t items = 0;
#if NC_BULK_ITEMS
    if (in_bulk && count >= NC_BULK_ITEMS) {
        nc_bulk bulk;
#if NC_DELAY_ITEMS
        nc_finish(&session->stream, session->weights);
#endif
        nc_bulk_begin(&bulk);
        for (size_t k = 0; k < count; k++) {
#if !NC_GAP_AFTER
            if (k + 1 < count) nc_prefetch(session->weights, nc_token(x[k + 1], y[k + 1], p[k + 1] != 0));
#endif
            items += nc_take(session, t[k], nc_token(x[k], y[k], p[k] != 0), &bulk);
        }
        nc_bulk_end(&session->stream, session->weights, &bulk);
        return items;
    }
#endif
    for (size_t k = 0; k < count; k++) {
#if !NC_GAP_AFTER
        if (k + 1 < count) nc_prefetch(session->weights, nc_token(x[k + 1], y[k + 1], p[k + 1] != 0));
#endif
        items += nc_take(session, t[k], nc_token(x[k], y[k], p[k] != 0), NULL);
    }
    (void)in_bulk;
    return items;
}

int64_t nc_push_many(nc_session *session, size_t count, const int64_t *t, const uint16_t *x, const uint16_t *y,
                     const uint8_t *p) {
    return nc_push_all(session, count, t, x, y, p, 1);
}

int64_t nc_push_singly(nc_session *session, size_t count, const int64_t *t, const uint16_t *x, const uint16_t *y,
                       const uint8_t *p) {
    return nc_push_all(session, count, t, x, y, p, 0);
}

int nc_get_window(const nc_session *session, uint32_t part, int64_t *token, int64_t *time, size_t count) {
    (void)session, (void)part, (void)token, (void)time, (void)count;
    return NC_ERROR_ARGUMENT;
}

int nc_set_window(nc_session *session, uint32_t part, const int64_t *token, const int64_t *time, size_t count) {
    (void)session, (void)part, (void)token, (void)time, (void)count;
    return NC_ERROR_ARGUMENT;
}
