// Products with dense matrices and with a few of their rows. Every element is a sum in ascending
// order of the inner index, whichever function computes it and on whatever instruction set: leaving
// out terms that are zero changes nothing.
#ifndef JAXSNN_CORE_DENSE_H_
#define JAXSNN_CORE_DENSE_H_

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

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
  for (std::int64_t j = 0; j < n; ++j) sum[j] += x * row[j];
}

// sum += x[k] * matrix[k, :] for some rows k, one after the other.
template <class R>
void AddRows(std::int64_t n, const R* JAXSNN_RESTRICT matrix, const R* x, const std::int32_t* rows,
             std::int64_t n_rows, R* JAXSNN_RESTRICT sum) {
  std::int64_t k = 0;
  for (; k + 4 <= n_rows; k += 4) {
    const R* JAXSNN_RESTRICT a = matrix + rows[k] * n;
    const R* JAXSNN_RESTRICT b = matrix + rows[k + 1] * n;
    const R* JAXSNN_RESTRICT c = matrix + rows[k + 2] * n;
    const R* JAXSNN_RESTRICT d = matrix + rows[k + 3] * n;
    const R xa = x[rows[k]], xb = x[rows[k + 1]], xc = x[rows[k + 2]], xd = x[rows[k + 3]];
    for (std::int64_t j = 0; j < n; ++j) {
      sum[j] = (((sum[j] + xa * a[j]) + xb * b[j]) + xc * c[j]) + xd * d[j];
    }
  }
  for (; k < n_rows; ++k) AddScaled(n, x[rows[k]], matrix + rows[k] * n, sum);
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
#if defined(__GNUC__)
    constexpr int kLanes = static_cast<int>(kRegisterBytes / sizeof(R));
    constexpr int kVectors = static_cast<int>(kWidth) / kLanes;
    using Vector = typename Registers<R, kLanes>::type;
    Vector sums[kRows][kVectors] = {};
    for (std::int64_t k = 0; k < n_inner; ++k) {
      Vector right[kVectors];
      std::memcpy(right, panels + k * kWidth, sizeof(right));
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
        for (int c = 0; c < kVectors; ++c) sums[r][c] += left[k * kRows + r] * right[c];
      }
    }
    if (width == kWidth) {
      for (int r = 0; r < kRows; ++r) std::memcpy(out[r] + first, sums[r], sizeof(sums[r]));
    } else {
      R tile[kRows][kWidth];
      std::memcpy(tile, sums, sizeof(tile));
      for (int r = 0; r < kRows; ++r) std::copy(tile[r], tile[r] + width, out[r] + first);
    }
#else
    R tile[kRows][kWidth];
    for (auto& row : tile) std::fill(row, row + kWidth, R(0));
    for (std::int64_t k = 0; k < n_inner; ++k) {
      for (int r = 0; r < kRows; ++r) {
        const R x = left[k * kRows + r];
        for (std::int64_t l = 0; l < kWidth; ++l) tile[r][l] += x * panels[k * kWidth + l];
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
