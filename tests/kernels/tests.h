// The list of all tests: it declares each of them, and main.c runs what it lists. A test that is
// not in it has no prototype, one that is in it alone does not link: neither builds.

#ifndef CYSOFTMAX_TESTS_TESTS_H
#define CYSOFTMAX_TESTS_TESTS_H

#include "harness.h"

// A test is named after the sentence it proves, and stands under one of four words:
//   EXP      of each row, and of each row with a temperature
//   ROW      of each row
//   ONCE     once for each instruction set and dtype
//   DOUBLES  once for each instruction set
// clang-format off
#define ALL_TESTS(EXP, ROW, ONCE, DOUBLES)                                                        \
    /* exp.c */                                                                                   \
    ROW(max_is_the_largest_logit)                                                                 \
    EXP(exp_is_within_one_ulp)                                                                    \
    ONCE(no_exp_is_lost_between_two_reals)                                                        \
    EXP(exp_of_minus_infinity_is_zero)                                                            \
    EXP(sum_of_exp_is_within_its_bound)                                                           \
    EXP(coarse_is_a_multiple_of_its_unit)                                                         \
    EXP(rest_of_a_confident_row_keeps_its_accuracy)                                               \
    EXP(sums_are_the_same_without_e_and_in_place)                                                 \
    EXP(exp_sum_writes_nothing_else)                                                              \
    EXP(the_row_prefetched_meanwhile_changes_nothing)                                             \
    ROW(an_inverse_temperature_of_one_changes_a_last_bit_at_most)                                 \
    ONCE(the_place_of_a_row_changes_no_bit)                                                       \
    ONCE(max_ignores_nan)                                                                         \
    ONCE(max_of_nothing_is_minus_infinity)                                                        \
    ONCE(sum_of_exp_is_nan_where_softmax_is)                                                      \
    /* rows.c */                                                                                  \
    EXP(scale_makes_probabilities)                                                                \
    ROW(scale_subtracts_the_weighted_target)                                                      \
    ROW(scale_subtracts_the_base)                                                                 \
    ROW(a_missing_base_is_all_ones_and_one_without_weight_is_nothing)                             \
    ROW(subtract_is_scale_with_a_for_one_class)                                                   \
    EXP(variance_is_within_its_bound)                                                             \
    EXP(log_is_within_its_bound)                                                                  \
    ONCE(log_overflows_to_minus_infinity)                                                         \
    ROW(difference_is_exact)                                                                      \
    ONCE(terms_survive_overflow)                                                                  \
    EXP(minus_rest_leaves_minus_the_rest)                                                         \
    ROW(minus_rest_takes_steps)                                                                   \
    ROW(minus_rest_major_treats_what_has_half_of_the_mass)                                        \
    ONCE(index_of_returns_the_first_place_or_n)                                                   \
    ONCE(index_of_takes_one_zero_for_the_other_and_never_finds_nan)                               \
    ONCE(select_takes_x_where_the_byte_is_not_zero)                                               \
    ROW(multiply_is_rounded_once)                                                                 \
    /* sums.c */                                                                                  \
    ROW(sum_has_twice_the_digits)                                                                 \
    ROW(dot_has_twice_the_digits)                                                                 \
    ROW(dot_skips_zeros_even_at_minus_infinity)                                                   \
    ROW(strided_dot_has_the_bits_of_dot)                                                          \
    ONCE(dot_with_mass_on_minus_infinity_is_minus_infinity)                                       \
    ROW(terms_are_what_dot_has_for_each_alone)                                                    \
    ROW(diff_sum_is_within_its_bound)                                                             \
    ONCE(diff_sum_is_infinite_or_nan_where_a_logit_is)                                            \
    ROW(vjp_is_within_its_bound)                                                                  \
    ONCE(vjps_of_rows_are_those_of_each)                                                          \
    /* stores.c */                                                                                \
    ONCE(rows_of_every_length_are_streamed_whole_and_alone)                                       \
    ONCE(fill_stores_whole_and_alone)                                                             \
    ONCE(outputs_are_stored_whole_and_alone)                                                      \
    /* half.c */                                                                                  \
    ONCE(only_float32_has_numbers_of_16_bits)                                                     \
    ONCE(widen_is_exact_for_every_pattern)                                                        \
    ONCE(narrow_brings_every_pattern_back)                                                        \
    ONCE(narrow_rounds_to_nearest_and_ties_to_even)                                               \
    ONCE(narrow_keeps_nan_and_infinity_and_overflows_to_it)                                       \
    ONCE(narrow_keeps_the_sign_of_what_becomes_zero)                                              \
    ONCE(short_rows_are_streamed_whole_and_alone)                                                 \
    ONCE(widen_returns_the_maximum)                                                               \
    ONCE(short_floats_of_every_length_are_stored_whole_and_alone)                                 \
    /* tiles.c */                                                                                 \
    ONCE(tile_load_gathers_every_layout)                                                          \
    ONCE(rows_of_few_classes_are_loaded_from_nowhere_else)                                        \
    ONCE(tile_store_scatters_and_writes_nothing_else)                                             \
    ONCE(rows_of_few_classes_are_stored_nowhere_else)                                             \
    ONCE(tiles_store_undoes_tiles_load_and_writes_nothing_else)                                   \
    ONCE(tile_variance_writes_nothing_else)                                                       \
    ONCE(tiles_agree_with_rows_to_the_last_bit)                                                   \
    /* targets.c */                                                                               \
    ONCE(masses_of_sixteen_rows_are_those_of_each)                                                \
    ONCE(dots_of_sixteen_rows_are_those_of_each)                                                  \
    ONCE(differences_of_sixteen_rows_are_those_of_each)                                           \
    ONCE(the_vjp_of_sixteen_rows_is_that_of_each)                                                 \
    ONCE(the_vjp_of_rows_side_by_side_is_that_of_tiles)                                           \
    ONCE(places_in_sixteen_rows_are_those_in_each)                                                \
    ONCE(weights_of_classes_multiply_sixteen_rows_as_each)                                        \
    ONCE(masks_select_in_sixteen_rows_what_they_do_in_each)                                       \
    ONCE(without_a_mask_nothing_changes_and_maxima_are_those_of_each_row)                         \
    ONCE(skipped_rows_and_no_others_are_filled)                                                   \
    ONCE(numbers_of_labels_are_gathered)                                                          \
    ONCE(masses_of_labels_are_subtracted_in_sixteen_rows_as_in_each)                              \
    ONCE(gradients_of_sixteen_labels_are_those_of_each)                                           \
    ONCE(gradients_of_sixteen_distributions_are_those_of_each)                                    \
    ONCE(gradients_without_a_target_are_scaled_less_the_base)                                     \
    /* convert.c */                                                                               \
    ONCE(numbers_of_each_dtype_become_reals)                                                      \
    /* doubles.c */                                                                               \
    DOUBLES(log_total_is_within_one_ulp)                                                          \
    DOUBLES(log_total_of_one_is_zero_and_of_nan_nan)                                              \
    DOUBLES(divide_has_twice_the_digits_with_fma)                                                 \
    DOUBLES(the_extent_of_weights_is_found_at_any_place) \
    DOUBLES(a_number_outside_of_a_range_is_found_at_any_place)                                    \
    DOUBLES(divide_of_zero_is_zero)                                                               \
    DOUBLES(sixteen_numbers_add_up_to_twice_the_digits)                                           \
    DOUBLES(labels_that_are_ignored_or_out_of_range_become_zero)                                  \
    DOUBLES(labels_of_one_hot_rows_are_found)                                                      \
    DOUBLES(what_is_marked_is_cleared_even_if_it_is_nan)                                          \
    DOUBLES(formulas_of_rows_are_those_written_down)                                              \
    DOUBLES(merged_sums_are_those_of_all_classes)
// clang-format on

#define DECLARE_OF_ROW(test) void test(const subject *s, const row *r);
#define DECLARE(test) void test(const subject *s);
ALL_TESTS(DECLARE_OF_ROW, DECLARE_OF_ROW, DECLARE, DECLARE)

// Of everything that the kernels of an instruction set compute: hash.c.
uint64_t hash_of_results(const cysoftmax_isa *isa);

#endif
