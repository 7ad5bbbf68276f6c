// Numbers of other dtypes as reals.

#include "harness.h"
#include "tests.h"

static const struct {
    char kind;
    int item;
} NUMBERS[] = {{'?', 1}, {'i', 1}, {'i', 2}, {'i', 4}, {'i', 8}, {'u', 1},
               {'u', 2}, {'u', 4}, {'u', 8}, {'f', 4}, {'d', 8}};

// Bytes at random; then numbers of few bits, which may lie in the middle between two floats.
static void fill_bytes(uint64_t seed, int item, unsigned char *bytes, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) {
        uint64_t u = (uint64_t)(noise(&seed) * 0x1p52) << 13 ^ (uint64_t)(noise(&seed) * 0x1p52);
        const int bit = (int)(u >> 58);
        if (i % 4 == 1) u = (uint64_t)1 << bit | (uint64_t)1 << (bit >= 24 ? bit - 24 : 0);
        if (i % 4 == 3) u = (uint64_t)0 - ((uint64_t)1 << bit);
        if (i % 5 == 0) u = i % 2 ? 0 : (uint64_t)1 << (8 * item - 1);
        memcpy(bytes + i * item, &u, (size_t)item); // the order of bytes does not matter here
    }
}

// A long double holds each of these numbers: what it is made into is rounded once.
#define AS(type) memcpy(&number.as_##type, place, sizeof number.as_##type), number.as_##type
static long double number_at(char kind, int item, const unsigned char *place) {
    union {
        int8_t as_int8_t;
        int16_t as_int16_t;
        int32_t as_int32_t;
        int64_t as_int64_t;
        uint8_t as_uint8_t;
        uint16_t as_uint16_t;
        uint32_t as_uint32_t;
        uint64_t as_uint64_t;
        float as_float;
        double as_double;
    } number;
    if (kind == 'f') return AS(float);
    if (kind == 'd') return AS(double);
    if (kind == 'i' && item == 1) return AS(int8_t);
    if (kind == 'i' && item == 2) return AS(int16_t);
    if (kind == 'i' && item == 4) return AS(int32_t);
    if (kind == 'i') return AS(int64_t);
    if (kind == 'u' && item == 1) return AS(uint8_t);
    if (kind == 'u' && item == 2) return AS(uint16_t);
    if (kind == 'u' && item == 4) return AS(uint32_t);
    if (kind == 'u') return AS(uint64_t);
    return *place != 0;
}

static int is_rounded(const subject *s, const void *out, ptrdiff_t i, long double exact) {
    const double want = s->t->size == 4 ? (double)(float)exact : (double)exact;
    return same_bits(get(s, out, i), want);
}

// From each number of a vector on, to each place in one; side by side, and 2 numbers apart
// backwards.
void numbers_of_each_dtype_become_reals(const subject *s) {
    for (int k = 0; k < COUNT(NUMBERS); k++)
        for (ptrdiff_t n = 0; n <= SHORT; n++)
            for (ptrdiff_t offset = 0; offset < TILE; offset++, release()) {
                const char kind = NUMBERS[k].kind;
                const int item = NUMBERS[k].item;
                const ptrdiff_t apart = offset % 3 == 2 ? -2 : 1;
                unsigned char *bytes = allocate((offset + 2 * n) * item);
                fill_bytes((uint64_t)(n * 100 + offset), item, bytes, offset + 2 * n);
                const unsigned char *source =
                    bytes + (offset + (apart < 0 && n > 0 ? 2 * n - 1 : 0)) * item;
                void *out = guarded(s, n, (offset * 5 + n) % TILE);
                s->k->convert(source, apart * item, kind, item, n, out);
                int ok = canaries_live(s, out, n);
                for (ptrdiff_t i = 0; i < n; i++)
                    ok &= is_rounded(s, out, i, number_at(kind, item, source + i * apart * item));
                check(s, ok, __func__, "%c%d, n = %td", kind, item, n);
            }
}
