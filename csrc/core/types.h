// What every part of the core shares: the host/device macro, sentinels and the outcome of a call.
#ifndef JAXSNN_CORE_TYPES_H_
#define JAXSNN_CORE_TYPES_H_

#include <cstdint>
#include <limits>
#include <type_traits>

#if defined(__CUDACC__)
#define JAXSNN_HD __host__ __device__
#else
#define JAXSNN_HD
#endif

#if defined(_MSC_VER)
#define JAXSNN_RESTRICT __restrict
#else
#define JAXSNN_RESTRICT __restrict__
#endif

// For the small functions of inner loops: a loop around a call does not vectorise.
#if defined(__GNUC__)
#define JAXSNN_INLINE inline __attribute__((always_inline))
#else
#define JAXSNN_INLINE inline
#endif

// The same for a lambda, behind its parameters.
#if defined(__GNUC__)
#define JAXSNN_INLINE_LAMBDA __attribute__((always_inline))
#else
#define JAXSNN_INLINE_LAMBDA
#endif

// Whether the compiler has vectors as types.
#if defined(__GNUC__) && !defined(JAXSNN_NO_VECTORS)
#define JAXSNN_VECTORS
#endif

// For loops whose pointers must not be known to come from one object, as they are once inlined:
// GCC forgets then that they do not overlap.
#if defined(__GNUC__)
#define JAXSNN_NOINLINE __attribute__((noinline))
#else
#define JAXSNN_NOINLINE
#endif

// Whether MulAdd fuses.
#if defined(JAXSNN_ISA_avx2) || defined(JAXSNN_ISA_avx512) || defined(__FP_FAST_FMA)
#define JAXSNN_FMA
#endif

// The instruction set for which the numerics are compiled, see cpu/isa_begin.h.
#ifndef JAXSNN_ISA
#define JAXSNN_ISA baseline
#endif

namespace jaxsnn {

// Padding is time == +inf together with index == -1, and nothing else is.
inline constexpr std::int32_t kNoIndex = -1;
inline constexpr double kNever = std::numeric_limits<double>::infinity();

// An integer as wide as R, so that comparisons of lanes stay in lanes.
template <class R>
using Mask = std::conditional_t<sizeof(R) == 4, std::int32_t, std::int64_t>;

// How a call ended, per example. The numbers are part of the Python interface.
enum class Status : std::int32_t {
  kOk = 0,
  kEventCapacity = 1,
  kNoConvergence = 2,
  kUnsortedInput = 3,
  kNonFinite = 4,
  kInvalidValue = 5,
};

// The argument that an outcome speaks of.
enum class Argument : std::int32_t {
  kNone = 0,
  kTauMem,
  kTauSyn,
  kVTh,
  kVLeak,
  kVReset,
  kTRef,
  kWeights,
  kStateV,
  kStateI,
  kStateRelease,
  kStateTime,
  kInputTime,
  kInputIndex,
  kInputHead,
  kTMax,
  kDt,
  kRecurrent,
  kDelays,
  kRecurrentDelays,
  kPastTime,
  kPastIndex,
  kProbeTime,
};

// A status with the facts that its message needs.
struct Outcome {
  Status status = Status::kOk;
  Argument argument = Argument::kNone;
  std::int64_t element = 0;  // position within the argument
  double value = 0;          // what stands there

  JAXSNN_HD bool ok() const { return status == Status::kOk; }
  // Data after which an example's numbers mean nothing. A full record is not such a case.
  JAXSNN_HD bool failed() const {
    return status != Status::kOk && status != Status::kEventCapacity;
  }
};

}  // namespace jaxsnn

#endif  // JAXSNN_CORE_TYPES_H_
