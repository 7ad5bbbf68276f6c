# src/kernels.h and src/fpmode.h for Cython; they say what each function does.

from libc.stdint cimport uint16_t, uint64_t

cdef extern from "kernels.h" nogil:
    enum:
        CHUNK "CYSOFTMAX_CHUNK"
        TILE "CYSOFTMAX_TILE"
        MOST_TILES "CYSOFTMAX_TILES"
        FEW "CYSOFTMAX_FEW"

    ctypedef struct Carry "cysoftmax_carry":
        ptrdiff_t n

    ctypedef struct NextTiles "cysoftmax_next_tiles":
        const void *x
        const void *also
        ptrdiff_t stride
        void *tiles
        ptrdiff_t pitch, width, at
        void *largest

    ctypedef struct Gradient "cysoftmax_gradient":
        const double *hi
        const double *lo
        const double *coarse
        const double *fine
        const double *rest_from
        const double *target_mass
        const double *surplus
        const double *target_weight
        const ptrdiff_t *label
        const double *label_mass
        void *a
        const void *base
        const double *base_weight

    ctypedef struct Kernels "cysoftmax_kernels":
        double exp_unit
        ptrdiff_t tile_classes, tile_classes_read
        double (*max)(const void *x, ptrdiff_t n) noexcept nogil
        void (*exp_sum)(const void *x, ptrdiff_t n, double shift, const double *inv_temperature,
                        const void *next, void *e, double *coarse, double *fine) noexcept nogil
        void (*scale)(const void *e, ptrdiff_t n, double hi, double lo, const void *base,
                      double base_weight, const void *a, double weight, void *out) noexcept nogil
        void (*stream)(const void *e, ptrdiff_t n, double hi, double lo, void *out,
                       Carry *carry) noexcept nogil
        void (*stream_copy)(const void *row, ptrdiff_t n, void *out, Carry *carry) noexcept nogil
        void (*store_carry)(Carry *carry) noexcept nogil
        void (*subtract)(void *out, double a, double weight) noexcept nogil
        void (*variance)(const void *e, ptrdiff_t n, double hi, double lo, double coarse,
                         double fine, double weight, void *out) noexcept nogil
        void (*log)(const void *x, ptrdiff_t n, double shift, const double *inv_temperature,
                    double log_total, void *out) noexcept nogil
        void (*sum)(const void *a, ptrdiff_t n, double *hi, double *lo) noexcept nogil
        void (*diff_sum)(const void *a, const void *x, ptrdiff_t n, double shift, double *hi,
                         double *lo) noexcept nogil
        void (*dot)(const void *a, const void *x, ptrdiff_t n, const double *shift, double *hi,
                    double *lo) noexcept nogil
        void (*strided_dot)(const void *a, ptrdiff_t a_step, const void *x, ptrdiff_t x_step,
                            ptrdiff_t n, double *hi, double *lo) noexcept nogil
        void (*vjp)(const void *p, const void *v, ptrdiff_t n, double hi, double lo,
                    void *out) noexcept nogil
        void (*rows_vjp)(const void *p, const void *v, ptrdiff_t n, ptrdiff_t n_rows,
                         void *out) noexcept nogil
        void (*terms)(const double *a, const void *x, const double *shift, int n, double *hi,
                      double *lo) noexcept nogil
        void (*minus_rest)(void *const *e, const double *coarse, const double *fine,
                           int n) noexcept nogil
        void (*minus_rest_major)(void *e, void *a, ptrdiff_t n, double mass, double rest_from,
                                 double surplus, double coarse, double fine) noexcept nogil
        ptrdiff_t (*index_of)(const void *x, ptrdiff_t n, double value) noexcept nogil
        void (*select)(const unsigned char *where, const void *x, ptrdiff_t n, double fill,
                       void *out) noexcept nogil
        void (*fill)(double value, ptrdiff_t n, void *out, bint stream) noexcept nogil
        void (*multiply)(const void *a, const void *b, ptrdiff_t n, void *out) noexcept nogil
        void (*convert)(const void *source, ptrdiff_t step, int kind, ptrdiff_t item,
                        ptrdiff_t n, void *out) noexcept nogil
        double (*widen)(const uint16_t *x, ptrdiff_t n, bint bfloat, void *out) noexcept nogil
        void (*narrow)(const void *x, ptrdiff_t n, bint bfloat, uint16_t *out) noexcept nogil
        void (*stream_short)(const uint16_t *row, ptrdiff_t n, uint16_t *out,
                             Carry *carry) noexcept nogil
        void (*stream_half)(const void *e, ptrdiff_t n, double hi, double lo, uint16_t *out,
                            Carry *carry) noexcept nogil
        void (*tile_load)(const void *const *rows, ptrdiff_t stride, ptrdiff_t n, void *tile,
                          double *largest) noexcept nogil
        void (*tile_store)(const void *tile, ptrdiff_t n, const double *hi, const double *lo,
                           void *const *rows, ptrdiff_t stride, int n_rows) noexcept nogil
        void (*tiles_load)(const void *x, ptrdiff_t stride, ptrdiff_t n, int n_tiles, void *tiles,
                           ptrdiff_t pitch, double *largest) noexcept nogil
        void (*tiles_store)(const void *tiles, ptrdiff_t pitch, ptrdiff_t n, int n_tiles,
                            const double *hi, const double *lo, void *x, ptrdiff_t stride,
                            void *edges, bint precede, bint follow) noexcept nogil
        void (*tile_exp_sum)(void *tile, ptrdiff_t n, const double *shift,
                             const double *inv_temperature, NextTiles *next, double *coarse,
                             double *fine) noexcept nogil
        void (*tile_gather)(const void *tile, ptrdiff_t n, const ptrdiff_t *y,
                            void *x) noexcept nogil
        void (*tile_minus_rest)(void *tile, const ptrdiff_t *y, const void *gathered,
                                const double *mass, const double *rest_from,
                                const double *coarse, const double *fine) noexcept nogil
        void (*tile_scale)(void *tile, ptrdiff_t n, const double *hi,
                           const double *lo) noexcept nogil
        void (*tile_subtract)(void *tile, const ptrdiff_t *y, const double *mass,
                              const double *weight) noexcept nogil
        void (*tile_gradient)(void *e, ptrdiff_t n, const Gradient *g) noexcept nogil
        bint (*tile_sum)(const void *a, ptrdiff_t n, double *hi, double *lo) noexcept nogil
        void (*tile_dot)(const void *a, const void *x, ptrdiff_t n, const double *shift,
                         double *hi, double *lo) noexcept nogil
        void (*tile_diff_sum)(const void *a, const void *x, ptrdiff_t n, const double *shift,
                              double *hi, double *lo) noexcept nogil
        void (*tile_vjp)(void *p, const void *v, ptrdiff_t n, const double *hi,
                         const double *lo) noexcept nogil
        void (*tiles_vjp)(const void *p, ptrdiff_t p_stride, const void *v, ptrdiff_t v_stride,
                          ptrdiff_t n, int n_tiles, void *tiles, ptrdiff_t pitch) noexcept nogil
        void (*tile_index_of)(const void *x, ptrdiff_t n, const double *value,
                              ptrdiff_t *index) noexcept nogil
        void (*tile_multiply)(void *a, const void *weights, ptrdiff_t n) noexcept nogil
        void (*tile_select)(const void *where, ptrdiff_t n, void *x,
                            double *largest) noexcept nogil
        void (*tile_mask)(const void *where, ptrdiff_t n, double value, void *tile) noexcept nogil
        void (*tile_skip)(const char *skipped, ptrdiff_t n, double value,
                          void *tile) noexcept nogil
        void (*tile_variance)(const void *tile, ptrdiff_t n, const double *hi, const double *lo,
                              const double *coarse, const double *fine, const double *weight,
                              void *out) noexcept nogil
        void (*tile_log)(void *tile, ptrdiff_t n, const double *shift,
                         const double *inv_temperature, const double *log_total) noexcept nogil

    ctypedef struct EntryLayout "cysoftmax_entries":
        ptrdiff_t item, step, row_step
        uint64_t one, digits

    ctypedef struct MassesOfRows "cysoftmax_masses":
        const double *sample
        const double *target
        const double *uniform
        double confidence

    ctypedef struct Doubles "cysoftmax_doubles":
        void (*log_total)(const double *coarse, const double *fine, ptrdiff_t n,
                          double *log) noexcept nogil
        void (*divide)(const double *weight, const double *coarse, const double *fine,
                       ptrdiff_t n, double *hi, double *lo) noexcept nogil
        bint (*outside)(const double *x, ptrdiff_t n, double least, double most) noexcept nogil
        bint (*extent)(const double *x, ptrdiff_t n, double *found) noexcept nogil
        void (*add_up)(const double *numbers, ptrdiff_t n, double *sums) noexcept nogil
        bint (*check_labels)(ptrdiff_t *y, ptrdiff_t n, ptrdiff_t n_classes, bint ignores,
                             ptrdiff_t ignore, char *ignored) noexcept nogil
        bint (*one_hot)(const void *entries, const EntryLayout *e, ptrdiff_t n_rows, ptrdiff_t n,
                        ptrdiff_t *y) noexcept nogil
        void (*clear)(const char *which, ptrdiff_t n, double *values) noexcept nogil
        void (*numerators)(const MassesOfRows *masses, const double *factor, ptrdiff_t n,
                           double *b) noexcept nogil
        void (*losses)(const MassesOfRows *masses, const double *log_total, const double *hi,
                       const double *lo, ptrdiff_t n, double *loss) noexcept nogil
        bint (*rest_thresholds)(const double *mass, const double *surplus, ptrdiff_t n,
                                double *start) noexcept nogil
        void (*merge)(const double *a, const double *b, ptrdiff_t n,
                      const double *inv_temperature, double *out) noexcept nogil

    ctypedef struct Isa "cysoftmax_isa":
        const char *name
        bint (*available)() noexcept nogil
        const Kernels *f32
        const Kernels *f64
        const Doubles *doubles

    const Isa *isas "cysoftmax_isas"
    ptrdiff_t cache_size "cysoftmax_cache_size"()

cdef extern from "fpmode.h" nogil:
    ctypedef unsigned long long fp_mode "uint64_t"
    fp_mode fp_enter "cysoftmax_fp_enter"()
    void fp_leave "cysoftmax_fp_leave"(fp_mode found)
    void fp_restore "cysoftmax_fp_restore"(fp_mode found)
