// Constants of exp and log1p. Printed by src/coefficients.py; do not edit.
// clang-format off
#ifdef CYSOFTMAX_F32
// exp(r) = 1 + r + r^2 (E0 + E1 r + ...), -0.287711 <= r <= 0.405506: relative error 2^-28.22.
#define EXP_MIDDLE 0x1.e280000000000p-5f  // the middle of this interval
#define LOG2_E 0x1.7154760000000p+0f
#define LN2_HIGH 0x1.62e4000000000p-1f  // a multiple of 2^-15: n * LN2_HIGH is exact
#define LN2_LOW 0x1.7f7d1c0000000p-20f
#define EXP_REACH 0x1.cf05b60000000p+6f  // 167 log(2): for x - shift up to minus this, 2^(n + EXP_SCALE) is 0
#define EXP_TERMS 5
#define EXP_COEFFICIENTS {0x1.0000080000000p-1f, 0x1.5554e40000000p-3f, 0x1.55415e0000000p-5f, 0x1.11e8040000000p-7f, 0x1.81b5f80000000p-10f}
#else
// exp(r) = 1 + r + r^2 (E0 + E1 r + ...), -0.287711 <= r <= 0.405506: relative error 2^-57.57.
#define EXP_MIDDLE 0x1.e280000000000p-5  // the middle of this interval
#define LOG2_E 0x1.71547652b82fep+0
#define LN2_HIGH 0x1.62e42fefa4000p-1  // a multiple of 2^-41: n * LN2_HIGH is exact
#define LN2_LOW -0x1.8432a1b0e2634p-43
#define EXP_REACH 0x1.a5163fe09663ep+9  // 1215 log(2): for x - shift up to minus this, 2^(n + EXP_SCALE) is 0
#define EXP_TERMS 10
#define EXP_COEFFICIENTS {0x1.ffffffffffffcp-2, 0x1.55555555556e4p-3, 0x1.555555555650cp-5, 0x1.111111108de04p-7, 0x1.6c16c16955423p-10, 0x1.a01a0551805dap-13, 0x1.a019f8ed9e6b2p-16, 0x1.71d309b2262dfp-19, 0x1.283bc0833f5d5p-22, 0x1.c716c22a2b361p-26}
// log((1 + s)/(1 - s)) = 2 s + s z (L0 + L1 z + ...), z = s^2 <= 0.0294402: relative error 2^-59.44.
#define LOG_LN2_HIGH 0x1.62e42fefa4000p-1  // k * LOG_LN2_HIGH is exact for |k| < 2^11
#define LOG_LN2_LOW -0x1.8432a1b0e2634p-43
#define LOG_TERMS 7
#define LOG_COEFFICIENTS {0x1.5555555555594p-1, 0x1.999999997f72dp-2, 0x1.249249423c734p-2, 0x1.c71c51d50fa2ap-3, 0x1.7466486178ecdp-3, 0x1.39a0ddfa994c2p-3, 0x1.2f0d5e2c92795p-3}
#endif
// clang-format on
