/* Pushes of clusters, see clusters.h. */

static int nc_intensities_fit(const float *intensity, size_t count) {
    for (size_t k = 0; k < count; k++)
        if (!(intensity[k] >= 0 && isfinite(intensity[k]))) return 0;
    return 1;
}

int nc_push_cluster(nc_session *session, int64_t t, int32_t x, int32_t y, int32_t p, float intensity) {
    return nc_intensities_fit(&intensity, 1) ? nc_push_one(session, t, x, y, p, intensity) : NC_ERROR_ARGUMENT;
}

int64_t nc_push_clusters(nc_session *session, size_t count, const int64_t *t, const uint16_t *x, const uint16_t *y,
                         const uint8_t *p, const float *intensity) {
    if ((count && !intensity) || !nc_intensities_fit(intensity, count)) return NC_ERROR_ARGUMENT;
    return nc_push_all(session, count, t, x, y, p, intensity);
}

int nc_get_intensity(const nc_session *session, uint32_t part, float *intensity, size_t count) {
    if (!session || part > 1 || (count && !intensity)) return NC_ERROR_ARGUMENT;
    const nc_stream *s = &session->stream;
    if (count != (part ? NC_WINDOW : (size_t)nc_kept(s))) return NC_ERROR_SIZE;
    if (part)
        memcpy(intensity, s->window.item_intensity, sizeof s->window.item_intensity);
    else
        nc_unroll_intensity(s, intensity);
    return NC_OK;
}

int nc_set_intensity(nc_session *session, uint32_t part, const float *intensity, size_t count) {
    if (!session || part > 1 || (count && !intensity)) return NC_ERROR_ARGUMENT;
    nc_stream *s = &session->stream;
    if (count != (part ? NC_WINDOW : (size_t)nc_kept(s))) return NC_ERROR_SIZE;
    if (!nc_intensities_fit(intensity, count)) return NC_ERROR_SNAPSHOT;
    for (size_t k = 0; k < count; k++) {
        if (part)
            s->window.item_intensity[k] = intensity[k];
        else
            s->window.intensity[(nc_taken(s) - (int64_t)(count - k)) % NC_WINDOW] = intensity[k];
    }
    return NC_OK;
}
