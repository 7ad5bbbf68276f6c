#include "kernels.h"
#if CYSOFTMAX_X86
#define CYSOFTMAX_F32
#define CYSOFTMAX_TABLE cysoftmax_avx512_f32
#include "vec_avx512.h"
#include "rows.inc"
V_END
#endif
