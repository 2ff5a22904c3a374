// Short vectors that the compiler keeps in registers, for loops whose every step needs the one
// before. GCC and clang have them; where they are missing, vectors are single numbers.
#ifndef JAXSNN_CORE_REGISTERS_H_
#define JAXSNN_CORE_REGISTERS_H_

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "core/types.h"

namespace jaxsnn::inline JAXSNN_ISA {

// Whether a < b and a >= b, of numbers or lane by lane: for vectors of 64 bytes a bit for each
// lane, for others a vector of all ones or zeros.
template <class T>
JAXSNN_INLINE auto Less(const T& a, const T& b) {
#if defined(JAXSNN_ISA_avx512)
  if constexpr (!std::is_arithmetic_v<T>) {
    using R = std::remove_cvref_t<decltype(a[0])>;
    if constexpr (sizeof(T) == 64 && sizeof(R) == 4) return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
    if constexpr (sizeof(T) == 64 && sizeof(R) == 8) return _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ);
    if constexpr (sizeof(T) < 64) return a < b;
  } else {
    return a < b;
  }
#else
  return a < b;
#endif
}
template <class T>
JAXSNN_INLINE auto AtLeast(const T& a, const T& b) {
#if defined(JAXSNN_ISA_avx512)
  if constexpr (!std::is_arithmetic_v<T>) {
    using R = std::remove_cvref_t<decltype(a[0])>;
    if constexpr (sizeof(T) == 64 && sizeof(R) == 4) return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ);
    if constexpr (sizeof(T) == 64 && sizeof(R) == 8) return _mm512_cmp_pd_mask(a, b, _CMP_GE_OQ);
    if constexpr (sizeof(T) < 64) return a >= b;
  } else {
    return a >= b;
  }
#else
  return a >= b;
#endif
}

#if defined(JAXSNN_VECTORS)

// The size of a register.
#if defined(JAXSNN_ISA_avx512)
inline constexpr std::size_t kRegisterBytes = 64;
#elif defined(JAXSNN_ISA_avx2)
inline constexpr std::size_t kRegisterBytes = 32;
#else
inline constexpr std::size_t kRegisterBytes = 16;
#endif

template <class R, int kWidth>
struct Registers {
  typedef R type __attribute__((vector_size(kWidth * sizeof(R))));

  JAXSNN_INLINE static type Load(const R* data) {
    type vector;
    std::memcpy(&vector, data, sizeof(vector));
    return vector;
  }
  JAXSNN_INLINE static void Store(const type& vector, R* data) {
    std::memcpy(data, &vector, sizeof(vector));
  }
  // The first n numbers, and zeros.
  JAXSNN_INLINE static type LoadSome(const R* data, std::int64_t n) {
    [[maybe_unused]] constexpr bool kFloat = sizeof(R) == 4;
    if constexpr (sizeof(type) > kRegisterBytes) {
      using Half = Registers<R, kWidth / 2>;
      const typename Half::type halves[] = {
          Half::LoadSome(data, std::min<std::int64_t>(n, kWidth / 2)),
          Half::LoadSome(data + kWidth / 2, std::max<std::int64_t>(n - kWidth / 2, 0))};
      return std::bit_cast<type>(halves);
#if defined(JAXSNN_ISA_avx512)
    } else if constexpr (sizeof(type) == 64) {
      if constexpr (kFloat)
        return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), data);
      if constexpr (!kFloat)
        return _mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << n) - 1), data);
#endif
#if defined(JAXSNN_ISA_avx512) || defined(JAXSNN_ISA_avx2)
    } else if constexpr (sizeof(type) == 32) {
      if constexpr (kFloat) return _mm256_maskload_ps(data, FirstLanes<__m256i>(n));
      if constexpr (!kFloat) return _mm256_maskload_pd(data, FirstLanes<__m256i>(n));
    } else if constexpr (sizeof(type) == 16) {
      if constexpr (kFloat) return _mm_maskload_ps(data, FirstLanes<__m128i>(n));
      if constexpr (!kFloat) return _mm_maskload_pd(data, FirstLanes<__m128i>(n));
#endif
    } else {
      type vector{};
      for (int l = 0; l < kWidth; ++l) {
        if (l < n) vector[l] = data[l];
      }
      return vector;
    }
  }
  // The first n numbers alone.
  JAXSNN_INLINE static void StoreSome(const type& vector, R* data, std::int64_t n) {
    [[maybe_unused]] constexpr bool kFloat = sizeof(R) == 4;
    if constexpr (sizeof(type) > kRegisterBytes) {
      using Half = Registers<R, kWidth / 2>;
      struct Halves {
        typename Half::type of[2];
      };
      const Halves halves = std::bit_cast<Halves>(vector);
      Half::StoreSome(halves.of[0], data, std::min<std::int64_t>(n, kWidth / 2));
      Half::StoreSome(halves.of[1], data + kWidth / 2, std::max<std::int64_t>(n - kWidth / 2, 0));
#if defined(JAXSNN_ISA_avx512)
    } else if constexpr (sizeof(type) == 64) {
      if constexpr (kFloat) {
        _mm512_mask_storeu_ps(data, static_cast<__mmask16>((1u << n) - 1), vector);
      } else {
        _mm512_mask_storeu_pd(data, static_cast<__mmask8>((1u << n) - 1), vector);
      }
#endif
#if defined(JAXSNN_ISA_avx512) || defined(JAXSNN_ISA_avx2)
    } else if constexpr (sizeof(type) == 32) {
      if constexpr (kFloat) _mm256_maskstore_ps(data, FirstLanes<__m256i>(n), vector);
      if constexpr (!kFloat) _mm256_maskstore_pd(data, FirstLanes<__m256i>(n), vector);
    } else if constexpr (sizeof(type) == 16) {
      if constexpr (kFloat) _mm_maskstore_ps(data, FirstLanes<__m128i>(n), vector);
      if constexpr (!kFloat) _mm_maskstore_pd(data, FirstLanes<__m128i>(n), vector);
#endif
    } else {
      for (int l = 0; l < kWidth; ++l) {
        if (l < n) data[l] = vector[l];
      }
    }
  }
  JAXSNN_INLINE static type Gather(const R* data, const std::int64_t* index) {
    type vector{};
    for (int l = 0; l < kWidth; ++l) vector[l] = data[index[l]];
    return vector;
  }

 private:
  // All bits of the first n lanes.
  template <class Lanes>
  JAXSNN_INLINE static Lanes FirstLanes(std::int64_t n) {
    using Word = std::conditional_t<sizeof(R) == 4, std::int32_t, std::int64_t>;
    static constexpr Word kWindow[] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
    Lanes lanes;
    std::memcpy(&lanes, kWindow + 8 - n, sizeof(lanes));
    return lanes;
  }
};

// Whether a comparison holds in any lane.
template <class Comparison>
JAXSNN_INLINE bool AnyLane(const Comparison& comparison) {
  struct Words {
    std::uint64_t word[sizeof(Comparison) / sizeof(std::uint64_t)];
  };
  const Words words = std::bit_cast<Words>(comparison);
  std::uint64_t any = 0;
  for (const std::uint64_t word : words.word) any |= word;
  return any != 0;
}

// Whether some vectors stay below others, each in all of its lanes.
template <class Vector>
class AllBelow {
  using R = std::remove_cvref_t<decltype(std::declval<Vector>()[0])>;

 public:
#if defined(JAXSNN_ISA_avx512)
  // One instruction each: a comparison in those lanes where the ones before held.
  JAXSNN_INLINE void Add(const Vector& value, const Vector& bar) {
    constexpr std::size_t kBytes = sizeof(Vector);
    constexpr int kLess = _CMP_LT_OQ;
    if constexpr (sizeof(R) == 4) {
      if constexpr (kBytes == 64) below_ = _mm512_mask_cmp_ps_mask(below_, value, bar, kLess);
      if constexpr (kBytes == 32) below_ = _mm256_mask_cmp_ps_mask(below_, value, bar, kLess);
      if constexpr (kBytes == 16) below_ = _mm_mask_cmp_ps_mask(below_, value, bar, kLess);
    } else {
      if constexpr (kBytes == 64) below_ = _mm512_mask_cmp_pd_mask(below_, value, bar, kLess);
      if constexpr (kBytes == 32) below_ = _mm256_mask_cmp_pd_mask(below_, value, bar, kLess);
      if constexpr (kBytes == 16) below_ = _mm_mask_cmp_pd_mask(below_, value, bar, kLess);
    }
  }
  JAXSNN_INLINE bool all() const { return below_ == kAll; }

 private:
  using Bits = std::conditional_t<sizeof(Vector) / sizeof(R) == 16, __mmask16, __mmask8>;
  static constexpr Bits kAll = static_cast<Bits>((1u << (sizeof(Vector) / sizeof(R))) - 1);
  Bits below_ = kAll;
#else
  JAXSNN_INLINE void Add(const Vector& value, const Vector& bar) {
    const auto below = value < bar;
    below_ = any_ ? below_ & below : below;
    any_ = true;
  }
  JAXSNN_INLINE bool all() const { return !AnyLane(~below_); }

 private:
  decltype(std::declval<Vector>() < std::declval<Vector>()) below_{};
  bool any_ = false;
#endif
};

// In which lanes of a vector a comparison holds, as bits.
template <class R, class Comparison>
JAXSNN_INLINE std::uint32_t LaneBits(const Comparison& comparison) {
  if constexpr (std::is_integral_v<Comparison>) {
    return comparison;
  } else {
#if defined(JAXSNN_ISA_avx2)
    if constexpr (sizeof(Comparison) == 32) {
      const auto bits = sizeof(R) == 4 ? _mm256_movemask_ps(std::bit_cast<__m256>(comparison))
                                       : _mm256_movemask_pd(std::bit_cast<__m256d>(comparison));
      return static_cast<std::uint32_t>(bits);
    }
#endif
    constexpr int kLanes = static_cast<int>(sizeof(Comparison) / sizeof(R));
    std::uint32_t bits = 0;
    for (int l = 0; l < kLanes; ++l) bits |= static_cast<std::uint32_t>(comparison[l] != 0) << l;
    return bits;
  }
}

#else

inline constexpr std::size_t kRegisterBytes = 1;

template <class R, int kWidth>
struct Registers {
  static_assert(kWidth == 1);
  using type = R;

  static R Load(const R* data) { return *data; }
  static void Store(R value, R* data) { *data = value; }
  static R LoadSome(const R* data, std::int64_t n) { return n > 0 ? *data : R(0); }
};

inline bool AnyLane(bool comparison) { return comparison; }

template <class R>
class AllBelow {
 public:
  void Add(R value, R bar) { below_ &= value < bar; }
  bool all() const { return below_; }

 private:
  bool below_ = true;
};

#endif

// How many numbers a register takes; and one of those of 32 bytes, with which short loops between
// scalar code start and end faster.
template <class R>
inline constexpr int kWideLanes =
    static_cast<int>(std::max(kRegisterBytes / sizeof(R), std::size_t{1}));
template <class R>
inline constexpr int kLaneWidth = static_cast<int>(
    std::max(std::min<std::size_t>(kRegisterBytes, 32) / sizeof(R), std::size_t{1}));
template <class R>
using LaneVector = Registers<R, kLaneWidth<R>>;

// body(0), body(1), ... body(kCount - 1). Written out from the start, so that GCC keeps arrays of
// vectors in registers, which it does not where it has to unroll a loop first; the body must be
// inlined, too.
template <class Body, int... kNumbers>
JAXSNN_INLINE void Unroll(const Body& body, std::integer_sequence<int, kNumbers...>) {
  (body(kNumbers), ...);
}
template <int kCount, class Body>
JAXSNN_INLINE void Unroll(const Body& body) {
  Unroll(body, std::make_integer_sequence<int, kCount>());
}

// kWidth numbers put together, halves with halves.
template <class R, int kWidth, class Combine>
JAXSNN_INLINE R CombineLanes(const R* x, const Combine& combine) {
  if constexpr (kWidth == 1) {
    return x[0];
  } else {
    using Half = Registers<R, kWidth / 2>;
    R half[kWidth / 2];
    Half::Store(combine(Half::Load(x), Half::Load(x + kWidth / 2)), half);
    return CombineLanes<R, kWidth / 2>(half, combine);
  }
}
template <class R, int kWidth>
JAXSNN_INLINE R SumLanes(const R* x) {
  return CombineLanes<R, kWidth>(x, [](auto a, auto b) { return a + b; });
}
template <class R, int kWidth>
JAXSNN_INLINE R LeastLane(const R* x) {
  return CombineLanes<R, kWidth>(x, [](auto a, auto b) { return a < b ? a : b; });
}

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_REGISTERS_H_
