#include "kernels.h"
#if CYSOFTMAX_ARM
#define CYSOFTMAX_TABLE cysoftmax_neon_f64
#define CYSOFTMAX_DOUBLES cysoftmax_neon_doubles
#include "vec_neon.h"
#include "rows.inc"
#include "doubles.inc"
V_END
#endif
