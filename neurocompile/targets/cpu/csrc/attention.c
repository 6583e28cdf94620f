/* Forgetting attention of one head, blockwise, with running maximum and sum: see the op `forgetting_attention`.
 * Everything is in powers of two, so that exp(s) = 2^(s log2 e). */

#define NC_JOIN_TEXT(a, b) a##b
#define NC_JOIN(a, b) NC_JOIN_TEXT(a, b)
#define NC_LOG2_E 1.4426950408889634
#define NC_HIDDEN -1e30f

/* Less than half a unit in the last place of a sum of at least 1, with room for the rounding of the bound itself. */
#define NC_LEAST -24.5f

/* Scores are in `s` and their maximum in `top`: takes the keys' weights and values into the running sums. */
NC_INLINE void nc_absorb(float *s, ptrdiff_t keys, ptrdiff_t width, const float *value, ptrdiff_t step, const vf *top,
                         vf *most, vf *mass, float *o) {
    vi grew = {0};
    for (int v = 0; v < NC_QUERY_VECTORS; v++) grew |= top[v] > most[v];
    if (nc_any(grew)) {
        for (int v = 0; v < NC_QUERY_VECTORS; v++) {
            vf shrink = nc_power(most[v] - top[v]);
            most[v] = top[v];
            mass[v] *= shrink;
            for (ptrdiff_t d = 0; d < width; d++) {
                float *place = o + d * NC_QUERIES + v * NC_LANES;
                nc_store(place, nc_load(place) * shrink);
            }
        }
    }
    for (int v = 0; v < NC_QUERY_VECTORS; v++) {
        vf sum = mass[v];
        for (ptrdiff_t j = 0; j < keys; j++) {
            float *place = s + j * NC_QUERIES + v * NC_LANES;
            vf p = nc_power(nc_load(place) - most[v]);
            nc_store(place, p);
            sum += p;
        }
        mass[v] = sum;
    }
    ptrdiff_t d = 0;
    for (; d + NC_GROUP <= width; d += NC_GROUP) NC_JOIN(nc_values_, NC_GROUP)(s, keys, value + d, step, o + d * NC_QUERIES);
    for (; d < width; d++) nc_values_1(s, keys, value + d, step, o + d * NC_QUERIES);
}

/* `steps` positions; the strides are from position to position. `work` holds 8 T + 16 (T / Q + 2) + 8 D Q bytes and the
 * gaps between them, and begins on a cache line. */
static __attribute__((noinline, unused)) void nc_attention(
    ptrdiff_t steps, ptrdiff_t width, const float *q, ptrdiff_t q_step, const float *k, ptrdiff_t k_step,
    const float *value, ptrdiff_t v_step, const float *log_f, ptrdiff_t f_step, float *out, ptrdiff_t out_step,
    unsigned char *work) {
    const ptrdiff_t marks = steps / NC_QUERIES + 2;
    double *passed = (double *)work;
    double *held = (double *)(work + (8 * steps + 63) / 64 * 64);
    float *longest = (float *)(held + marks);
    float *turned = (float *)(work + ((unsigned char *)(longest + marks) - work + 63) / 64 * 64);
    float *o = turned + width * NC_QUERIES;
    _Alignas(64) float s[NC_KEYS * NC_QUERIES], own[NC_QUERIES], length[NC_QUERIES], there[NC_KEYS];
    const float scale = (float)(NC_LOG2_E / sqrt((double)width));

    /* Prefix sums of the gates; before every tile of queries, the longest key and the largest -C so far. */
    double sum = 0, least = -INFINITY;
    float square = 0;
    for (ptrdiff_t i = 0; i < steps; i++) {
        if (i % NC_QUERIES == 0) {
            held[i / NC_QUERIES] = least;
            longest[i / NC_QUERIES] = sqrtf(square);
        }
        sum += NC_LOG2_E * (double)log_f[i * f_step];
        passed[i] = sum;
        least = -sum > least ? -sum : least;
        float norm = 0;
        for (ptrdiff_t d = 0; d < width; d++) norm += k[i * k_step + d] * k[i * k_step + d];
        square = norm > square ? norm : square;
    }

    for (ptrdiff_t first = 0; first < steps; first += NC_QUERIES) {
        const ptrdiff_t count = steps - first < NC_QUERIES ? steps - first : NC_QUERIES;
        const double base = passed[first];
        for (ptrdiff_t i = 0; i < NC_QUERIES; i++) {
            const ptrdiff_t at = first + (i < count ? i : count - 1);
            float norm = 0;
            for (ptrdiff_t d = 0; d < width; d++) {
                float x = q[at * q_step + d] * scale;
                turned[d * NC_QUERIES + i] = x;
                norm += x * x;
            }
            length[i] = sqrtf(norm);
            own[i] = (float)(passed[at] - base);
        }
        memset(o, 0, (size_t)width * sizeof *o * NC_QUERIES);
        vf most[NC_QUERY_VECTORS], mass[NC_QUERY_VECTORS], top[NC_QUERY_VECTORS];
        for (int v = 0; v < NC_QUERY_VECTORS; v++) {
            most[v] = top[v] = nc_splat(NC_HIDDEN);
            mass[v] = nc_splat(0);
        }
        /* The queries' own keys, decay formed before it is rounded, later keys hidden; then what lies before. */
        for (ptrdiff_t begin = 0; begin < count; begin += NC_KEYS) {
            const ptrdiff_t keys = count - begin < NC_KEYS ? count - begin : NC_KEYS;
            for (ptrdiff_t j = 0; j < keys; j++) {
                const double c = passed[first + begin + j];
                for (ptrdiff_t i = 0; i < NC_QUERIES; i++) {
                    const double mine = passed[first + (i < count ? i : count - 1)];
                    s[j * NC_QUERIES + i] = begin + j > i ? NC_HIDDEN : (float)(mine - c);
                }
            }
            const float *from = k + (first + begin) * k_step;
            ptrdiff_t j = 0;
            for (; j + NC_GROUP <= keys; j += NC_GROUP)
                NC_JOIN(nc_scores_begun_, NC_GROUP)(turned, from + j * k_step, k_step, width, s + j * NC_QUERIES, top);
            for (; j < keys; j++) nc_scores_begun_1(turned, from + j * k_step, k_step, width, s + j * NC_QUERIES, top);
            nc_absorb(s, keys, width, value + (first + begin) * v_step, v_step, top, most, mass, o);
        }
        for (ptrdiff_t end = first; end > 0;) {
            /* The keys left weigh together at most 2^(|q| longest + C_q + held) end. */
            const float left = (float)(held[end / NC_QUERIES] + base) + log2f((float)end);
            vi matter = {0};
            for (int v = 0; v < NC_QUERY_VECTORS; v++) {
                vf bound = nc_load(length + v * NC_LANES) * longest[end / NC_QUERIES] + nc_load(own + v * NC_LANES);
                matter |= ~(bound + left <= most[v] + NC_LEAST);
            }
            if (!nc_any(matter)) break;
            const ptrdiff_t begin = end > NC_KEYS ? end - NC_KEYS : 0, keys = end - begin;
            for (ptrdiff_t j = 0; j < keys; j++) there[j] = (float)(passed[begin + j] - base);
            const float *from = k + begin * k_step;
            ptrdiff_t j = 0;
            for (; j + NC_GROUP <= keys; j += NC_GROUP)
                NC_JOIN(nc_scores_, NC_GROUP)(turned, from + j * k_step, k_step, width, own, there + j,
                                              s + j * NC_QUERIES, top);
            for (; j < keys; j++)
                nc_scores_1(turned, from + j * k_step, k_step, width, own, there + j, s + j * NC_QUERIES, top);
            nc_absorb(s, keys, width, value + begin * v_step, v_step, top, most, mass, o);
            end = begin;
        }
        _Alignas(64) float share[NC_QUERIES];
        for (int v = 0; v < NC_QUERY_VECTORS; v++) nc_store(share + v * NC_LANES, 1.0f / mass[v]);
        for (ptrdiff_t i = 0; i < count; i++)
            for (ptrdiff_t d = 0; d < width; d++) out[(first + i) * out_step + d] = o[d * NC_QUERIES + i] * share[i];
    }
}
