// Layers in time steps: the same bits for any number of threads, results the same bits on every
// instruction set and gradients close, and a way back that is the transpose of the way forward.
#include <cstring>
#include <initializer_list>
#include <limits>
#include <random>
#include <vector>

#include "cpu/isa.h"
#include "cpu/lif_steps.h"
#include "pool.h"
#include "test.h"

namespace {

using jaxsnn::Batched;
using jaxsnn::BatchLayout;
using jaxsnn::Isa;

constexpr std::int64_t kBatch = 21, kSteps = 19;

template <class T>
struct Buffer {
  Buffer(bool shared, std::int64_t n)
      : slots(shared ? 1 : kBatch), size(n), data(static_cast<std::size_t>(slots * n)) {}
  BatchLayout layout() const { return BatchLayout({kBatch}, {slots}); }
  Batched<T> get() { return Batched<T>(data.data(), size, layout()); }
  Batched<const T> read() const { return Batched<const T>(data.data(), size, layout()); }

  std::int64_t slots, size;
  std::vector<T> data;
};

struct Case {
  std::int64_t n_inputs, n_neurons;
  bool recurrent;
  double density;
  int refractory, shape;
  bool jump_first, spiking;
};

template <class R>
struct Layer {
  Case c;
  std::int64_t k, n, m;
  Buffer<R> weights{true, k * n}, recurrent{true, m * n}, inputs{false, kSteps * k};
  Buffer<R> v{false, n}, i{false, n}, z{false, n};
  Buffer<std::int32_t> hold{false, n}, end_hold{false, n};
  Buffer<R> leak{true, n}, drive{true, 1}, decay{true, n}, v_th{true, 1}, v_leak{true, 1},
      v_reset{true, n};
  Buffer<R> spikes{false, kSteps * n}, voltage{false, kSteps * n}, end_v{false, n}, end_i{false, n};
  Buffer<R> ct_spikes{false, kSteps * n}, ct_voltage{false, kSteps * n}, ct_v{false, n},
      ct_i{false, n};
  Buffer<R> g_weights{true, k * n}, g_recurrent{true, m * n}, g_inputs{false, kSteps * k};
  Buffer<R> g_v{false, n}, g_i{false, n}, g_z{false, n};
  Buffer<R> g_leak{false, n}, g_drive{false, 1}, g_decay{false, n}, g_v_th{false, 1},
      g_v_leak{false, 1}, g_v_reset{false, n};

  explicit Layer(const Case& which)
      : c(which), k(which.n_inputs), n(which.n_neurons), m(which.recurrent ? which.n_neurons : 0) {
    std::mt19937_64 random(7);
    const auto fill = [&random](Buffer<R>& buffer, double low, double high) {
      std::uniform_real_distribution<double> draw(low, high);
      for (R& x : buffer.data) x = static_cast<R>(draw(random));
    };
    const double active = 1 + c.density * static_cast<double>(k);
    fill(weights, -1 / active, 3 / active);
    fill(recurrent, -0.5, 0.5);
    std::bernoulli_distribution spike(c.density), held(0.3);
    for (R& x : inputs.data) x = spike(random) ? R(1) : R(0);
    for (auto& x : hold.data) x = held(random) ? 2 : 0;
    fill(leak, 0.05, 0.1), fill(drive, 0.1, 0.2), fill(decay, 0.8, 0.95);
    if (c.spiking) {
      fill(v, -0.2, 0.2), fill(i, -0.2, 0.5), fill(v_leak, -0.1, 0.1), fill(v_reset, -0.2, 0.1);
      fill(v_th, 0.3, 0.5);
      for (R& x : z.data) x = held(random) && c.recurrent ? R(1) : R(0);
      fill(ct_spikes, -1, 1);
    } else {
      v_th.data[0] = std::numeric_limits<R>::infinity();
    }
    fill(ct_voltage, -1, 1), fill(ct_v, -1, 1), fill(ct_i, -1, 1);
  }

  template <Isa isa>
  void Run(jaxsnn::ThreadPool& pool) {
    jaxsnn::BatchSteps<R> p;
    p.n_batch = kBatch, p.n_steps = kSteps, p.n_inputs = k, p.n_neurons = n, p.n_sources = m;
    p.weights = weights.read(), p.recurrent = recurrent.read(), p.inputs = inputs.read();
    p.v = v.read(), p.i = i.read(), p.spikes = z.read(), p.hold = hold.read();
    p.leak = leak.read(), p.drive = drive.read(), p.decay = decay.read(), p.v_th = v_th.read();
    p.v_leak = v_leak.read(), p.v_reset = v_reset.read();
    p.refractory = c.refractory, p.jump_first = c.jump_first, p.shape = c.shape;
    p.slope = 3, p.scale = 0.5;
    const jaxsnn::BatchStepsResults<R> r{spikes.get(), voltage.get(), end_v.get(), end_i.get(),
                                         end_hold.get()};
    const jaxsnn::BatchStepsCotangents<R> ct{ct_spikes.read(), ct_voltage.read(), ct_v.read(),
                                             ct_i.read()};
    const jaxsnn::BatchStepsGradients<R> g{
        g_weights.get(), g_recurrent.get(), g_inputs.get(), g_v.get(),     g_i.get(),
        g_z.get(),       g_leak.get(),      g_drive.get(),  g_decay.get(), g_v_th.get(),
        g_v_leak.get(),  g_v_reset.get(),   true,           true};
    jaxsnn::LifStepsForward<isa, R>(p, r, pool);
    jaxsnn::LifStepsBackward<isa, R>(p, r, ct, g, pool);
  }

  std::vector<R> Results() const {
    std::vector<R> all = Joined({&spikes, &voltage, &end_v, &end_i});
    for (const std::int32_t x : end_hold.data) all.push_back(static_cast<R>(x));
    return all;
  }
  std::vector<R> Gradients() const {
    return Joined({&g_weights, &g_recurrent, &g_inputs, &g_v, &g_i, &g_z, &g_leak, &g_drive,
                   &g_decay, &g_v_th, &g_v_leak, &g_v_reset});
  }

 private:
  static std::vector<R> Joined(std::initializer_list<const Buffer<R>*> buffers) {
    std::vector<R> all;
    for (const auto* x : buffers) all.insert(all.end(), x->data.begin(), x->data.end());
    return all;
  }
};

template <class R>
bool SameBits(const std::vector<R>& a, const std::vector<R>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(R)) == 0;
}

template <class R>
void Compare(const Case& which, test::Pool& one, test::Pool& several) {
  Layer<R> baseline(which);
  baseline.template Run<Isa::kBaseline>(one);
  double fired = 0;
  for (const R x : baseline.spikes.data) fired += static_cast<double>(x);
  CHECK(fired > 0);
  Layer<R> threaded(which);
  threaded.template Run<Isa::kBaseline>(several);
  CHECK(SameBits(threaded.Results(), baseline.Results()));
  CHECK(SameBits(threaded.Gradients(), baseline.Gradients()));
  // Products of adjoints, and the exponentials of some surrogates, round differently with FMA.
  Layer<R> best(which);
  jaxsnn::OnBestIsa([&]<Isa isa>() { best.template Run<isa>(several); });
  CHECK(SameBits(best.Results(), baseline.Results()));
  CHECK(test::ShareOfClose<R>(best.Gradients(), baseline.Gradients()) == 1);
#if defined(JAXSNN_X86_KERNELS)
  if (jaxsnn::BestIsa() >= Isa::kAvx2) {
    Layer<R> layer(which);
    layer.template Run<Isa::kAvx2>(several);
    CHECK(SameBits(layer.Results(), best.Results()));
    CHECK(SameBits(layer.Gradients(), best.Gradients()));
  }
#endif
}

template <class R>
double Dot(const Buffer<R>& a, const Buffer<R>& b) {
  double sum = 0;
  for (std::size_t at = 0; at < a.data.size(); ++at) {
    sum += static_cast<double>(a.data[at]) * static_cast<double>(b.data[at]);
  }
  return sum;
}

// From rest and without a threshold, the results are linear in the weights, and in the inputs.
void Transposed(const Case& which, test::Pool& pool) {
  Layer<double> layer(which);
  jaxsnn::OnBestIsa([&]<Isa isa>() { layer.Run<isa>(pool); });
  const double loss = Dot(layer.ct_voltage, layer.voltage) + Dot(layer.ct_v, layer.end_v) +
                      Dot(layer.ct_i, layer.end_i);
  CHECK(std::fabs(loss) > 1e-3);
  CHECK_NEAR(Dot(layer.g_weights, layer.weights), loss, 1e-12 * (1 + std::fabs(loss)));
  CHECK_NEAR(Dot(layer.g_inputs, layer.inputs), loss, 1e-12 * (1 + std::fabs(loss)));
}

}  // namespace

int main(int argc, char** argv) {
  test::Configure(argc, argv);
  test::Pool one(1), several(4);
  int shape = 0;
  for (const std::int64_t n : {1, 7, 16, 33, 70}) {
    for (const double density : {0.1, 0.9}) {
      for (const bool recurrent : {false, true}) {
        const bool jump_first = shape % 2 == 0;
        const Case which{n + 4, n, recurrent, density, shape % 3, shape % 5, jump_first, true};
        Compare<float>(which, one, several);
        Compare<double>(which, one, several);
        Transposed({n + 4, n, false, density, 0, shape % 5, jump_first, false}, several);
        ++shape;
      }
    }
  }
  // So many inputs, and neurons, that there is no room for all steps at once.
  for (const bool jump_first : {false, true}) {
    Compare<float>({2000, 7, true, 0.02, 0, 0, jump_first, true}, one, several);
    Compare<double>({3, 2100, false, 0.3, 0, 0, jump_first, true}, one, several);
    Transposed({2000, 7, false, 0.02, 0, 0, jump_first, false}, several);
    Transposed({3, 2100, false, 0.3, 0, 0, jump_first, false}, several);
  }
  return test::Report();
}
