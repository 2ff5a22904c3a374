// Short vectors that the compiler keeps in registers, for loops whose every step needs the one
// before. GCC and clang have them; where they are missing, loops over arrays do the same work.
#ifndef JAXSNN_CORE_REGISTERS_H_
#define JAXSNN_CORE_REGISTERS_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/types.h"

#if defined(__GNUC__)
namespace jaxsnn::inline JAXSNN_ISA {

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
  JAXSNN_INLINE static type Gather(const R* data, const std::int64_t* index) {
    type vector{};
    for (int l = 0; l < kWidth; ++l) vector[l] = data[index[l]];
    return vector;
  }
};

// The sum of kWidth numbers, halves added to halves.
template <class R, int kWidth>
JAXSNN_INLINE R SumLanes(const R* x) {
  if constexpr (kWidth == 1) {
    return x[0];
  } else {
    using Half = Registers<R, kWidth / 2>;
    R sums[kWidth / 2];
    Half::Store(Half::Load(x) + Half::Load(x + kWidth / 2), sums);
    return SumLanes<R, kWidth / 2>(sums);
  }
}

// Whether a comparison holds in any lane.
template <class Comparison>
JAXSNN_INLINE bool AnyLane(const Comparison& comparison) {
#if defined(JAXSNN_ISA_avx512)
  if constexpr (sizeof(Comparison) == 64) {
    const auto lanes = std::bit_cast<__m512i>(comparison);
    return _mm512_test_epi64_mask(lanes, lanes) != 0;
  }
#endif
  struct Words {
    std::uint64_t word[sizeof(Comparison) / sizeof(std::uint64_t)];
  };
  const Words words = std::bit_cast<Words>(comparison);
  std::uint64_t any = 0;
  for (const std::uint64_t word : words.word) any |= word;
  return any != 0;
}

// In which lanes of a vector a comparison holds, as bits.
template <class R, class Comparison>
JAXSNN_INLINE std::uint32_t LaneBits(const Comparison& comparison) {
#if defined(JAXSNN_ISA_avx512)
  if constexpr (sizeof(Comparison) == 64) {
    const auto lanes = std::bit_cast<__m512i>(comparison);
    return sizeof(R) == 4 ? _mm512_movepi32_mask(lanes) : _mm512_movepi64_mask(lanes);
  }
#elif defined(JAXSNN_ISA_avx2)
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

}  // namespace jaxsnn::inline JAXSNN_ISA
#endif

#endif  // JAXSNN_CORE_REGISTERS_H_
