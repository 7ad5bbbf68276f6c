// Two parallel loops, of which one has a data race: `make test-tsan` first makes sure that
// ThreadSanitizer reports that one, and not the other, whose regions meet at their barriers alone.

#include <stdio.h>
#include <string.h>

enum { N = 100000 };
static double numbers[N], total;

static void race(void) {
#pragma omp parallel for num_threads(3)
    for (int i = 0; i < N; i++) total += numbers[i];
}

static void no_race(void) {
#pragma omp parallel for num_threads(3)
    for (int i = 0; i < N; i++) numbers[i] = i;
#pragma omp parallel for num_threads(3)
    for (int i = 0; i < N / 2; i++) numbers[i] += numbers[N - 1 - i];
    for (int i = 0; i < N; i++) total += numbers[i];
}

int main(int argc, char **argv) {
    no_race();
    if (argc > 1 && strcmp(argv[1], "race") == 0) race();
    printf("%g\n", total);
    return 0;
}
