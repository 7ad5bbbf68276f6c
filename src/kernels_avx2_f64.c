#include "kernels.h"
#if CYSOFTMAX_X86
#define CYSOFTMAX_TABLE cysoftmax_avx2_f64
#define CYSOFTMAX_DOUBLES cysoftmax_avx2_doubles
#include "vec_avx2.h"
#include "rows.inc"
#include "doubles.inc"
V_END
#endif
