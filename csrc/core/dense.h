// Products with dense matrices and with a few of their rows. Every element is a sum in ascending
// order of the inner index, with the same roundings, whichever function computes it: leaving out
// terms that are zero changes nothing. Where all factors of a matrix are 0 or 1, as spikes are, the
// instruction set changes nothing either.
#ifndef JAXSNN_CORE_DENSE_H_
#define JAXSNN_CORE_DENSE_H_

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "core/mul_add.h"
#include "core/registers.h"
#include "core/types.h"

namespace jaxsnn::inline JAXSNN_ISA {

// Adds to a list the indices of the values that are not zero, from `first` on as long as a chunk is
// left. Returns where it stopped.
template <int kChunk, class R>
JAXSNN_INLINE std::int64_t FindInChunks(std::int64_t first, std::int64_t n,
                                        const R* JAXSNN_RESTRICT x,
                                        std::int32_t* JAXSNN_RESTRICT index, std::int64_t& count) {
  using Bits = std::conditional_t<sizeof(R) == 4, std::uint32_t, std::uint64_t>;
  static constexpr auto kBits = [] {
    std::array<Bits, kChunk> bits{};
    for (int l = 0; l < kChunk; ++l) bits[l] = Bits{1} << l;
    return bits;
  }();
  for (; first + kChunk <= n; first += kChunk) {
    Bits found = 0;
    for (int l = 0; l < kChunk; ++l) found |= x[first + l] != 0 ? kBits[l] : Bits{0};
    for (; found != 0; found &= found - 1) {
      index[count++] = static_cast<std::int32_t>(first + std::countr_zero(found));
    }
  }
  return first;
}

// The indices of the values that are not zero, in ascending order. Returns how many there are.
// There must be room for kIndexRoom more.
inline constexpr std::int64_t kIndexRoom = 16;
template <class R>
std::int64_t FindNonzeros(std::int64_t n, const R* x, std::int32_t* index) {
  std::int64_t count = 0, j = 0;
#if defined(JAXSNN_ISA_avx512)
  // Without branches, which few spikes in a random order would mispredict.
  if constexpr (sizeof(R) == 4) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (; j < n; j += 16) {
      const auto inside = static_cast<__mmask16>(n - j < 16 ? (1u << (n - j)) - 1 : 0xffffu);
      const __m512 values = _mm512_maskz_loadu_ps(inside, x + j);
      const __mmask16 found = _mm512_cmp_ps_mask(values, _mm512_setzero_ps(), _CMP_NEQ_UQ);
      const __m512i at = _mm512_add_epi32(lanes, _mm512_set1_epi32(static_cast<int>(j)));
      _mm512_storeu_si512(index + count, _mm512_maskz_compress_epi32(found, at));
      count += std::popcount(static_cast<std::uint32_t>(found));
    }
    return count;
  }
#endif
  j = FindInChunks<32>(j, n, x, index, count);
  j = FindInChunks<8>(j, n, x, index, count);
  FindInChunks<1>(j, n, x, index, count);
  return count;
}

// Asks for values that are needed soon.
template <class R>
JAXSNN_INLINE void Prefetch(std::int64_t n, const R* values) {
#if defined(__GNUC__)
  constexpr std::int64_t kLine = 64 / sizeof(R);
  for (std::int64_t j = 0; j < n; j += kLine) __builtin_prefetch(values + j);
#else
  (void)n, (void)values;
#endif
}

template <class R>
void AddScaled(std::int64_t n, R x, const R* JAXSNN_RESTRICT row, R* JAXSNN_RESTRICT sum) {
  for (std::int64_t j = 0; j < n; ++j) sum[j] = MulAdd(x, row[j], sum[j]);
}

template <class R>
void AddFourScaled(std::int64_t n, R xa, const R* JAXSNN_RESTRICT a, R xb,
                   const R* JAXSNN_RESTRICT b, R xc, const R* JAXSNN_RESTRICT c, R xd,
                   const R* JAXSNN_RESTRICT d, R* JAXSNN_RESTRICT sum) {
  for (std::int64_t j = 0; j < n; ++j) {
    sum[j] = MulAdd(xd, d[j], MulAdd(xc, c[j], MulAdd(xb, b[j], MulAdd(xa, a[j], sum[j]))));
  }
}

// sum += factor(k) * matrix[k, :] for some rows k, one after the other.
template <class R, class Factor>
void AddRows(std::int64_t n, const R* matrix, const std::int32_t* rows, std::int64_t n_rows,
             const Factor& factor, R* sum) {
  const auto row = [&](std::int64_t k) { return matrix + rows[k] * n; };
  std::int64_t k = 0;
  for (; k + 4 <= n_rows; k += 4) {
    AddFourScaled(n, factor(rows[k]), row(k), factor(rows[k + 1]), row(k + 1), factor(rows[k + 2]),
                  row(k + 2), factor(rows[k + 3]), row(k + 3), sum);
  }
  for (; k < n_rows; ++k) AddScaled(n, factor(rows[k]), row(k), sum);
}

// How many rows a product takes at a time, and how many columns.
inline constexpr int kProductRows = 8;
#if defined(JAXSNN_ISA_avx512)
inline constexpr int kPanelBytes = 128;
#elif defined(JAXSNN_ISA_avx2)
inline constexpr int kPanelBytes = 32;
#else
inline constexpr int kPanelBytes = 16;
#endif
template <class R>
inline constexpr std::int64_t kPanelColumns = kPanelBytes / static_cast<int>(sizeof(R));

// The size of a matrix [n_inner, n_columns] cut into panels of columns, each contiguous.
template <class R>
std::int64_t PanelsSize(std::int64_t n_inner, std::int64_t n_columns) {
  const std::int64_t width = kPanelColumns<R>;
  return (n_columns + width - 1) / width * width * n_inner;
}

// Cuts it, or the transpose of a matrix [n_columns, n_inner].
template <class R, bool kTranspose>
void PackPanels(std::int64_t n_inner, std::int64_t n_columns, const R* matrix, R* panels) {
  const std::int64_t width = kPanelColumns<R>;
  for (std::int64_t first = 0; first < n_columns; first += width) {
    for (std::int64_t k = 0; k < n_inner; ++k) {
      for (std::int64_t l = 0; l < width; ++l) {
        const std::int64_t j = first + l;
        const std::int64_t at = kTranspose ? j * n_inner + k : k * n_columns + j;
        *panels++ = j < n_columns ? matrix[at] : R(0);
      }
    }
  }
}

// The product of kRows rows, which lie interleaved in left [n_inner, kRows], with a packed matrix:
// one row of results at each of `out`.
template <class R, int kRows>
void MultiplyPanels(std::int64_t n_inner, std::int64_t n_columns, const R* JAXSNN_RESTRICT left,
                    const R* JAXSNN_RESTRICT panels, R* const* out) {
  constexpr std::int64_t kWidth = kPanelColumns<R>;
  for (std::int64_t first = 0; first < n_columns; first += kWidth) {
    const std::int64_t width = std::min(kWidth, n_columns - first);
#if defined(JAXSNN_VECTORS)
    constexpr int kLanes = static_cast<int>(kRegisterBytes / sizeof(R));
    constexpr int kVectors = static_cast<int>(kWidth) / kLanes;
    using Wide = Registers<R, kLanes>;
    // All loops over sums are unrolled, which keeps them in registers.
    typename Wide::type sums[kRows][kVectors] = {};
    for (std::int64_t k = 0; k < n_inner; ++k) {
      typename Wide::type right[kVectors];
#pragma GCC unroll 2
      for (int c = 0; c < kVectors; ++c) {
        right[c] = Wide::Load(panels + k * kWidth + c * kLanes);
      }
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        // Subtracting nothing leaves every number as it is, adding it would not.
        const typename Wide::type x = left[k * kRows + r] - typename Wide::type{};
#pragma GCC unroll 2
        for (int c = 0; c < kVectors; ++c) sums[r][c] = MulAdd(x, right[c], sums[r][c]);
      }
    }
    R tile[kWidth];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      R* const row = width == kWidth ? out[r] + first : tile;
#pragma GCC unroll 2
      for (int c = 0; c < kVectors; ++c) Wide::Store(sums[r][c], row + c * kLanes);
      if (width < kWidth) std::copy(tile, tile + width, out[r] + first);
    }
#else
    R tile[kRows][kWidth];
    for (auto& row : tile) std::fill(row, row + kWidth, R(0));
    for (std::int64_t k = 0; k < n_inner; ++k) {
      for (int r = 0; r < kRows; ++r) {
        const R x = left[k * kRows + r];
        for (std::int64_t l = 0; l < kWidth; ++l) {
          tile[r][l] = MulAdd(x, panels[k * kWidth + l], tile[r][l]);
        }
      }
    }
    for (int r = 0; r < kRows; ++r) std::copy(tile[r], tile[r] + width, out[r] + first);
#endif
    panels += n_inner * kWidth;
  }
}

// The product of up to kProductRows rows, each [n_inner], with a packed matrix [n_inner,
// n_columns]. `scratch` has room for kProductRows * n_inner values.
template <class R>
void MultiplyRows(std::int64_t n_rows, std::int64_t n_inner, std::int64_t n_columns,
                  const R* const* rows, const R* panels, R* const* out, R* scratch) {
  const auto multiply = [&]<int kRows>(std::int64_t first) {
    for (std::int64_t k = 0; k < n_inner; ++k) {
      for (int r = 0; r < kRows; ++r) scratch[k * kRows + r] = rows[first + r][k];
    }
    MultiplyPanels<R, kRows>(n_inner, n_columns, scratch, panels, out + first);
  };
  if (n_rows == kProductRows) return multiply.template operator()<kProductRows>(0);
  std::int64_t first = 0;
  for (; first + 4 <= n_rows; first += 4) multiply.template operator()<4>(first);
  for (; first < n_rows; ++first) multiply.template operator()<1>(first);
}

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_DENSE_H_
