// a b + c in one rounding, where the instruction set has it.
//
// Written out where it counts, and never left to the compiler: the order in which products and sums
// are nested is that of the source in every copy of a function, so that two ways through the code
// round alike.
#ifndef JAXSNN_CORE_MUL_ADD_H_
#define JAXSNN_CORE_MUL_ADD_H_

#include <bit>
#include <cstddef>
#include <type_traits>
#include <utility>

#include "core/types.h"

namespace jaxsnn::inline JAXSNN_ISA {

JAXSNN_HD JAXSNN_INLINE double MulAdd(double a, double b, double c) {
#if defined(JAXSNN_FMA)
  return __builtin_fma(a, b, c);
#else
  return a * b + c;
#endif
}
JAXSNN_HD JAXSNN_INLINE float MulAdd(float a, float b, float c) {
#if defined(JAXSNN_FMA)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

namespace internal {

template <class T>
struct LaneOf {
  using type = T;
};
template <class T>
  requires requires(T x) { x[0]; }
struct LaneOf<T> {
  using type = std::remove_cvref_t<decltype(std::declval<T>()[0])>;
};

}  // namespace internal

// The type of the elements of a vector in registers; a number is its own.
template <class T>
using Lane = typename internal::LaneOf<T>::type;
template <class T>
concept IsVector = !std::is_same_v<T, Lane<T>>;

#if defined(JAXSNN_VECTORS)

// Lane by lane.
template <IsVector Vector>
JAXSNN_INLINE Vector MulAdd(const Vector& a, const Vector& b, const Vector& c) {
#if defined(JAXSNN_ISA_avx2) || defined(JAXSNN_ISA_avx512)
  constexpr bool kFloat = sizeof(Lane<Vector>) == 4;
  constexpr std::size_t kBytes = sizeof(Vector);
#if defined(JAXSNN_ISA_avx512)
  if constexpr (kBytes == 64 && kFloat) return _mm512_fmadd_ps(a, b, c);
  if constexpr (kBytes == 64 && !kFloat) return _mm512_fmadd_pd(a, b, c);
#endif
  if constexpr (kBytes == 32 && kFloat) return _mm256_fmadd_ps(a, b, c);
  if constexpr (kBytes == 32 && !kFloat) return _mm256_fmadd_pd(a, b, c);
  if constexpr (kBytes == 16 && kFloat) return _mm_fmadd_ps(a, b, c);
  if constexpr (kBytes == 16 && !kFloat) return _mm_fmadd_pd(a, b, c);
#endif
#if defined(JAXSNN_FMA)
  Vector sum;
  for (std::size_t l = 0; l < sizeof(Vector) / sizeof(a[0]); ++l) {
    sum[l] = MulAdd(a[l], b[l], c[l]);
  }
  return sum;
#else
  return a * b + c;
#endif
}
template <IsVector Vector>
JAXSNN_INLINE Vector MulAdd(const Lane<Vector>& a, const Vector& b, const Vector& c) {
  return MulAdd(a - Vector{}, b, c);  // in all lanes; unlike a + 0, a - 0 is a
}

#endif

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_MUL_ADD_H_
