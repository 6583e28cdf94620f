/* Vectors of NC_LANES floats: the widest that the target has, unless the code was generated for a given number. */

#include <math.h>
#include <string.h>

#if defined(NC_LANES)
#elif defined(__AVX512F__)
#define NC_LANES 16
#elif defined(__AVX__)
#define NC_LANES 8
#else
#define NC_LANES 4
#endif

#if defined(__SSE4_1__)
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__ARM_NEON) && NC_LANES == 4
#include <arm_neon.h>
#define NC_NEON 1
#endif

#define NC_INLINE static inline __attribute__((always_inline, unused))
/* Called often, but for so many numbers that the call is no matter. */
#define NC_ONCE static __attribute__((noinline, unused))
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
#if defined(NC_NEON)
    return vmaxvq_u32((uint32x4_t)mask) != 0;
#endif
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

/* bfloat16: the upper half of a float. */
NC_INLINE float nc_from_bf16(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
typedef uint16_t v_half __attribute__((vector_size(2 * NC_LANES)));
NC_INLINE vf nc_load_bf16_part(const uint16_t *p, size_t r) {
    v_half v = {0};
    memcpy(&v, p, 2 * r);
    return (vf)(__builtin_convertvector(v, vi) << 16);
}
/* Named instructions, as compilers widen 16 lanes in halves. */
NC_INLINE vf nc_load_bf16(const uint16_t *p) {
#if defined(__AVX512F__) && NC_LANES == 16
    return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16);
#elif defined(__AVX2__) && NC_LANES == 8
    return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16);
#else
    return nc_load_bf16_part(p, NC_LANES);
#endif
}

/* Words of two bfloat16. */
NC_INLINE vi nc_load_words(const unsigned char *p) {
    vi v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Products with 8-bit weights: pairs of them, widened to 16 bits, times pairs of 16-bit inputs, into 32-bit sums. */
NC_INLINE vi nc_splat_int(int32_t x) { return x - (vi){0}; }
#if defined(__AVX512BW__) && NC_LANES == 16
NC_INLINE vi nc_load_bytes(const unsigned char *p) {
    return (vi)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p));
}
#if defined(__AVX512VNNI__)
NC_INLINE vi nc_dot_pairs(vi sum, vi a, vi b) { return (vi)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)a, (__m512i)b); }
#else
NC_INLINE vi nc_dot_pairs(vi sum, vi a, vi b) { return sum + (vi)_mm512_madd_epi16((__m512i)a, (__m512i)b); }
#endif
#elif defined(__AVX2__) && NC_LANES == 8
NC_INLINE vi nc_load_bytes(const unsigned char *p) {
    return (vi)_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p));
}
NC_INLINE vi nc_dot_pairs(vi sum, vi a, vi b) { return sum + (vi)_mm256_madd_epi16((__m256i)a, (__m256i)b); }
#elif defined(__SSE4_1__) && NC_LANES == 4
NC_INLINE vi nc_load_bytes(const unsigned char *p) {
    return (vi)_mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i *)p));
}
NC_INLINE vi nc_dot_pairs(vi sum, vi a, vi b) { return sum + (vi)_mm_madd_epi16((__m128i)a, (__m128i)b); }
#elif defined(NC_NEON)
NC_INLINE vi nc_load_bytes(const unsigned char *p) { return (vi)vmovl_s8(vld1_s8((const int8_t *)p)); }
NC_INLINE vi nc_dot_pairs(vi sum, vi a, vi b) {
    int16x8_t x = (int16x8_t)a, y = (int16x8_t)b;
    return sum + (vi)vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(y)), vmull_high_s16(x, y));
}
#else
typedef int8_t v_bytes __attribute__((vector_size(2 * NC_LANES)));
typedef int16_t v_pairs __attribute__((vector_size(4 * NC_LANES)));
NC_INLINE vi nc_load_bytes(const unsigned char *p) {
    v_bytes v;
    memcpy(&v, p, sizeof v);
    return (vi)__builtin_convertvector(v, v_pairs);
}
NC_INLINE vi nc_dot_pairs(vi sum, vi a, vi b) {
    return sum + ((a << 16) >> 16) * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
}
#endif

#if NC_LANES == 4 || (NC_LANES == 16 && defined(__AVX512VNNI__))
/* Words of four bytes: their dot products, into 32-bit sums. On x86-64 the bytes of `a` have no sign. */
NC_INLINE vi nc_dot_quads(vi sum, vi a, vi b) {
#if NC_LANES == 16
    return (vi)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
#elif defined(NC_NEON) && defined(__ARM_FEATURE_DOTPROD)
    return (vi)vdotq_s32((int32x4_t)sum, (int8x16_t)a, (int8x16_t)b);
#else
    for (int shift = 24; shift >= 0; shift -= 8) sum += ((a << shift) >> 24) * ((b << shift) >> 24);
    return sum;
#endif
}
#endif

/* The largest size of n numbers and of `size`, by their bits, which are ordered as whole numbers; NaN is above all. */
NC_ONCE float nc_largest(const float *x, size_t n, float size) {
    vi largest = (vi)nc_splat(size);
    for (size_t k = 0; k < n; k += NC_LANES) {
        vi bits = (vi)nc_abs(nc_load_part(x + k, n - k < NC_LANES ? n - k : NC_LANES));
        vi above = bits > largest;
        largest = (above & bits) | (~above & largest);
    }
    int32_t part[NC_LANES];
    memcpy(part, &largest, sizeof part);
    for (int half = NC_LANES / 2; half; half /= 2)
        for (int lane = 0; lane < half; lane++)
            part[lane] = part[lane] > part[lane + half] ? part[lane] : part[lane + half];
    memcpy(&size, part, 4);
    return size;
}

/* n numbers times `factor`, rounded to 16 bits, in pairs; an odd one out is paired with 0. */
NC_ONCE void nc_whole_numbers(const float *x, size_t n, float factor, int32_t *pairs) {
    typedef int16_t v_short __attribute__((vector_size(2 * NC_LANES)));
    int16_t *out = (int16_t *)pairs;
    for (size_t k = 0; k < n; k += NC_LANES) {
        size_t count = n - k < NC_LANES ? n - k : NC_LANES;
        vf scaled = (nc_load_part(x + k, count) * factor + 0x1.8p23f) - 0x1.8p23f;
        v_short rounded = __builtin_convertvector(__builtin_convertvector(scaled, vi), v_short);
        memcpy(out + k, &rounded, 2 * count);
    }
    if (n % 2) out[n] = 0;
}

/* n numbers times `factor`, rounded to 256 h + l with signed bytes: four l, then four h, and so on; what is missing to
 * fours is 0. Returns the sum of the rounded numbers. */
NC_ONCE uint32_t nc_whole_quads(const float *x, size_t n, float factor, int32_t *quads) {
    typedef int8_t v_quarter __attribute__((vector_size(NC_LANES)));
    vi total = {0};
    for (size_t k = 0; k < n; k += NC_LANES) {
        const size_t count = n - k < NC_LANES ? n - k : NC_LANES;
        const vf scaled = (nc_load_part(x + k, count) * factor + 0x1.8p23f) - 0x1.8p23f;
        const vi whole = __builtin_convertvector(scaled, vi);
        const vi low = (whole << 24) >> 24;
        const v_quarter l = __builtin_convertvector(low, v_quarter);
        const v_quarter h = __builtin_convertvector((whole - low) >> 8, v_quarter);
        total += whole;
        for (size_t quad = 0; 4 * quad < count; quad++, quads += 2) {
            memcpy(quads, (const char *)&l + 4 * quad, 4);
            memcpy(quads + 1, (const char *)&h + 4 * quad, 4);
        }
    }
    uint32_t sum = 0;
    for (int lane = 0; lane < NC_LANES; lane++) sum += (uint32_t)total[lane];
    return sum;
}
