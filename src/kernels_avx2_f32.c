#include "kernels.h"
#if CYSOFTMAX_X86
#define CYSOFTMAX_F32
#define CYSOFTMAX_TABLE cysoftmax_avx2_f32
#include "vec_avx2.h"
#include "rows.inc"
V_END
#endif
