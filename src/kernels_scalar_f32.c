#define CYSOFTMAX_F32
#define CYSOFTMAX_TABLE cysoftmax_scalar_f32
#include "vec_scalar.h"
#include "rows.inc"
V_END
