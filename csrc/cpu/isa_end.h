// Closes what isa_begin.h opened.
#if defined(JAXSNN_ISA_avx2) || defined(JAXSNN_ISA_avx512)
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
