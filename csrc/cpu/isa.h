// The instruction set that the kernels run on: each is compiled once per set, and the best one that
// the processor has is called.
#ifndef JAXSNN_CPU_ISA_H_
#define JAXSNN_CPU_ISA_H_

namespace jaxsnn {

// Results are the same bits on the last two, and differ from those of the first by rounding.
enum class Isa { kBaseline, kAvx2, kAvx512 };

// The best set of this build that the processor runs.
Isa BestIsa();

// Calls kernel.operator()<isa>() for that set.
template <class Kernel>
auto OnBestIsa(const Kernel& kernel) {
#if defined(JAXSNN_X86_KERNELS)
  static const Isa best = BestIsa();
  if (best == Isa::kAvx512) return kernel.template operator()<Isa::kAvx512>();
  if (best == Isa::kAvx2) return kernel.template operator()<Isa::kAvx2>();
#endif
  return kernel.template operator()<Isa::kBaseline>();
}

}  // namespace jaxsnn

#endif  // JAXSNN_CPU_ISA_H_
