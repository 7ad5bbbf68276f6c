#include "kernels.h"
#if CYSOFTMAX_ARM
#define CYSOFTMAX_F32
#define CYSOFTMAX_TABLE cysoftmax_neon_f32
#include "vec_neon.h"
#include "rows.inc"
V_END
#endif
