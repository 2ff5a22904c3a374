// The sweeps over one example: forward against a brute-force simulation, reverse against central
// differences of it, and windows against one long run.
#include <algorithm>
#include <random>
#include <vector>

#include "core/adjoint.h"
#include "core/forward.h"
#include "core/models/cuba_lif.h"
#include "test.h"

namespace {

using namespace jaxsnn;  // NOLINT: a test of this namespace
using Model = CubaLif;

struct Spike {
  double time;
  int neuron;
};

// One layer with everything unequal, as plain vectors that differences can be taken of.
struct Layer {
  int n = 0, n_in = 0;
  bool uniform = false;  // time constants are those of neuron 0
  std::vector<double> tau_mem, tau_syn, v_th, v_leak, v_reset, t_ref, w, v, i, release, time;
  std::vector<std::int32_t> index;
  double t0 = 0, t_max = 8;

  Problem<double> Get() const {
    Problem<double> p;
    p.tau_mem = {tau_mem.data(), !uniform};
    p.tau_syn = {tau_syn.data(), !uniform};
    p.v_th = {v_th.data(), true};
    p.v_leak = {v_leak.data(), true};
    p.v_reset = {v_reset.data(), true};
    p.t_ref = {t_ref.data(), true};
    p.weights = w.data();
    p.n_inputs = n_in;
    p.n_neurons = n;
    p.v = v.data();
    p.i = i.data();
    p.release = release.data();
    p.time = t0;
    p.queue = {time.data(), index.data(), static_cast<std::int64_t>(time.size()), 0};
    p.t_max = t_max;
    return p;
  }
};

Layer Draw(unsigned seed, bool refractory) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> u(0, 1);
  Layer l;
  l.n = 6, l.n_in = 4;
  for (int j = 0; j < l.n; ++j) {
    l.tau_syn.push_back(0.4 + u(random));
    l.tau_mem.push_back(j == 0 ? l.tau_syn[0] : j == 1 ? 2 * l.tau_syn[1] : 0.4 + 2 * u(random));
    l.v_th.push_back(0.8 + 0.4 * u(random));
    l.v_leak.push_back(j == 2 ? 1.3 : 0.3 * u(random));
    l.v_reset.push_back(-0.4 * u(random));
    l.t_ref.push_back(refractory && j != 3 ? 0.5 * u(random) : 0.0);
    l.v.push_back(0.5 * u(random));
    l.i.push_back(u(random));
    l.release.push_back(refractory && j % 2 == 0 ? 0.7 * u(random) : -1.0);
  }
  for (int k = 0; k < l.n_in * l.n; ++k) l.w.push_back(3 * u(random) - 0.7);
  for (int k = 0; k < 25; ++k) {
    l.time.push_back(7 * u(random));
    l.index.push_back(static_cast<std::int32_t>(l.n_in * u(random)));
  }
  std::sort(l.time.begin(), l.time.end());
  return l;
}

// A layer of several blocks, with arrivals so close together that blocks pay.
Layer DrawWide(unsigned seed, bool uniform) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> u(0, 1);
  Layer l;
  l.n = 117, l.n_in = 30, l.uniform = uniform;
  for (int j = 0; j < l.n; ++j) {
    l.tau_syn.push_back(uniform ? 0.7 : 0.4 + u(random));
    l.tau_mem.push_back(uniform ? 1.1 : 0.4 + 2 * u(random));
    l.v_th.push_back(0.8 + 0.4 * u(random));
    l.v_leak.push_back(0.3 * u(random));
    l.v_reset.push_back(-0.4 * u(random));
    l.t_ref.push_back(0);
    l.v.push_back(j == 80 ? 1.3 : 0.5 * u(random));
    l.i.push_back(u(random));
    l.release.push_back(-1);
  }
  for (int k = 0; k < l.n_in * l.n; ++k) l.w.push_back(0.2 * u(random) - 0.08);
  for (int k = 0; k < 700; ++k) {
    l.time.push_back(7 * u(random));
    l.index.push_back(static_cast<std::int32_t>(l.n_in * u(random)));
  }
  std::sort(l.time.begin(), l.time.end());
  for (int k = 100; k < 104; ++k) l.time[k] = l.time[100];  // at one time
  for (std::size_t k = 300; k < l.time.size(); ++k)
    l.time[k] = std::max(l.time[k], l.time[299] + 0.3);
  std::sort(l.time.begin(), l.time.end());
  return l;
}

struct Run {
  std::vector<double> time, current, v, i, release;
  std::vector<std::int32_t> index, position;
  double end = 0;
  std::int32_t head = 0, count = 0;
  Outcome outcome;

  Run(const Layer& l, std::int64_t capacity) { Do(l.Get(), capacity); }
  Run(const Problem<double>& p, std::int64_t capacity) { Do(p, capacity); }
  SpikeLog<double> log() {
    return {static_cast<std::int64_t>(time.size()), time.data(), index.data(), position.data(),
            current.data()};
  }
  EndState<double> state() { return {v.data(), i.data(), release.data(), &end, &head, &count}; }

 private:
  void Do(const Problem<double>& p, std::int64_t capacity) {
    const auto c = static_cast<std::size_t>(capacity), n = static_cast<std::size_t>(p.n_neurons);
    time.resize(c), current.resize(c), index.resize(c), position.resize(c);
    v.resize(n), i.resize(n), release.resize(n);
    Arena measure(nullptr);
    ForwardSweep<Model, double>(measure, p, capacity);
    std::vector<double> block(measure.used() / sizeof(double) + 16);
    Arena arena(block.data());
    ForwardSweep<Model, double> sweep(arena, p, capacity);
    outcome = CheckProblem(p);
    if (outcome.ok()) outcome = sweep.Run(log(), state());
  }
};

// Small steps of the exact flow, each neuron alone; a step that ends above threshold is bisected.
std::vector<Spike> BruteForce(const Layer& l) {
  std::vector<Spike> spikes;
  for (int j = 0; j < l.n; ++j) {
    const int of = l.uniform ? 0 : j;
    const auto c = Model::Prepare(l.tau_mem[of], l.tau_syn[of]);
    const double threshold = l.v_th[j] - l.v_leak[j], reset = l.v_reset[j] - l.v_leak[j];
    Model::Pair<double> x{l.v[j] - l.v_leak[j], l.i[j]};
    double t = l.t0, release = l.release[j];
    for (std::size_t k = 0; k <= l.time.size(); ++k) {
      const double until = k < l.time.size() ? std::min(l.time[k], l.t_max) : l.t_max;
      while (t < until || x.v >= threshold) {
        if (x.v >= threshold) {  // begins above
          spikes.push_back({t, j});
          x.v = reset;
          release = t + l.t_ref[j];
          continue;
        }
        double step = std::min(1e-3, until - t);
        if (release > t) {
          step = std::min(step, release - t);
          x = {reset, x.i * std::exp(-step / l.tau_syn[of])};
          t = step == release - t ? release : t + step;
          continue;
        }
        auto next = Model::Flow(Model::Propagate(c, step), x);
        if (next.v < threshold) {
          x = next;
          t = step == until - t ? until : t + step;
          continue;
        }
        double low = 0, high = step;
        for (int b = 0; b < 60; ++b) {
          const double middle = 0.5 * (low + high);
          (Model::Flow(Model::Propagate(c, middle), x).v < threshold ? low : high) = middle;
        }
        t += high;
        spikes.push_back({t, j});
        x = {reset, Model::Flow(Model::Propagate(c, high), x).i};
        release = t + l.t_ref[j];
      }
      if (k < l.time.size() && l.time[k] <= l.t_max) x.i += l.w[l.index[k] * l.n + j];
    }
  }
  std::sort(spikes.begin(), spikes.end(),
            [](const Spike& a, const Spike& b) { return a.time < b.time; });
  return spikes;
}

void ForwardMatchesBruteForce() {
  for (unsigned seed = 0; seed < 20; ++seed) {
    const Layer l = Draw(seed, seed % 2 == 1);
    Run run(l, 400);
    const auto spikes = BruteForce(l);
    CHECK(run.outcome.ok());
    CHECK(run.count > 5);
    CHECK(static_cast<std::size_t>(run.count) == spikes.size());
    for (std::size_t s = 0; s < spikes.size() && s < run.time.size(); ++s) {
      CHECK_NEAR(run.time[s], spikes[s].time, 1e-11);
      CHECK(run.index[s] == spikes[s].neuron);
    }
  }
}

constexpr int kRoom = 1500;

std::vector<double> Coefficients(const Layer& l) {
  std::mt19937_64 random(5);
  std::normal_distribution<double> normal;
  std::vector<double> c(static_cast<std::size_t>(kRoom + 3 * l.n));
  for (double& x : c) x = normal(random);
  return c;
}

// A loss of all spike times and the final state, with fixed random weights.
double Loss(const Layer& l, const std::vector<double>& c, std::vector<std::int32_t>* order) {
  Run run(l, kRoom);
  *order = run.index;
  double loss = 0;
  for (int s = 0; s < run.count; ++s) loss += c[s] * run.time[s];
  for (int j = 0; j < l.n; ++j) {
    loss += c[kRoom + j] * run.v[j] + c[kRoom + l.n + j] * run.i[j];
    if (run.release[j] > -0.5) loss += c[kRoom + 2 * l.n + j] * run.release[j];
  }
  return loss;
}

struct Reverse {
  std::vector<double> w, v, i, release, time;
  double t0 = 0, t_max = 0;
};

Reverse Gradient(const Layer& l, const std::vector<double>& c, int block, bool of_times = true) {
  Run run(l, kRoom);
  Reverse r;
  const auto n = static_cast<std::size_t>(l.n);
  r.w.resize(l.w.size()), r.v.resize(n), r.i.resize(n), r.release.resize(n);
  r.time.resize(l.time.size());
  const double* const of_state = c.data() + kRoom;
  std::vector<double> ct_release(of_state + 2 * l.n, of_state + 3 * l.n);
  for (int j = 0; j < l.n; ++j) {
    if (!(run.release[j] > -0.5)) ct_release[j] = 0;
  }
  const Cotangents<double> ct{c.data(), of_state, of_state + l.n, ct_release.data(), 0};
  const Problem<double> p = l.Get();
  for (int first = 0; first < l.n; first += block) {
    const int last = std::min(first + block, l.n);
    Arena measure(nullptr);
    ReverseSweep<Model, double>(measure, p, kRoom, last - first);
    std::vector<double> memory(measure.used() / sizeof(double) + 16);
    Arena arena(memory.data());
    ReverseSweep<Model, double> sweep(arena, p, kRoom, last - first);
    std::vector<double> times(l.time.size());
    Gradients<double> g{
        r.w.data(), r.v.data(), r.i.data(), r.release.data(), of_times ? times.data() : nullptr,
        0,          0};
    sweep.Run(first, last, run.log(), run.state(), run.outcome.status, ct, g);
    for (std::size_t k = 0; k < times.size(); ++k) r.time[k] += times[k];
    r.t0 += g.time;
    r.t_max = g.t_max;
  }
  return r;
}

void ReverseMatchesDifferences() {
  int compared = 0;
  for (unsigned seed = 0; seed < 12; ++seed) {
    Layer l = Draw(seed, seed % 2 == 1);
    const std::vector<double> c = Coefficients(l);
    const Reverse whole = Gradient(l, c, l.n), blocks = Gradient(l, c, 4);
    for (std::size_t k = 0; k < whole.w.size(); ++k) CHECK(whole.w[k] == blocks.w[k]);
    CHECK_NEAR(whole.t0, blocks.t0, 1e-12 * (1 + std::fabs(whole.t0)));
    CHECK(whole.t_max == blocks.t_max);
    const auto compare = [&](double& x, double gradient) {
      const double saved = x, h = 1e-6;
      std::vector<std::int32_t> up_order, down_order;
      x = saved + h;
      const double up = Loss(l, c, &up_order);
      x = saved - h;
      const double down = Loss(l, c, &down_order);
      x = saved;
      if (up_order != down_order) return;
      ++compared;
      CHECK_NEAR(gradient, (up - down) / (2 * h), 2e-7 * (1 + std::fabs(gradient)));
    };
    for (std::size_t k = 0; k < l.w.size(); k += 3) compare(l.w[k], whole.w[k]);
    for (int j = 0; j < l.n; ++j) {
      if (l.release[j] <= 0) compare(l.v[j], whole.v[j]);
      compare(l.i[j], whole.i[j]);
      if (l.release[j] > 0) compare(l.release[j], whole.release[j]);
    }
    for (std::size_t k = 0; k < l.time.size(); k += 4) compare(l.time[k], whole.time[k]);
    compare(l.t0, whole.t0);
    compare(l.t_max, whole.t_max);
  }
  CHECK(compared > 300);
}

// Arrivals at which nothing happens are passed over in registers, block by block.
void ManyArrivals() {
  for (const bool uniform : {false, true}) {
    for (unsigned seed = 0; seed < 3; ++seed) {
      const Layer l = DrawWide(seed, uniform);
      Run run(l, kRoom);
      const auto spikes = BruteForce(l);
      CHECK(run.outcome.ok());
      CHECK(run.count > 200);
      CHECK(static_cast<std::size_t>(run.count) == spikes.size());
      for (std::size_t s = 0; s < spikes.size() && s < run.time.size(); ++s) {
        CHECK_NEAR(run.time[s], spikes[s].time, 1e-11);
        CHECK(run.index[s] == spikes[s].neuron);
        const std::int64_t before =
            std::upper_bound(l.time.begin(), l.time.end(), run.time[s]) - l.time.begin();
        CHECK(run.position[s] == before);
      }
      // Cut short, it ends at its last spike.
      Run part(l, 150);
      CHECK(part.outcome.status == Status::kEventCapacity);
      CHECK(part.count == 150 && part.end == part.time[149]);
      for (int s = 0; s < 150; ++s) CHECK_NEAR(part.time[s], run.time[s], 1e-12);
      // With gradients of the times of arrivals each of them is gone back to on its own.
      const std::vector<double> c = Coefficients(l);
      const Reverse one_by_one = Gradient(l, c, l.n), quiet = Gradient(l, c, l.n, false);
      const Reverse blocks = Gradient(l, c, 50, false);
      for (std::size_t k = 0; k < l.w.size(); ++k) {
        const double scale = 1e-11 * (1 + std::fabs(one_by_one.w[k]));
        CHECK_NEAR(quiet.w[k], one_by_one.w[k], scale);
        CHECK_NEAR(blocks.w[k], one_by_one.w[k], scale);
      }
      for (int j = 0; j < l.n; ++j) {
        CHECK_NEAR(quiet.v[j], one_by_one.v[j], 1e-11 * (1 + std::fabs(one_by_one.v[j])));
        CHECK_NEAR(quiet.i[j], one_by_one.i[j], 1e-11 * (1 + std::fabs(one_by_one.i[j])));
      }
    }
  }
}

void WindowsContinue() {
  const Layer l = Draw(3, true);
  Run whole(l, 400);
  Problem<double> p = l.Get();
  int spikes = 0;
  std::vector<double> v, i, release;
  for (int window = 0; window < 400; ++window) {
    Run part(p, 3);
    for (int s = 0; s < part.count; ++s, ++spikes) {
      CHECK_NEAR(part.time[s], whole.time[spikes], 1e-12);
      CHECK(part.index[s] == whole.index[spikes]);
    }
    v = part.v, i = part.i, release = part.release;
    p.v = v.data(), p.i = i.data(), p.release = release.data();
    p.time = part.end;
    p.queue.head = part.head;
    if (part.outcome.ok()) break;
    CHECK(part.outcome.status == Status::kEventCapacity);
  }
  CHECK(spikes == whole.count);
  for (int j = 0; j < l.n; ++j) CHECK_NEAR(v[j], whole.v[j], 1e-11);
}

void BurstsEnd() {
  Layer l = Draw(0, false);
  for (double& w : l.w) w = 1e30;
  CHECK(Run(l, 50).outcome.status == Status::kEventCapacity);
  for (double& w : l.w) w = 1e300;
  CHECK(!Run(l, 50).outcome.ok());
}

}  // namespace

int main(int argc, char** argv) {
  test::Configure(argc, argv);
  ForwardMatchesBruteForce();
  ReverseMatchesDifferences();
  ManyArrivals();
  WindowsContinue();
  BurstsEnd();
  return test::Report();
}
