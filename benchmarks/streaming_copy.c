/* The limits: a copy whose stores go past the caches, and a read, on a number of threads. A memcpy
 * first reads the lines that it overwrites, and takes 1.4 times as long.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* Both arrays begin at a multiple of 16 bytes, as NumPy's do. */
static void copy_share(char *to, const char *from, size_t n_bytes) {
    size_t i = 0;
#ifdef __SSE2__
    for (; i + 64 <= n_bytes; i += 64)
        for (int k = 0; k < 64; k += 16)
            _mm_stream_si128((__m128i *)(to + i + k),
                             _mm_load_si128((const __m128i *)(from + i + k)));
    _mm_sfence();
#endif
    memcpy(to + i, from + i, n_bytes - i);
}

/* The exclusive or of all 64-bit words, in sums that do not wait for each other. */
static uint64_t read_share(const char *from, size_t n_bytes) {
    uint64_t words[2] = {0}, word;
    size_t i = 0;
#ifdef __SSE2__
    __m128i sums[4] = {_mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128(),
                       _mm_setzero_si128()};
    for (; i + 64 <= n_bytes; i += 64)
        for (int k = 0; k < 4; k++)
            sums[k] = _mm_xor_si128(sums[k], _mm_load_si128((const __m128i *)(from + i) + k));
    sums[0] = _mm_xor_si128(_mm_xor_si128(sums[0], sums[1]), _mm_xor_si128(sums[2], sums[3]));
    _mm_storeu_si128((__m128i *)words, sums[0]);
#endif
    for (; i + 8 <= n_bytes; i += 8) {
        memcpy(&word, from + i, 8);
        words[0] ^= word;
    }
    return words[0] ^ words[1];
}

/* Whole lines, which the threads share out among themselves. */
static size_t share_of(size_t n_bytes, int n_threads) {
    return (n_bytes / (size_t)n_threads / 64 + 1) * 64;
}

void streaming_copy(char *to, const char *from, size_t n_bytes, int n_threads) {
    size_t share = share_of(n_bytes, n_threads);
#pragma omp parallel for num_threads(n_threads) schedule(static, 1)
    for (int t = 0; t < n_threads; t++) {
        size_t begin = share * (size_t)t;
        if (begin < n_bytes)
            copy_share(to + begin, from + begin, n_bytes - begin < share ? n_bytes - begin : share);
    }
}

/* What is left beyond the last word is not read. */
uint64_t streaming_read(const char *from, size_t n_bytes, int n_threads) {
    size_t share = share_of(n_bytes, n_threads);
    uint64_t all = 0;
#pragma omp parallel for num_threads(n_threads) schedule(static, 1) reduction(^ : all)
    for (int t = 0; t < n_threads; t++) {
        size_t begin = share * (size_t)t;
        if (begin < n_bytes)
            all ^= read_share(from + begin, n_bytes - begin < share ? n_bytes - begin : share);
    }
    return all;
}
