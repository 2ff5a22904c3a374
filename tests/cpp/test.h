// A test is a function; a failed check says where, with the values, and fails the program.
#ifndef JAXSNN_TESTS_CPP_TEST_H_
#define JAXSNN_TESTS_CPP_TEST_H_

#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace test {

inline int failures = 0;
inline long checks = 0;

inline void Check(bool good, const char* what, const char* file, int line) {
  ++checks;
  if (good) return;
  ++failures;
  std::printf("%s:%d: %s is false\n", file, line, what);
}

inline void CheckNear(double got, double expected, double tolerance, const char* what,
                      const char* file, int line) {
  ++checks;
  if (got == expected || std::fabs(got - expected) <= tolerance) return;
  ++failures;
  std::printf("%s:%d: %s is %.17g, expected %.17g within %g\n", file, line, what, got, expected,
              tolerance);
}

// Which part of some results of precision R are equal but for rounding.
template <class R, class T>
double ShareOfClose(const std::vector<T>& got, const std::vector<T>& expected) {
  const double tolerance = sizeof(R) == 8 ? 1e-9 : 1e-3;
  double close = 0;
  for (std::size_t k = 0; k < got.size(); ++k) {
    const double a = static_cast<double>(got[k]), b = static_cast<double>(expected[k]);
    const bool both_nan = std::isnan(a) && std::isnan(b);
    close += a == b || both_nan || std::fabs(a - b) <= tolerance * (1 + std::fabs(b));
  }
  return close / static_cast<double>(got.size());
}

// XLA runs kernels with denormals flushed; nothing may depend on them.
inline void Configure(int argc, char** argv) {
#if defined(__x86_64__)
  if (argc > 1 && std::strcmp(argv[1], "flush") == 0) {
    _MM_SET_FLUSH_ZERO_MODE(_MM_FLUSH_ZERO_ON);
    _mm_setcsr(_mm_getcsr() | 0x0040);  // denormals are zero
  }
#else
  (void)argc, (void)argv;
#endif
}

inline int Report() {
  std::printf("%ld checks, %d failed\n", checks, failures);
  return failures != 0 || checks == 0;
}

}  // namespace test

#define CHECK(condition) test::Check((condition), #condition, __FILE__, __LINE__)
#define CHECK_NEAR(got, expected, tolerance) \
  test::CheckNear((got), (expected), (tolerance), #got, __FILE__, __LINE__)

#endif  // JAXSNN_TESTS_CPP_TEST_H_
