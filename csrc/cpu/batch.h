// Batches of operands: leading axes that broadcast against each other as NumPy's do.
#ifndef JAXSNN_CPU_BATCH_H_
#define JAXSNN_CPU_BATCH_H_

#include <cstdint>
#include <utility>
#include <vector>

namespace jaxsnn {

// Maps an example of the full batch to the slot that an operand has for it.
class BatchLayout {
 public:
  BatchLayout() = default;

  // `own` has been padded with ones to the rank of `batch`; each axis is equal or 1. The two usual
  // cases, a slot for each example and one for all, need no memory.
  BatchLayout(const std::vector<std::int64_t>& batch, const std::vector<std::int64_t>& own) {
    std::int64_t n_examples = 1;
    for (std::size_t axis = 0; axis < batch.size(); ++axis) {
      n_slots_ *= own[axis];
      n_examples *= batch[axis];
    }
    full_ = n_slots_ == n_examples;
    if (full_ || n_slots_ == 1) return;
    batch_ = batch;
    strides_.resize(batch.size());
    std::int64_t stride = 1;
    for (std::size_t axis = batch.size(); axis-- > 0;) {
      if (own[axis] != 1) strides_[axis] = stride;
      stride *= own[axis];
    }
  }

  std::int64_t n_slots() const { return n_slots_; }
  bool full() const { return full_; }  // every example has a slot of its own

  std::int64_t Slot(std::int64_t example) const {
    if (full_) return example;
    if (n_slots_ == 1) return 0;
    std::int64_t slot = 0;
    for (std::size_t axis = batch_.size(); axis-- > 0;) {
      slot += example % batch_[axis] * strides_[axis];
      example /= batch_[axis];
    }
    return slot;
  }

 private:
  std::vector<std::int64_t> batch_;
  std::vector<std::int64_t> strides_;
  std::int64_t n_slots_ = 1;
  bool full_ = true;
};

template <class T>
class Batched {
 public:
  Batched() = default;
  Batched(T* data, std::int64_t core_size, BatchLayout layout)
      : data_(data), core_size_(core_size), layout_(std::move(layout)) {}

  T* operator[](std::int64_t example) const { return data_ + layout_.Slot(example) * core_size_; }
  T* data() const { return data_; }
  std::int64_t core_size() const { return core_size_; }
  std::int64_t size() const { return core_size_ * layout_.n_slots(); }
  const BatchLayout& layout() const { return layout_; }

 private:
  T* data_ = nullptr;
  std::int64_t core_size_ = 0;
  BatchLayout layout_;
};

}  // namespace jaxsnn

#endif  // JAXSNN_CPU_BATCH_H_
