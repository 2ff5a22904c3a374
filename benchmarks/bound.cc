// What no simulator of such networks can do without: the rows of weights of the spikes that arrive
// are added to the currents, and the adjoint currents to the rows of gradients.
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

namespace {

// body(first, last) for parts of a batch, one per thread.
template <class Body>
void OverBatch(std::int64_t n_batch, std::int64_t n_threads, const Body& body) {
  std::vector<std::thread> threads;
  for (std::int64_t t = 1; t < n_threads; ++t) {
    threads.emplace_back(
        [=, &body] { body(t, n_batch * t / n_threads, n_batch * (t + 1) / n_threads); });
  }
  body(0, 0, n_batch / n_threads);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

// weights [n_rows, n], index [n_batch, n_spikes] with -1 for none, currents [n_batch, n].
extern "C" void AddRows(const float* weights, const std::int32_t* index, std::int64_t n_batch,
                        std::int64_t n_spikes, std::int64_t n, float* currents,
                        std::int64_t n_threads) {
  OverBatch(n_batch, n_threads, [=](std::int64_t, std::int64_t first, std::int64_t last) {
    for (std::int64_t b = first; b < last; ++b) {
      float* __restrict__ current = currents + b * n;
      std::memset(current, 0, n * sizeof(float));
      for (std::int64_t k = 0; k < n_spikes; ++k) {
        if (index[b * n_spikes + k] < 0) continue;
        const float* __restrict__ row = weights + index[b * n_spikes + k] * n;
        for (std::int64_t j = 0; j < n; ++j) current[j] += row[j];
      }
    }
  });
}

// adjoints [n_batch, n], gradients [n_rows, n].
extern "C" void AddGradients(const float* adjoints, const std::int32_t* index, std::int64_t n_batch,
                             std::int64_t n_spikes, std::int64_t n, std::int64_t n_rows,
                             float* gradients, std::int64_t n_threads) {
  std::vector<float> parts((n_threads - 1) * n_rows * n);
  OverBatch(n_batch, n_threads, [&](std::int64_t t, std::int64_t first, std::int64_t last) {
    float* const part = t == 0 ? gradients : parts.data() + (t - 1) * n_rows * n;
    std::memset(part, 0, n_rows * n * sizeof(float));
    for (std::int64_t b = first; b < last; ++b) {
      const float* __restrict__ adjoint = adjoints + b * n;
      for (std::int64_t k = n_spikes - 1; k >= 0; --k) {
        if (index[b * n_spikes + k] < 0) continue;
        float* __restrict__ row = part + index[b * n_spikes + k] * n;
        for (std::int64_t j = 0; j < n; ++j) row[j] += adjoint[j];
      }
    }
  });
  for (std::int64_t t = 1; t < n_threads; ++t) {
    for (std::int64_t k = 0; k < n_rows * n; ++k) gradients[k] += parts[(t - 1) * n_rows * n + k];
  }
}
