// From XLA's buffers to the batch views of the kernels. The Python layer has checked the same facts
// before, with friendlier words; here they keep memory safe.
#ifndef JAXSNN_FFI_DECODE_H_
#define JAXSNN_FFI_DECODE_H_

#include <cstdint>
#include <exception>
#include <functional>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "cpu/batch.h"
#include "cpu/parallel_for.h"
#include "xla/ffi/api/ffi.h"

namespace jaxsnn {

// Runs the loops of the kernels on XLA's own pool.
class XlaThreadPool : public ThreadPool {
 public:
  explicit XlaThreadPool(xla::ffi::ThreadPool pool) : pool_(pool) {}
  std::int64_t num_threads() const override { return pool_.num_threads(); }
  void Schedule(std::function<void()> task) override { pool_.Schedule(std::move(task)); }

 private:
  xla::ffi::ThreadPool pool_;
};

// A size that several operands share: the first one that shows it sets it.
struct Dim {
  std::int64_t size = -1;
};

template <class T>
constexpr xla::ffi::DataType DataTypeOf() {
  if constexpr (std::is_same_v<T, float>) return xla::ffi::DataType::F32;
  if constexpr (std::is_same_v<T, double>) return xla::ffi::DataType::F64;
  return xla::ffi::DataType::S32;
}

// The results of a forward call are operands of its backward call.
enum class ResultsAre { kReturned, kOperands };

// Takes operands and results one by one, in the order of the Python call. After the first mismatch
// it hands out empty views, and error() says what was wrong.
class Decoder {
 public:
  Decoder(const char* op, xla::ffi::RemainingArgs args, xla::ffi::RemainingRets rets,
          ResultsAre results = ResultsAre::kReturned)
      : op_(op), args_(args), rets_(rets), results_(results) {}

  // The batch of the call: the leading axes of a result that has them all.
  void SetBatch(std::size_t result, std::size_t core_rank) {
    auto buffer = rets_.get<xla::ffi::AnyBuffer>(result);
    if (!buffer.has_value() || (*buffer)->dimensions().size() < core_rank) {
      return Fail("result", "a result of the right rank is missing");
    }
    const auto dims = (*buffer)->dimensions();
    batch_.assign(dims.begin(), dims.end() - static_cast<std::ptrdiff_t>(core_rank));
    n_batch_ = 1;
    for (const std::int64_t size : batch_) n_batch_ *= size;
  }
  std::int64_t n_batch() const { return n_batch_; }

  template <class T>
  Batched<const T> Arg(const char* name, std::initializer_list<Dim*> core) {
    auto buffer = args_.get<xla::ffi::AnyBuffer>(next_arg_++);
    if (!buffer.has_value()) return Fail(name, "is missing"), Batched<const T>();
    return View<const T>(name, *buffer, core);
  }

  // One value, or one per neuron.
  template <class T>
  Batched<const T> ArgParam(const char* name, const Dim& neurons) {
    Dim size;
    Batched<const T> param = Arg<T>(name, {&size});
    CheckParam(name, size, neurons);
    return param;
  }
  template <class T>
  Batched<T> RetParam(const char* name, const Dim& neurons) {
    Dim size;
    Batched<T> param = Ret<T>(name, {&size});
    CheckParam(name, size, neurons);
    return param;
  }

  template <class T>
  Batched<T> Ret(const char* name, std::initializer_list<Dim*> core) {
    auto buffer = rets_.get<xla::ffi::AnyBuffer>(next_ret_++);
    if (!buffer.has_value()) return Fail(name, "is missing"), Batched<T>();
    return View<T>(name, **buffer, core);
  }

  // A result of the forward call.
  template <class T>
  Batched<T> Result(const char* name, std::initializer_list<Dim*> core) {
    if (results_ == ResultsAre::kReturned) return Ret<T>(name, core);
    const Batched<const T> view = Arg<T>(name, core);
    return Batched<T>(const_cast<T*>(view.data()), view.core_size(), view.layout());
  }

  bool ok() const { return error_.success(); }
  xla::ffi::Error error() const { return error_; }
  void Fail(const char* name, const std::string& what) {
    if (!ok()) return;
    error_ =
        xla::ffi::Error::InvalidArgument(std::string("jaxsnn: ") + op_ + ": " + name + " " + what);
  }

 private:
  void CheckParam(const char* name, const Dim& size, const Dim& neurons) {
    if (size.size == 1 || size.size == neurons.size) return;
    Fail(name, "has " + std::to_string(size.size) +
                   " values, expected 1 or n_neurons=" + std::to_string(neurons.size));
  }

  template <class T>
  Batched<T> View(const char* name, const xla::ffi::AnyBuffer& buffer,
                  std::initializer_list<Dim*> core) {
    if (!ok()) return {};
    if (buffer.element_type() != DataTypeOf<std::remove_const_t<T>>()) {
      return Fail(name, "has the wrong element type"), Batched<T>();
    }
    const auto dims = buffer.dimensions();
    if (dims.size() < core.size() || dims.size() - core.size() > batch_.size()) {
      return Fail(name, "has the wrong rank"), Batched<T>();
    }
    const std::size_t lead = dims.size() - core.size();
    own_.assign(batch_.size(), 1);
    for (std::size_t axis = 0; axis < lead; ++axis) {
      const std::size_t at = batch_.size() - lead + axis;
      own_[at] = dims[axis];
      if (own_[at] != 1 && own_[at] != batch_[at]) {
        return Fail(name, "has leading axes that do not broadcast to the batch"), Batched<T>();
      }
    }
    std::int64_t core_size = 1;
    std::size_t axis = lead;
    for (Dim* dim : core) {
      if (dim->size < 0) dim->size = dims[axis];
      if (dim->size != dims[axis]) {
        std::ostringstream what;
        what << "has size " << dims[axis] << " along axis " << axis << ", expected " << dim->size;
        return Fail(name, what.str()), Batched<T>();
      }
      core_size *= dims[axis++];
    }
    return Batched<T>(static_cast<T*>(buffer.untyped_data()), core_size, BatchLayout(batch_, own_));
  }

  const char* op_;
  xla::ffi::RemainingArgs args_;
  xla::ffi::RemainingRets rets_;
  ResultsAre results_;
  std::size_t next_arg_ = 0;
  std::size_t next_ret_ = 0;
  std::vector<std::int64_t> batch_, own_;
  std::int64_t n_batch_ = 1;
  xla::ffi::Error error_ = xla::ffi::Error::Success();
};

// The element type of a call: that of its first operand.
inline xla::ffi::DataType RealType(const xla::ffi::RemainingArgs& args) {
  auto buffer = args.get<xla::ffi::AnyBuffer>(0);
  return buffer.has_value() ? buffer->element_type() : xla::ffi::DataType::INVALID;
}

// Calls body.operator()<float>() or <double>().
template <class Body>
xla::ffi::Error DispatchReal(const char* op, const xla::ffi::RemainingArgs& args, Body body) {
  switch (RealType(args)) {
    case xla::ffi::DataType::F32:
      return body.template operator()<float>();
    case xla::ffi::DataType::F64:
      return body.template operator()<double>();
    default:
      return xla::ffi::Error::InvalidArgument(std::string("jaxsnn: ") + op +
                                              ": expected float32 or float64 operands");
  }
}

// The same, and nothing throws through XLA. Running out of memory is the one way in which a kernel
// can.
template <class Body>
xla::ffi::Error Guard(const char* op, const xla::ffi::RemainingArgs& args, Body body) {
  try {
    return DispatchReal(op, args, body);
  } catch (const std::exception& e) {
    return xla::ffi::Error(xla::ffi::ErrorCode::kResourceExhausted,
                           std::string("jaxsnn: ") + op + ": " + e.what());
  }
}

}  // namespace jaxsnn

#endif  // JAXSNN_FFI_DECODE_H_
