// Constants of exp and log1p. Printed by src/coefficients.py; do not edit.
// clang-format off
#ifdef CYSOFTMAX_F32
// exp(r) = 1 + r + r^2 (E0 + E1 r + ...), |r| <= 0.346608: relative error 2^-28.01.
#define LOG2_E 0x1.7154760000000p+0f
#define LN2_HIGH 0x1.62e4000000000p-1f  // a multiple of 2^-16: n * LN2_HIGH is exact
#define LN2_LOW 0x1.7f7d1c0000000p-20f
#define EXP_CUT 0x1.a000000000000p+6f  // exp(-EXP_CUT) rounds to zero
#define EXP_TERMS 5
#define EXP_COEFFICIENTS {0x1.fffff80000000p-2f, 0x1.55548e0000000p-3f, 0x1.555b960000000p-5f, 0x1.123bd00000000p-7f, 0x1.6853520000000p-10f}
#else
// exp(r) = 1 + r + r^2 (E0 + E1 r + ...), |r| <= 0.346608: relative error 2^-57.75.
#define LOG2_E 0x1.71547652b82fep+0
#define LN2_HIGH 0x1.62e42fefa3800p-1  // a multiple of 2^-42: n * LN2_HIGH is exact
#define LN2_LOW 0x1.ef35793c76730p-45
#define EXP_CUT 0x1.7500000000000p+9  // exp(-EXP_CUT) rounds to zero
#define EXP_TERMS 10
#define EXP_COEFFICIENTS {0x1.000000000000bp-1, 0x1.555555555550fp-3, 0x1.55555555502a0p-5, 0x1.1111111122b4ap-7, 0x1.6c16c1852c01cp-10, 0x1.a01a014498ae6p-13, 0x1.a01997c656a0fp-16, 0x1.71deec62e8918p-19, 0x1.28af42a60c9fap-22, 0x1.add773f1864b3p-26}
// log((1 + s)/(1 - s)) = 2 s + s z (L0 + L1 z + ...), z = s^2 <= 0.0294402: relative error 2^-59.44.
#define LOG_LN2_HIGH 0x1.62e42fefa4000p-1  // k * LOG_LN2_HIGH is exact for |k| < 2^11
#define LOG_LN2_LOW -0x1.8432a1b0e2634p-43
#define LOG_TERMS 7
#define LOG_COEFFICIENTS {0x1.5555555555594p-1, 0x1.999999997f72dp-2, 0x1.249249423c734p-2, 0x1.c71c51d50fa2ap-3, 0x1.7466486178ecdp-3, 0x1.39a0ddfa994c2p-3, 0x1.2f0d5e2c92795p-3}
#endif
// clang-format on
