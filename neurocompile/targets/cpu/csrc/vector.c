/* Vectors of NC_LANES floats: the widest that the target has. */

#include <math.h>
#include <string.h>

#if defined(__AVX512F__)
#define NC_LANES 16
#elif defined(__AVX__)
#define NC_LANES 8
#else
#define NC_LANES 4
#endif

#define NC_INLINE static inline __attribute__((always_inline, unused))
#define NC_RARE static __attribute__((noinline, cold, unused))

typedef float vf __attribute__((vector_size(4 * NC_LANES)));
typedef int32_t vi __attribute__((vector_size(4 * NC_LANES)));
typedef float vf_memory __attribute__((vector_size(4 * NC_LANES), aligned(4), may_alias));

NC_INLINE vf nc_load(const float *p) { return *(const vf_memory *)p; }
NC_INLINE void nc_store(float *p, vf v) { *(vf_memory *)p = v; }
NC_INLINE vf nc_splat(float x) { return x - (vf){0}; }
NC_INLINE vi nc_splat_mask(int x) { return -(x != 0) - (vi){0}; }

/* The first r lanes; the others are 0 and are not touched in memory. */
NC_INLINE vf nc_load_part(const float *p, size_t r) {
    vf v = {0};
    memcpy(&v, p, 4 * r);
    return v;
}
NC_INLINE void nc_store_part(float *p, vf v, size_t r) { memcpy(p, &v, 4 * r); }
NC_INLINE vf nc_load_strided(const float *p, ptrdiff_t stride, size_t r) {
    vf v = {0};
    for (size_t lane = 0; lane < r; lane++) v[lane] = p[(ptrdiff_t)lane * stride];
    return v;
}
NC_INLINE void nc_store_strided(float *p, ptrdiff_t stride, vf v, size_t r) {
    for (size_t lane = 0; lane < r; lane++) p[(ptrdiff_t)lane * stride] = v[lane];
}

NC_INLINE vf nc_select(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }
NC_INLINE vf nc_max(vf a, vf b) { return nc_select((a > b) | (a != a), a, b); }
NC_INLINE vf nc_min(vf a, vf b) { return nc_select((a < b) | (a != a), a, b); }
NC_INLINE vf nc_abs(vf x) { return (vf)((vi)x & 0x7fffffff); }
NC_INLINE vf nc_sqrt(vf x) {
    vf y;
    for (int lane = 0; lane < NC_LANES; lane++) y[lane] = __builtin_sqrtf(x[lane]);
    return y;
}
NC_INLINE int nc_any(vi mask) {
    int any = 0;
    for (int lane = 0; lane < NC_LANES; lane++) any |= mask[lane];
    return any;
}
NC_INLINE float nc_sum(vf v) {
    float part[NC_LANES];
    memcpy(part, &v, sizeof part);
    for (int half = NC_LANES / 2; half; half /= 2)
        for (int lane = 0; lane < half; lane++) part[lane] += part[lane + half];
    return part[0];
}
