/* Whether this processor has what the code below may use. These functions themselves use nothing but the architecture's
 * base and call nothing that could be inlined, so that the question can be asked anywhere. `features.py` has the same
 * list. */

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define NC_PLAIN __attribute__((noinline, target("arch=x86-64,no-avx,no-sse3,no-bmi,no-bmi2,no-lzcnt,no-movbe")))
#elif defined(__aarch64__) && defined(__clang__)
#define NC_PLAIN __attribute__((noinline, target("arch=armv8-a")))
#elif defined(__GNUC__)
/* After that attribute, GCC for aarch64 forgets its macros; and it has no use for newer instructions here. */
#define NC_PLAIN __attribute__((noinline))
#else
#define NC_PLAIN
#endif

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>

enum { NC_EAX, NC_EBX, NC_ECX, NC_EDX };

/* A bit of a register that cpuid leaves behind, and the register states that the system must save for it. */
typedef struct {
    uint32_t leaf, part;
    uint8_t where, bit, saved;
} nc_feature;

enum { NC_AVX = 0x06, NC_AVX512 = 0xe6 };

static const nc_feature nc_needs[] = {
    {0, 0, NC_EAX, 0, 0}, /* Never empty. */
#ifdef __SSE3__
    {1, 0, NC_ECX, 0, 0},
#endif
#ifdef __SSSE3__
    {1, 0, NC_ECX, 9, 0},
#endif
#ifdef __SSE4_1__
    {1, 0, NC_ECX, 19, 0},
#endif
#ifdef __SSE4_2__
    {1, 0, NC_ECX, 20, 0},
#endif
#ifdef __MOVBE__
    {1, 0, NC_ECX, 22, 0},
#endif
#ifdef __POPCNT__
    {1, 0, NC_ECX, 23, 0},
#endif
#ifdef __AVX__
    {1, 0, NC_ECX, 28, NC_AVX},
#endif
#ifdef __F16C__
    {1, 0, NC_ECX, 29, NC_AVX},
#endif
#ifdef __FMA__
    {1, 0, NC_ECX, 12, NC_AVX},
#endif
#ifdef __LZCNT__
    {0x80000001, 0, NC_ECX, 5, 0},
#endif
#ifdef __XOP__
    {0x80000001, 0, NC_ECX, 11, NC_AVX},
#endif
#ifdef __FMA4__
    {0x80000001, 0, NC_ECX, 16, NC_AVX},
#endif
#ifdef __TBM__
    {0x80000001, 0, NC_ECX, 21, 0},
#endif
#ifdef __BMI__
    {7, 0, NC_EBX, 3, 0},
#endif
#ifdef __AVX2__
    {7, 0, NC_EBX, 5, NC_AVX},
#endif
#ifdef __BMI2__
    {7, 0, NC_EBX, 8, 0},
#endif
#ifdef __AVX512F__
    {7, 0, NC_EBX, 16, NC_AVX512},
#endif
#ifdef __AVX512DQ__
    {7, 0, NC_EBX, 17, NC_AVX512},
#endif
#ifdef __AVX512IFMA__
    {7, 0, NC_EBX, 21, NC_AVX512},
#endif
#ifdef __AVX512CD__
    {7, 0, NC_EBX, 28, NC_AVX512},
#endif
#ifdef __AVX512BW__
    {7, 0, NC_EBX, 30, NC_AVX512},
#endif
#ifdef __AVX512VL__
    {7, 0, NC_EBX, 31, NC_AVX512},
#endif
#ifdef __AVX512VBMI__
    {7, 0, NC_ECX, 1, NC_AVX512},
#endif
#ifdef __AVX512VBMI2__
    {7, 0, NC_ECX, 6, NC_AVX512},
#endif
#ifdef __GFNI__
    {7, 0, NC_ECX, 8, 0},
#endif
#ifdef __AVX512VNNI__
    {7, 0, NC_ECX, 11, NC_AVX512},
#endif
#ifdef __AVX512BITALG__
    {7, 0, NC_ECX, 12, NC_AVX512},
#endif
#ifdef __AVX512VPOPCNTDQ__
    {7, 0, NC_ECX, 14, NC_AVX512},
#endif
#ifdef __AVX512FP16__
    {7, 0, NC_EDX, 23, NC_AVX512},
#endif
#ifdef __AVXVNNI__
    {7, 1, NC_EAX, 4, NC_AVX},
#endif
#ifdef __AVX512BF16__
    {7, 1, NC_EAX, 5, NC_AVX512},
#endif
};

/* The register states that the system saves. */
NC_PLAIN static uint32_t nc_saved(void) {
    uint32_t a, b, c, d;
    __cpuid(1, a, b, c, d);
    if (!(c >> 27 & 1)) return 0;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return a;
}

NC_PLAIN static int nc_processor_fits(void) {
    const uint32_t saved = nc_saved();
    for (size_t k = 1; k < sizeof nc_needs / sizeof *nc_needs; k++) {
        uint32_t found[4];
        __cpuid(nc_needs[k].leaf & 0x80000000, found[0], found[1], found[2], found[3]);
        if (found[0] < nc_needs[k].leaf) return 0;
        __cpuid_count(nc_needs[k].leaf, nc_needs[k].part, found[0], found[1], found[2], found[3]);
        if (!(found[nc_needs[k].where] >> nc_needs[k].bit & 1)) return 0;
        if ((saved & nc_needs[k].saved) != nc_needs[k].saved) return 0;
    }
    return 1;
}

#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>

/* Bits of AT_HWCAP (0 to 31) and AT_HWCAP2 (32 and up), as the kernel numbers them. */
static const uint64_t nc_needs = (uint64_t)1 << 1 /* ASIMD */
#ifdef __ARM_FEATURE_CRC32
                                 | (uint64_t)1 << 7
#endif
#ifdef __ARM_FEATURE_ATOMICS
                                 | (uint64_t)1 << 8
#endif
#ifdef __ARM_FEATURE_FP16_SCALAR_ARITHMETIC
                                 | (uint64_t)1 << 9
#endif
#ifdef __ARM_FEATURE_FP16_VECTOR_ARITHMETIC
                                 | (uint64_t)1 << 10
#endif
#ifdef __ARM_FEATURE_QRDMX
                                 | (uint64_t)1 << 12
#endif
#ifdef __ARM_FEATURE_JCVT
                                 | (uint64_t)1 << 13
#endif
#ifdef __ARM_FEATURE_COMPLEX
                                 | (uint64_t)1 << 14
#endif
#ifdef __ARM_FEATURE_RCPC
                                 | (uint64_t)1 << 15
#endif
#ifdef __ARM_FEATURE_DOTPROD
                                 | (uint64_t)1 << 20
#endif
#ifdef __ARM_FEATURE_SVE
                                 | (uint64_t)1 << 22
#endif
#ifdef __ARM_FEATURE_FP16_FML
                                 | (uint64_t)1 << 23
#endif
#ifdef __ARM_FEATURE_SVE2
                                 | (uint64_t)1 << (32 + 1)
#endif
#ifdef __ARM_FEATURE_SVE2_BITPERM
                                 | (uint64_t)1 << (32 + 4)
#endif
#ifdef __ARM_FEATURE_FRINT
                                 | (uint64_t)1 << (32 + 8)
#endif
#ifdef __ARM_FEATURE_SVE_MATMUL_INT8
                                 | (uint64_t)1 << (32 + 9)
#endif
#ifdef __ARM_FEATURE_SVE_BF16
                                 | (uint64_t)1 << (32 + 12)
#endif
#ifdef __ARM_FEATURE_MATMUL_INT8
                                 | (uint64_t)1 << (32 + 13)
#endif
#ifdef __ARM_FEATURE_BF16_VECTOR_ARITHMETIC
                                 | (uint64_t)1 << (32 + 14)
#endif
    ;

NC_PLAIN static int nc_processor_fits(void) {
    const uint64_t found = (getauxval(AT_HWCAP) & 0xffffffff) | getauxval(AT_HWCAP2) << 32;
    return (found & nc_needs) == nc_needs;
}

#else
static int nc_processor_fits(void) { return 1; }
#endif
