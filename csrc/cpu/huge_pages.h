// Large results are written once, on memory that the system hands out page by page.
#ifndef JAXSNN_CPU_HUGE_PAGES_H_
#define JAXSNN_CPU_HUGE_PAGES_H_

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace jaxsnn {

// Asks for large pages where values are about to be written; a quarter of the time of a long layer
// in time steps went into page faults. Changes nothing else, and may be ignored.
template <class T>
void AdviseHugePages(T* values, std::int64_t size) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr std::uintptr_t kPage = std::uintptr_t{1} << 21;
  const auto first = reinterpret_cast<std::uintptr_t>(values);
  const std::uintptr_t begin = (first + kPage - 1) / kPage * kPage;
  const std::uintptr_t end =
      (first + static_cast<std::uintptr_t>(size) * sizeof(T)) / kPage * kPage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)values, (void)size;
#endif
}

}  // namespace jaxsnn

#endif  // JAXSNN_CPU_HUGE_PAGES_H_
