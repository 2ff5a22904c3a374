// Short vectors that the compiler keeps in registers, for loops whose every step needs the one
// before. GCC and clang have them; where they are missing, loops over arrays do the same work.
#ifndef JAXSNN_CORE_REGISTERS_H_
#define JAXSNN_CORE_REGISTERS_H_

#include <bit>
#include <cstddef>
#include <cstdint>

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

  JAXSNN_INLINE static type Gather(const R* data, const std::int64_t* index) {
    type vector{};
    for (int l = 0; l < kWidth; ++l) vector[l] = data[index[l]];
    return vector;
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

}  // namespace jaxsnn::inline JAXSNN_ISA
#endif

#endif  // JAXSNN_CORE_REGISTERS_H_
