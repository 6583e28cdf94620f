/* What the table rows of a recording cost on this core by themselves: the same rows in the same order out of a table of the
 * same size, each asked for one event ahead and then added to a vector, nothing else. Before every block, as many bytes are
 * read as the stages that fire between two blocks read; that is not timed. Compile with -O3 -march=native.
 *
 * gather TOKENS ROW_BYTES ROWS BLOCK BETWEEN EVERY RARE: int64 tokens in a file; blocks of BLOCK rows are timed with BETWEEN
 * bytes read before each, and RARE more before every EVERY-th. Prints nanoseconds per row, of every block the fastest. */
#define _DEFAULT_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

typedef float vf __attribute__((vector_size(64), aligned(64)));
enum { ROUNDS = 7, HUGE = 1 << 21 };
static volatile float sink;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e9 * (double)t.tv_sec + (double)t.tv_nsec;
}

static unsigned char *room(size_t size) {
    size = (size + HUGE - 1) / HUGE * HUGE;
    unsigned char *memory = aligned_alloc(HUGE, size);
    if (!memory) exit(1);
#if defined(MADV_HUGEPAGE)
    madvise(memory, size, MADV_HUGEPAGE);
#endif
    memset(memory, 0, size);
    return memory;
}

static void walk(const unsigned char *memory, size_t size) {
    vf sum = {0};
    for (size_t k = 0; k + sizeof sum <= size; k += sizeof sum) sum += *(const vf *)(memory + k);
    sink = sum[0];
}

int main(int argc, char **argv) {
    if (argc != 8) return 2;
    size_t size = strtoull(argv[2], NULL, 10), rows = strtoull(argv[3], NULL, 10), block = strtoull(argv[4], NULL, 10);
    size_t between = strtoull(argv[5], NULL, 10), every = strtoull(argv[6], NULL, 10), rare = strtoull(argv[7], NULL, 10);
    FILE *file = fopen(argv[1], "rb");
    if (!file || size % 64 || !block || !every) return 2;
    fseek(file, 0, SEEK_END);
    size_t count = (size_t)ftell(file) / 8;
    rewind(file);
    int64_t *token = malloc(8 * count);
    if (!token || fread(token, 8, count, file) != count || count <= block) return 1;
    unsigned char *table = room(size * rows), *rest = room(between + rare), *sum = room(size);
    size_t blocks = (count - 1) / block;
    double *least = malloc(sizeof *least * blocks), empty = 1e9, total = 0;
    for (size_t b = 0; b < blocks; b++) least[b] = 1e18;
    for (int k = 0; k < 10000; k++) {
        double begin = now(), spent = now() - begin;
        empty = spent < empty ? spent : empty;
    }
    for (int round = 0; round < ROUNDS; round++)
        for (size_t b = 0; b < blocks; b++) {
            walk(rest, between + (b % every ? 0 : rare));
            for (size_t k = 0; k < size; k += 64) __builtin_prefetch(table + (size_t)token[b * block] * size + k);
            double begin = now();
            for (size_t n = b * block; n < (b + 1) * block; n++) {
                const unsigned char *next = table + (size_t)token[n + 1] * size;
                for (size_t k = 0; k < size; k += 64) __builtin_prefetch(next + k);
                const unsigned char *row = table + (size_t)token[n] * size;
                for (size_t k = 0; k < size; k += 64) *(vf *)(sum + k) += *(const vf *)(row + k);
                __asm__ volatile("" ::: "memory");
            }
            double spent = now() - begin - empty;
            least[b] = spent < least[b] ? spent : least[b];
        }
    for (size_t b = 0; b < blocks; b++) total += least[b];
    printf("%.6g\n", total / (double)(blocks * block));
    return 0;
}
