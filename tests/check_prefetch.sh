#!/bin/sh
# Check that the compiler keeps the prefetches: tests/check_prefetch.sh CC FLAGS...
#
# GCC 12 left out every call of an inline function whose only effect was __builtin_prefetch, and no
# result told. v_prefetch is a macro since then. Each kernel of x86 has 8 prefetch instructions at
# least, in the loops of row_exp_sum and tile_exp_sum.
set -eu

for isa in avx2 avx512; do
    for real in f32 f64; do
        count=$("$@" -S -o - "src/kernels_${isa}_$real.c" | grep -c prefetch) || true
        if [ "$count" -lt 8 ]; then
            echo "the compiler leaves out the prefetches of $isa, $real: $count instructions are left"
            exit 1
        fi
    done
done
