/* What this core can do at best: multiply-adds per second out of registers, and bytes per second read from working sets of
 * the given sizes. Prints one number per line: the former, then one per size in bytes. Compile with -O3 -march=native. */
#define _POSIX_C_SOURCE 200112L
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define CHAINS 12
typedef float vf __attribute__((vector_size(4 * LANES)));

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static volatile float sink;

static double multiply_adds(void) {
    const long steps = 4000000;
    vf a = (vf){0}, b0 = a, b1 = a, b2 = a, b3 = a, b4 = a, b5 = a, b6 = a, b7 = a, b8 = a, b9 = a, b10 = a, b11 = a;
    a += 0.5f;
    double start = seconds();
    for (long k = 0; k < steps; k++) {
        b0 = b0 * a + a, b1 = b1 * a + a, b2 = b2 * a + a, b3 = b3 * a + a, b4 = b4 * a + a, b5 = b5 * a + a;
        b6 = b6 * a + a, b7 = b7 * a + a, b8 = b8 * a + a, b9 = b9 * a + a, b10 = b10 * a + a, b11 = b11 * a + a;
        __asm__ volatile("" ::: "memory");
    }
    double passed = seconds() - start;
    vf sum = b0 + b1 + b2 + b3 + b4 + b5 + b6 + b7 + b8 + b9 + b10 + b11;
    sink = sum[0];
    return (double)steps * CHAINS * LANES / passed;
}

static double bandwidth(const char *memory, size_t size) {
    long passes = (long)((256u << 20) / size) + 1;
    vf s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0}, v;
    double start = seconds();
    for (long pass = 0; pass < passes; pass++)
        for (size_t k = 0; k + 4 * sizeof v <= size; k += 4 * sizeof v) {
            memcpy(&v, memory + k, sizeof v), s0 += v;
            memcpy(&v, memory + k + sizeof v, sizeof v), s1 += v;
            memcpy(&v, memory + k + 2 * sizeof v, sizeof v), s2 += v;
            memcpy(&v, memory + k + 3 * sizeof v, sizeof v), s3 += v;
        }
    double passed = seconds() - start;
    s0 += s1 + s2 + s3;
    sink = s0[0];
    return (double)passes * (double)size / passed;
}

int main(int argc, char **argv) {
    double best = 0;
    for (int round = 0; round < 5; round++) {
        double now = multiply_adds();
        best = now > best ? now : best;
    }
    printf("%.6g\n", best);
    for (int k = 1; k < argc; k++) {
        size_t size = strtoull(argv[k], NULL, 10);
        char *memory = aligned_alloc(1 << 21, (size + (1 << 21) - 1) >> 21 << 21);
        if (!memory || size < 4096) return 1;
        memset(memory, 0, size);
        best = 0;
        for (int round = 0; round < 5; round++) {
            double now = bandwidth(memory, size);
            best = now > best ? now : best;
        }
        printf("%.6g\n", best);
        free(memory);
    }
    return 0;
}
