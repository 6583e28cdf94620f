/* Elementary functions on vectors. Largest errors over all of float32, in units in the last place of the result:
 * exp 2, tanh 3, sigmoid 3 (0 below -88.7), log and erf as in libm;
 * sin and cos 2^-23 absolute, for every angle, 2^-22.9 by `nc_sincos_near`. Infinities and NaN as in C. */

/* The nearest whole number of |x| < 2^22. */
NC_INLINE vf nc_nearest(vf x) { return (x + 0x1.8p23f) - 0x1.8p23f; }
NC_INLINE vf nc_power_of_two(vi n) { return (vf)((n + 127) << 23); }

/* exp(r), |r| <= ln 2 / 2. */
NC_INLINE vf nc_exp_near(vf r) {
    vf p = nc_splat(0x1.6a2352p-10f);
    p = p * r + 0x1.123a6cp-7f;
    p = p * r + 0x1.5558f4p-5f;
    p = p * r + 0x1.555490p-3f;
    p = p * r + 0x1.fffffcp-2f;
    p = p * r + 1.0f;
    return p * r + 1.0f;
}

/* exp(x) = 2^n exp(r), |r| <= ln 2 / 2; two factors of 2^(n/2) reach denormals and infinity. */
NC_INLINE vf nc_exp(vf x) {
    vf bounded = nc_select(x < -104.0f, nc_splat(-104.0f), nc_select(x > 89.0f, nc_splat(89.0f), x));
    vf n = nc_nearest(bounded * 0x1.715476p0f);
    vf r = bounded - n * 0x1.62ep-1f;
    r = r - n * 0x1.0bfbe8p-15f;
    vi whole = __builtin_convertvector(nc_select(x != x, nc_splat(0), n), vi);
    vi half = whole >> 1;
    return nc_exp_near(r) * nc_power_of_two(half) * nc_power_of_two(whole - half);
}

/* |r| <= pi / 2. */
NC_INLINE void nc_sincos_near(vf r, vf *sine, vf *cosine) {
    vf r2 = r * r;
    vf s = nc_splat(0x1.5cf3fep-19f);
    s = s * r2 - 0x1.9f5f98p-13f;
    s = s * r2 + 0x1.110e68p-7f;
    s = s * r2 - 0x1.555548p-3f;
    *sine = s * (r2 * r) + r;
    vf c = nc_splat(-0x1.193d5ap-22f);
    c = c * r2 + 0x1.9f8f14p-16f;
    c = c * r2 - 0x1.6c149ap-10f;
    c = c * r2 + 0x1.555550p-5f;
    c = c * r2 - 0.5f;
    *cosine = c * r2 + 1.0f;
}

#define NC_LARGEST_ANGLE 8192.0f

NC_RARE void nc_sincos_large(const vf *x, vf *sine, vf *cosine) {
    for (int lane = 0; lane < NC_LANES; lane++) {
        (*sine)[lane] = sinf((*x)[lane]);
        (*cosine)[lane] = cosf((*x)[lane]);
    }
}

/* x = q π/2 + r, |r| <= π/4, with π/2 in three parts whose products with q are exact; q mod 4 chooses. */
NC_INLINE void nc_sincos(vf x, vf *sine, vf *cosine) {
    if (__builtin_expect(nc_any(~(nc_abs(x) <= NC_LARGEST_ANGLE)), 0)) {
        vf copy = x, s, c;
        nc_sincos_large(&copy, &s, &c);
        *sine = s;
        *cosine = c;
        return;
    }
    vf q = nc_nearest(x * 0x1.45f306p-1f);
    vf r = x - q * 0x1.92p0f;
    r = r - q * 0x1.fb4p-12f;
    r = r - q * 0x1.4442d2p-24f;
    vi quadrant = __builtin_convertvector(q, vi);
    vf r2 = r * r;
    vf s = nc_splat(-0x1.994b3ep-13f);
    s = s * r2 + 0x1.110756p-7f;
    s = s * r2 - 0x1.555546p-3f;
    s = (s * r2) * r + r;
    vf c = nc_splat(0x1.99ff40p-16f);
    c = c * r2 - 0x1.6c0c82p-10f;
    c = c * r2 + 0x1.55554ap-5f;
    c = (c * r2) * r2 - 0.5f * r2 + 1.0f;
    vi swap = -(quadrant & 1);
    vi sine_sign = (quadrant & 2) << 30;
    vi cosine_sign = ((quadrant + 1) & 2) << 30;
    *sine = (vf)((vi)nc_select(swap, c, s) ^ sine_sign);
    *cosine = (vf)((vi)nc_select(swap, s, c) ^ cosine_sign);
}
NC_INLINE vf nc_sin(vf x) {
    vf s, c;
    nc_sincos(x, &s, &c);
    return s;
}
NC_INLINE vf nc_cos(vf x) {
    vf s, c;
    nc_sincos(x, &s, &c);
    return c;
}

NC_INLINE vf nc_sigmoid(vf x) { return 1.0f / (1.0f + nc_exp(-x)); }

/* 1 - 2 / (exp(2|x|) + 1) with the sign of x; an odd polynomial where that would cancel. */
NC_INLINE vf nc_tanh(vf x) {
    vf size = nc_abs(x), x2 = x * x;
    vf large = 1.0f - 2.0f / (nc_exp(2.0f * size) + 1.0f);
    vf p = nc_splat(-0x1.76ac12p-8f);
    p = p * x2 + 0x1.5256d6p-6f;
    p = p * x2 - 0x1.b84448p-5f;
    p = p * x2 + 0x1.110768p-3f;
    p = p * x2 - 0x1.555534p-2f;
    vf small = (p * x2) * size + size;
    vf result = nc_select(size < 0.625f, small, large);
    return (vf)((vi)result | ((vi)x & (int32_t)0x80000000));
}

/* libm, lane by lane. Not cold: what calls a cold function is not optimised either. */
static __attribute__((noinline, unused)) vf nc_log(vf x) {
    for (int lane = 0; lane < NC_LANES; lane++) x[lane] = logf(x[lane]);
    return x;
}
static __attribute__((noinline, unused)) vf nc_erf(vf x) {
    for (int lane = 0; lane < NC_LANES; lane++) x[lane] = erff(x[lane]);
    return x;
}
NC_INLINE vf nc_floor(vf x) {
    for (int lane = 0; lane < NC_LANES; lane++) x[lane] = __builtin_floorf(x[lane]);
    return x;
}

/* The larger of two; b where one is NaN. */
NC_INLINE vf nc_larger(vf a, vf b) {
#if defined(__AVX512F__) && NC_LANES == 16
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX__) && NC_LANES == 8
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE4_1__) && NC_LANES == 4
    return (vf)_mm_max_ps((__m128)a, (__m128)b);
#elif defined(NC_NEON)
    return (vf)vmaxq_f32((float32x4_t)b, (float32x4_t)a);
#else
    return nc_select(a > b, a, b);
#endif
}

/* 2^x for x <= 0, relative error 2^-22.5; 0 below -64, so that products with it are no denormals; NaN for NaN. */
NC_INLINE vf nc_power(vf x) {
    vf bounded = nc_larger(nc_splat(-64.0f), x);
    vf shifted = bounded + 0x1.8p23f;
    vf r = bounded - (shifted - 0x1.8p23f);
    vf p = nc_splat(0x1.5bba0ep-10f);
    p = p * r + 0x1.3cea88p-7f;
    p = p * r + 0x1.c6b752p-5f;
    p = p * r + 0x1.ebf9bcp-3f;
    p = p * r + 0x1.62e42ap-1f;
    p = p * r + 1.0f;
    vi power = (vi)p + ((vi)shifted << 23);
    return (vf)(power & ~(x < -64.0f));
}
