/* Forgetting attention of one head, blockwise, with running maximum and sum: see the op `forgetting_attention`.
 * Everything is in powers of two, so that exp(s) = 2^(s log2 e). */

#define NC_JOIN_TEXT(a, b) a##b
#define NC_JOIN(a, b) NC_JOIN_TEXT(a, b)
#define NC_LOG2_E 1.4426950408889634
#define NC_HIDDEN -1e30f

/* Less than half a unit in the last place of a sum of at least 1, with room for the rounding of the bound itself. */
#define NC_LEAST -24.5f

/* Scores are in `s` and their maximum in `top`: takes the keys' weights and values into the running sums. They are summed
 * up by themselves first: thousands of weights that are each below the precision of the running sum may still matter. */
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
        vf sum = {0};
        for (ptrdiff_t j = 0; j < keys; j++) {
            float *place = s + j * NC_QUERIES + v * NC_LANES;
            vf p = nc_power(nc_load(place) - most[v]);
            nc_store(place, p);
            sum += p;
        }
        mass[v] += sum;
    }
    ptrdiff_t d = 0;
    for (; d + NC_GROUP <= width; d += NC_GROUP) NC_JOIN(nc_values_, NC_GROUP)(s, keys, value + d, step, o + d * NC_QUERIES);
    for (; d < width; d++) nc_values_1(s, keys, value + d, step, o + d * NC_QUERIES);
}

/* The softmaxes of a tile, normalised: `count` queries from `out` on. With `totals`, the logarithm of a sum follows its
 * `width` channels. */
NC_INLINE void nc_hand_out(const float *o, const vf *most, const vf *mass, ptrdiff_t count, ptrdiff_t width, float *out,
                           ptrdiff_t out_step, int totals) {
    _Alignas(64) float share[NC_QUERIES], top[NC_QUERIES], sum[NC_QUERIES];
    for (int v = 0; v < NC_QUERY_VECTORS; v++) {
        nc_store(share + v * NC_LANES, 1.0f / mass[v]);
        nc_store(top + v * NC_LANES, most[v]);
        nc_store(sum + v * NC_LANES, mass[v]);
    }
    for (ptrdiff_t i = 0; i < count; i++) {
        for (ptrdiff_t d = 0; d < width; d++) out[i * out_step + d] = o[d * NC_QUERIES + i] * share[i];
        if (totals) out[i * out_step + width] = (top[i] + log2f(sum[i])) * (float)(1 / NC_LOG2_E);
    }
}

/* Of `steps` positions the first `keys` have keys and values, and those from `from` on have queries. Answer r is the
 * attention over the keys from r `cut` on, which is not behind `from`, and over what `known` holds: attention over other
 * keys, each followed by the logarithm of its sum, as in `out`. Without `known` there are no such logarithms. Pointers are
 * to the first key, gate and query; strides are from position to position, `out_cut` from answer to answer. `work` holds
 * 8 T + 16 (K / Q + 2) + 8 D Q bytes and the gaps between them, and begins on a cache line. */
static __attribute__((noinline, unused)) void nc_attention(
    ptrdiff_t steps, ptrdiff_t from, ptrdiff_t keys, ptrdiff_t cut, ptrdiff_t width, const float *q, ptrdiff_t q_step,
    const float *k, ptrdiff_t k_step, const float *value, ptrdiff_t v_step, const float *log_f, ptrdiff_t f_step,
    const float *known, ptrdiff_t known_step, float *out, ptrdiff_t out_step, ptrdiff_t out_cut, unsigned char *work) {
    const ptrdiff_t marks = keys / NC_QUERIES + 2;
    double *passed = (double *)work;
    double *held = (double *)(work + (8 * steps + 63) / 64 * 64);
    float *longest = (float *)(held + marks);
    float *turned = (float *)(work + ((unsigned char *)(longest + marks) - work + 63) / 64 * 64);
    float *o = turned + width * NC_QUERIES;
    _Alignas(64) float s[NC_KEYS * NC_QUERIES], own[NC_QUERIES], length[NC_QUERIES], there[NC_KEYS], total[NC_QUERIES];
    const float scale = (float)(NC_LOG2_E / sqrt((double)width));

    /* Prefix sums of the gates; for the keys before every mark, the longest one and the largest -C. */
    double sum = 0, least = -INFINITY;
    float square = 0;
    for (ptrdiff_t i = 0; i < steps; i++) {
        sum += NC_LOG2_E * (double)log_f[i * f_step];
        passed[i] = sum;
        if (i >= keys) continue;
        if (i % NC_QUERIES == 0) {
            held[i / NC_QUERIES] = least;
            longest[i / NC_QUERIES] = sqrtf(square);
        }
        least = -sum > least ? -sum : least;
        float norm = 0;
        for (ptrdiff_t d = 0; d < width; d++) norm += k[i * k_step + d] * k[i * k_step + d];
        square = norm > square ? norm : square;
    }
    held[(keys + NC_QUERIES - 1) / NC_QUERIES] = least;
    longest[(keys + NC_QUERIES - 1) / NC_QUERIES] = sqrtf(square);

    for (ptrdiff_t first = from; first < steps; first += NC_QUERIES) {
        const ptrdiff_t count = steps - first < NC_QUERIES ? steps - first : NC_QUERIES;
        const double base = passed[first];
        memset(o, 0, (size_t)width * sizeof *o * NC_QUERIES);
        for (ptrdiff_t i = 0; i < NC_QUERIES; i++) {
            const ptrdiff_t at = first + (i < count ? i : count - 1);
            float norm = 0;
            for (ptrdiff_t d = 0; d < width; d++) {
                float x = q[(at - from) * q_step + d] * scale;
                turned[d * NC_QUERIES + i] = x;
                norm += x * x;
            }
            length[i] = sqrtf(norm);
            own[i] = (float)(passed[at] - base);
            total[i] = NC_HIDDEN;
            if (known) {
                const float *before = known + (at - from) * known_step;
                const float power = before[width] * (float)NC_LOG2_E;
                total[i] = power > NC_HIDDEN ? power : NC_HIDDEN;
                for (ptrdiff_t d = 0; d < width; d++) o[d * NC_QUERIES + i] = before[d];
            }
        }
        vf most[NC_QUERY_VECTORS], mass[NC_QUERY_VECTORS], top[NC_QUERY_VECTORS];
        for (int v = 0; v < NC_QUERY_VECTORS; v++) {
            most[v] = top[v] = nc_load(total + v * NC_LANES);
            mass[v] = nc_splat(known ? 1 : 0);
        }
        /* The queries' own keys, decay formed before it is rounded, later keys hidden; then what lies before. */
        const ptrdiff_t mine = keys - first < count ? keys - first : count;
        for (ptrdiff_t begin = 0; begin < mine; begin += NC_KEYS) {
            const ptrdiff_t some = mine - begin < NC_KEYS ? mine - begin : NC_KEYS;
            for (ptrdiff_t j = 0; j < some; j++) {
                const double c = passed[first + begin + j];
                for (ptrdiff_t i = 0; i < NC_QUERIES; i++) {
                    const double here = passed[first + (i < count ? i : count - 1)];
                    s[j * NC_QUERIES + i] = begin + j > i ? NC_HIDDEN : (float)(here - c);
                }
            }
            const float *met = k + (first + begin) * k_step;
            ptrdiff_t j = 0;
            for (; j + NC_GROUP <= some; j += NC_GROUP)
                NC_JOIN(nc_scores_begun_, NC_GROUP)(turned, met + j * k_step, k_step, width, s + j * NC_QUERIES, top);
            for (; j < some; j++) nc_scores_begun_1(turned, met + j * k_step, k_step, width, s + j * NC_QUERIES, top);
            nc_absorb(s, some, width, value + (first + begin) * v_step, v_step, top, most, mass, o);
        }
        ptrdiff_t end = first < keys ? first : keys;
        float *to = out + (first - from) * out_step;
        while (end > 0) {
            if (end % cut == 0 && end < keys)
                nc_hand_out(o, most, mass, count, width, to + end / cut * out_cut, out_step, known != 0);
            /* The keys left weigh together at most 2^(|q| longest + C_q + held) end. */
            const ptrdiff_t mark = (end + NC_QUERIES - 1) / NC_QUERIES;
            const float left = (float)(held[mark] + base) + log2f((float)end);
            vi matter = {0};
            for (int v = 0; v < NC_QUERY_VECTORS; v++) {
                vf bound = nc_load(length + v * NC_LANES) * longest[mark] + nc_load(own + v * NC_LANES);
                matter |= ~(bound + left <= most[v] + NC_LEAST);
            }
            if (!nc_any(matter)) break;
            const ptrdiff_t lowest = (end - 1) / cut * cut, begin = end - lowest > NC_KEYS ? end - NC_KEYS : lowest;
            const ptrdiff_t some = end - begin;
            for (ptrdiff_t j = 0; j < some; j++) there[j] = (float)(passed[begin + j] - base);
            const float *met = k + begin * k_step;
            ptrdiff_t j = 0;
            for (; j + NC_GROUP <= some; j += NC_GROUP)
                NC_JOIN(nc_scores_, NC_GROUP)(turned, met + j * k_step, k_step, width, own, there + j,
                                              s + j * NC_QUERIES, top);
            for (; j < some; j++)
                nc_scores_1(turned, met + j * k_step, k_step, width, own, there + j, s + j * NC_QUERIES, top);
            nc_absorb(s, some, width, value + begin * v_step, v_step, top, most, mass, o);
            end = begin;
        }
        for (ptrdiff_t r = end > 0 ? (end - 1) / cut : 0; r >= 0; r--)
            nc_hand_out(o, most, mass, count, width, to + r * out_cut, out_step, known != 0);
    }
}
