// Views of memory that the caller owns. The core allocates nothing.
#ifndef JAXSNN_CORE_VIEW_H_
#define JAXSNN_CORE_VIEW_H_

#include <cstddef>
#include <cstdint>

#include "core/types.h"

namespace jaxsnn::inline JAXSNN_ISA {

// A parameter: one value for all neurons, or one for each.
template <class R>
struct Param {
  const R* data = nullptr;
  bool per_neuron = false;

  JAXSNN_HD double operator[](std::int64_t neuron) const {
    return static_cast<double>(data[per_neuron ? neuron : 0]);
  }
  JAXSNN_HD std::int64_t size(std::int64_t n_neurons) const { return per_neuron ? n_neurons : 1; }
};

// Hands out pieces of a caller's block. With a null block it only counts, so that one function
// both computes the size and lays the pieces out.
class Arena {
 public:
  explicit Arena(void* block) : block_(static_cast<unsigned char*>(block)) {}

  template <class T>
  T* Take(std::int64_t count) {
    constexpr std::size_t kLine = 64;  // a cache line: no two pieces share one
    T* piece = block_ ? reinterpret_cast<T*>(block_ + used_) : nullptr;
    used_ += (static_cast<std::size_t>(count) * sizeof(T) + kLine - 1) / kLine * kLine;
    return piece;
  }
  std::size_t used() const { return used_; }

 private:
  unsigned char* block_;
  std::size_t used_ = 0;
};

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_VIEW_H_
