// Opens the part of a file that is compiled once per instruction set: JAXSNN_ISA names the set, and
// the namespace in which everything behind this line lives, so that no linker can mix up two
// versions of a function. isa_end.h closes the part.
//
// Headers of others must come before, for their inline functions would be compiled for the set as
// well, under one name: the standard headers that the core uses are therefore included here, and
// so are the project's headers whose code all versions share.
//
// A file that defines JAXSNN_HALF_VECTORS before gets vectors of 32 bytes with AVX-512 as well.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(JAXSNN_ISA_avx2) || defined(JAXSNN_ISA_avx512)
#include <immintrin.h>
#endif

#include "core/types.h"
#include "cpu/batch.h"
#include "cpu/kernels.h"
#include "cpu/parallel_for.h"

namespace jaxsnn::inline JAXSNN_ISA {
#if defined(JAXSNN_ISA_avx512)
inline constexpr Isa kIsa = Isa::kAvx512;
#elif defined(JAXSNN_ISA_avx2)
inline constexpr Isa kIsa = Isa::kAvx2;
#else
inline constexpr Isa kIsa = Isa::kBaseline;
#endif
}  // namespace jaxsnn::inline JAXSNN_ISA

// Both sets have FMA, see MulAdd: results are the same on both, and differ from those of the
// baseline by rounding.
#if defined(JAXSNN_ISA_avx2) && defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#elif defined(JAXSNN_ISA_avx2)
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#elif defined(JAXSNN_ISA_avx512) && defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma"))), \
                             apply_to = function)
#elif defined(JAXSNN_ISA_avx512)
#pragma GCC push_options
#if defined(JAXSNN_HALF_VECTORS)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=256")
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512")
#endif
#endif
