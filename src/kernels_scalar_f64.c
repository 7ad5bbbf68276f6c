#define CYSOFTMAX_TABLE cysoftmax_scalar_f64
#define CYSOFTMAX_DOUBLES cysoftmax_scalar_doubles
#include "vec_scalar.h"
#include "rows.inc"
#include "doubles.inc"
V_END
