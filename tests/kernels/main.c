// Every kernel of every instruction set that this machine can run, in float32 and float64,
// against the formulas of kernels.h in long double.
//
// A run also yields a hash of results: all instruction sets with FMA must have the same one. With
// `--expect HASH` it must be that one, which is how runs on different machines are compared.
//
// Stand-alone: links with src/*.c and -lm; compile with -ffp-contract=off.

#include "harness.h"
#include "tests.h"

typedef void test_of_row(const subject *s, const row *r);
typedef void test(const subject *s);

#define LIST(test) test,
#define SKIP(test)
static test_of_row *const EXP_TESTS[] = {ALL_TESTS(LIST, SKIP, SKIP, SKIP)};
static test_of_row *const ROW_TESTS[] = {ALL_TESTS(SKIP, LIST, SKIP, SKIP)};
static test *const TESTS[] = {ALL_TESTS(SKIP, SKIP, LIST, SKIP)};
static test *const DOUBLES_TESTS[] = {ALL_TESTS(SKIP, SKIP, SKIP, LIST)};

static void test_kernels(const subject *s) {
    static row r;
    for (int k = 0; k < N_KINDS; k++)
        for (int i = 0; i < LENGTHS; i++, release()) {
            make_row(s, &r, &KINDS[k], length(i), 1);
            for (int t = 0; t < COUNT(EXP_TESTS); t++) EXP_TESTS[t](s, &r);
            for (int t = 0; t < COUNT(ROW_TESTS); t++) ROW_TESTS[t](s, &r);
            release();
            make_row(s, &r, &KINDS[k], length(i), some_temperature(k + i));
            for (int t = 0; t < COUNT(EXP_TESTS); t++) EXP_TESTS[t](s, &r);
        }
    for (int t = 0; t < COUNT(TESTS); t++) TESTS[t](s);
}

static void compare_hash(const cysoftmax_isa *isa, uint64_t *expected) {
    const subject s = subject_of(isa, 0);
    const uint64_t h = hash_of_results(isa);
    printf("%s: hash %016" PRIx64 "\n", isa->name, h);
    if (!s.fused) return;
    check(&s, *expected == 0 || h == *expected, "all_fma_instruction_sets_agree_to_the_last_bit",
          "hash %016" PRIx64 ", expected %016" PRIx64, h, *expected);
    if (*expected == 0) *expected = h;
}

static void test_isa(const cysoftmax_isa *isa) {
    for (int t = 0; t < N_DTYPES; t++) {
        const subject s = subject_of(isa, t);
        forget_reports();
        test_kernels(&s);
        for (int d = 0; t == 1 && d < COUNT(DOUBLES_TESTS); d++) DOUBLES_TESTS[d](&s);
        print_errors(&s);
    }
}

int main(int argc, char **argv) {
    const int expecting = argc == 3 && strcmp(argv[1], "--expect") == 0;
    uint64_t expected_hash = expecting ? strtoull(argv[2], NULL, 16) : 0;
    if (argc > 1 && expected_hash == 0) {
        fprintf(stderr, "usage: %s [--expect HASH]\n", argv[0]);
        return 2;
    }
    long all_passed = 0, all_failed = 0;
    int fused = 0;
    for (const cysoftmax_isa *isa = cysoftmax_isas; isa->name; isa++) {
        if (!isa->available()) continue;
        passed = failed = 0;
        compare_hash(isa, &expected_hash);
        test_isa(isa);
        printf("%s: %ld checks passed, %ld failed\n", isa->name, passed, failed);
        all_passed += passed;
        all_failed += failed;
        fused |= subject_of(isa, 0).fused;
    }
    if (expecting && !fused) {
        printf("FAILED: no instruction set here has the hash that is expected\n");
        all_failed++;
    }
    printf("%ld passed, %ld failed\n", all_passed, all_failed);
    return all_failed > 0;
}
