// Networks with delays: the queue of arrivals against a sorted list, the reverse sweep against
// differences of the forward one, and the batch drivers on any number of threads.
#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "core/arrivals.h"
#include "core/models/cuba_lif.h"
#include "core/network_adjoint.h"
#include "core/network_forward.h"
#include "core/projection.h"
#include "cpu/kernels.h"
#include "pool.h"
#include "test.h"

namespace {

using namespace jaxsnn;  // NOLINT: a test of this namespace
using Model = CubaLif;

// The numbers of one projection.
template <class R>
struct Synapses {
  std::int64_t n_sources = 0, n_neurons = 0, rows = 1, cols = 1;
  std::vector<R> weights, delays, sorted;
  std::vector<std::int32_t> order;

  // Sorts anew, so that delays may have changed.
  Projection<R> Get() {
    Projection<R> p;
    p.weights = weights.data();
    p.n_sources = n_sources;
    p.n_neurons = n_neurons;
    p.delays = delays.data();
    p.delay_rows = rows;
    p.delay_cols = cols;
    order.resize(delays.size()), sorted.resize(delays.size());
    for (std::int64_t row = 0; p.per_target() && row < rows; ++row) {
      SortDelays(p, row, order.data() + row * cols, sorted.data() + row * cols);
    }
    p.order = order.data();
    p.sorted = sorted.data();
    return p;
  }
  // Written without the views of the core.
  R Delay(std::int64_t source, std::int64_t target) const {
    return delays[(rows > 1 ? source : 0) * cols + (cols > 1 ? target : 0)];
  }
};

constexpr std::int64_t kCapacity = 300;

// Everything about one example; times on a coarse grid where there should be many ties.
template <class R>
struct Net {
  int n = 0, n_in = 0;
  std::vector<R> tau_mem, tau_syn, v_th, v_leak, v_reset, t_ref, v, i, release, time, past_time;
  std::vector<std::int32_t> index, past_index;
  std::int64_t head = 0;
  Synapses<R> input, recurrent;
  R t0 = 0, t_max = 6;
  std::int64_t room = kCapacity;  // for spikes

  Network<R> Get() {
    Network<R> p;
    p.tau_mem = {tau_mem.data(), true};
    p.tau_syn = {tau_syn.data(), true};
    p.v_th = {v_th.data(), true};
    p.v_leak = {v_leak.data(), true};
    p.v_reset = {v_reset.data(), true};
    p.t_ref = {t_ref.data(), true};
    p.n_inputs = n_in;
    p.n_neurons = n;
    p.v = v.data();
    p.i = i.data();
    p.release = release.data();
    p.time = static_cast<double>(t0);
    p.queue = {time.data(), index.data(), static_cast<std::int64_t>(time.size()), head};
    p.t_max = static_cast<double>(t_max);
    p.input = input.Get();
    p.recurrent = recurrent.Get();
    p.weights = input.weights.data();
    p.past_time = past_time.data();
    p.past_index = past_index.data();
    p.n_past = static_cast<std::int64_t>(past_time.size());
    return p;
  }
};

using Random = std::mt19937_64;

double Uniform(Random& random, double low, double high) {
  return std::uniform_real_distribution<double>(low, high)(random);
}
int Below(Random& random, int end) {
  return std::uniform_int_distribution<int>(0, end - 1)(random);
}

template <class R>
Synapses<R> DrawSynapses(Random& random, int n_sources, int n, bool rows, bool cols, double grid) {
  Synapses<R> s;
  s.n_sources = n_sources;
  s.n_neurons = n;
  s.rows = rows ? n_sources : 1;
  s.cols = cols ? n : 1;
  for (int k = 0; k < n_sources * n; ++k) {
    s.weights.push_back(static_cast<R>(Uniform(random, -0.9, 0.5)));
  }
  for (std::int64_t k = 0; k < s.rows * s.cols; ++k) {
    double delay = Uniform(random, 0.02, 0.7);
    if (grid > 0) delay = grid * std::floor(Uniform(random, 0, 0.7) / grid);
    if (rows && cols && Below(random, 6) == 0) delay = kNever;
    s.delays.push_back(static_cast<R>(delay));
  }
  return s;
}

// `form`: which of the axes the delays have, for inputs and neurons. A grid of 0: no ties.
template <class R>
Net<R> Draw(unsigned seed, int form, double grid) {
  Random random(seed);
  Net<R> l;
  l.n = 5, l.n_in = 3;
  const auto number = [&](double low, double high) {
    return static_cast<R>(Uniform(random, low, high));
  };
  for (int j = 0; j < l.n; ++j) {
    l.tau_syn.push_back(number(0.4, 1.2));
    l.tau_mem.push_back(j == 0 ? l.tau_syn[0] : j == 1 ? 2 * l.tau_syn[1] : number(0.4, 2.0));
    l.v_th.push_back(number(0.8, 1.2));
    l.v_leak.push_back(j == 2 ? R(1.3) : number(0, 0.3));
    l.v_reset.push_back(number(-0.4, 0));
    l.t_ref.push_back(seed % 2 == 1 && j != 3 ? number(0.05, 0.4) : R(0));
    l.v.push_back(number(0, 0.5));
    l.i.push_back(number(0, 1));
    l.release.push_back(seed % 2 == 1 && j % 2 == 0 ? number(0.1, 0.6) : R(-1));
  }
  const auto moment = [&](double low, double high) {
    const double t = Uniform(random, low, high);
    return static_cast<R>(grid > 0 ? low + grid * std::floor((t - low) / grid) : t);
  };
  for (int k = 0; k < 6; ++k) {
    l.past_time.push_back(moment(-1, 0));
    l.past_index.push_back(Below(random, l.n));
  }
  std::sort(l.past_time.begin(), l.past_time.end());
  // some inputs were taken before
  l.head = 4;
  for (int k = 0; k < 24; ++k) {
    l.time.push_back(k < l.head ? moment(-0.5, 0) : moment(0, 5.5));
    l.index.push_back(Below(random, l.n_in));
  }
  std::sort(l.time.begin(), l.time.end());
  l.input = DrawSynapses<R>(random, l.n_in, l.n, form & 1, form & 2, grid);
  for (R& w : l.input.weights) w = w * 2 + R(1.8);
  l.recurrent = DrawSynapses<R>(random, l.n, l.n, form & 4, form & 8, grid);
  return l;
}

// Memory for what lays itself out in an arena, aligned as the drivers align it.
class Block {
 public:
  explicit Block(std::size_t bytes) : data_(bytes + 64) {}
  void* get() {
    const auto at = reinterpret_cast<std::uintptr_t>(data_.data());
    return data_.data() + (64 - at % 64) % 64;
  }

 private:
  std::vector<unsigned char> data_;
};

// What arrives at one neuron.
template <class R>
struct Single {
  R time;
  std::int64_t source, target;

  bool operator==(const Single& o) const {
    return time == o.time && source == o.source && target == o.target;
  }
};

// All arrivals by brute force: sources are past spikes, inputs and own spikes, in this order.
template <class R>
std::vector<Single<R>> AllArrivals(const Net<R>& l, const std::vector<R>& own_time,
                                   const std::vector<std::int32_t>& own_index, double until) {
  std::vector<Single<R>> all;
  const auto add = [&](const Synapses<R>& s, std::int64_t source, R emitted, std::int64_t row,
                       bool before) {
    for (int j = 0; j < l.n; ++j) {
      const R at =
          static_cast<R>(static_cast<double>(emitted) + static_cast<double>(s.Delay(row, j)));
      const double t = static_cast<double>(at);
      if (t > until || !(t < kNever) || (before && t <= static_cast<double>(l.t0))) continue;
      all.push_back({at, source, j});
    }
  };
  std::int64_t source = 0;
  for (std::size_t k = 0; k < l.past_time.size(); ++k, ++source) {
    add(l.recurrent, source, l.past_time[k], l.past_index[k], true);
  }
  for (std::size_t k = 0; k < l.time.size(); ++k, ++source) {
    const bool taken = static_cast<std::int64_t>(k) < l.head;
    if (static_cast<double>(l.time[k]) <= until) add(l.input, source, l.time[k], l.index[k], taken);
  }
  for (std::size_t k = 0; k < own_time.size(); ++k, ++source) {
    add(l.recurrent, source, own_time[k], own_index[k], false);
  }
  std::stable_sort(all.begin(), all.end(), [](const Single<R>& a, const Single<R>& b) {
    return a.time != b.time ? a.time < b.time : a.source < b.source;
  });
  return all;
}

// Takes an arrival apart into its targets, in their order.
template <class R, Direction kDirection>
void TakeApart(ArrivalQueue<R, kDirection>& queue, const Net<R>& l, std::vector<Single<R>>& list) {
  const Arrival<R> arrival = queue.Pop();
  const Projection<R>& p = queue.ProjectionOf(arrival.source);
  CHECK(&p.delays[0] == (queue.IsInput(arrival.source) ? l.input : l.recurrent).delays.data());
  if (!p.per_target()) {
    for (int j = 0; j < l.n; ++j) list.push_back({arrival.time, arrival.source, j});
    return;
  }
  CHECK(arrival.begin < arrival.end);
  const std::int64_t row = p.delay_row(queue.RowOf(arrival.source)) * p.n_neurons;
  std::vector<std::int32_t> targets(p.order + row + arrival.begin, p.order + row + arrival.end);
  CHECK(std::is_sorted(targets.begin(), targets.end()));
  for (const std::int32_t j : targets) list.push_back({arrival.time, arrival.source, j});
}

template <class R>
void QueueMatchesSortedList() {
  long compared = 0, ties = 0, missing = 0;
  for (unsigned seed = 0; seed < 12 * 16; ++seed) {
    const double grid = seed % 3 == 0 ? 0 : seed % 3 == 1 ? 0.125 : 0.1;
    Net<R> l = Draw<R>(seed, static_cast<int>(seed % 16), grid);
    Random random(1000 + seed);
    const double until = seed % 5 == 0 ? 0.0 : seed % 5 == 1 ? 9.0 : 0.25 * Below(random, 20);
    l.t_max = static_cast<R>(until);
    // own spikes at any times, some of which coincide with each other and with arrivals
    std::vector<R> own_time;
    std::vector<std::int32_t> own_index;
    for (int k = 0; k < 30; ++k) {
      double t = Uniform(random, 0, until);
      if (grid > 0) t = grid * std::floor(t / grid);
      own_time.push_back(static_cast<R>(t));
      own_index.push_back(Below(random, l.n));
    }
    std::sort(own_time.begin(), own_time.end());
    const auto n_own = static_cast<std::int64_t>(own_time.size());
    const auto expected = AllArrivals(l, own_time, own_index, until);

    const Network<R> network = l.Get();
    Arena measure(nullptr);
    ArrivalQueue<R, Direction::kForward>(measure, network, n_own);
    Block forward_block(measure.used()), backward_block(measure.used());
    Arena forward_arena(forward_block.get()), backward_arena(backward_block.get());
    ArrivalQueue<R, Direction::kForward> forward(forward_arena, network, n_own);
    ArrivalQueue<R, Direction::kBackward> backward(backward_arena, network, n_own);

    // A spike is emitted behind all arrivals of its time, except for those that later spikes cause.
    std::vector<Single<R>> list;
    forward.Start(own_time.data(), own_index.data(), 0, until);
    for (std::int64_t e = 0; e < n_own; ++e) {
      while (forward.time() <= static_cast<double>(own_time[e])) TakeApart(forward, l, list);
      forward.Emit(e);
    }
    while (!forward.empty()) TakeApart(forward, l, list);
    CHECK(forward.time() == kNever);
    CHECK(list == expected);

    std::vector<Single<R>> reversed;
    backward.Start(own_time.data(), own_index.data(), n_own, until);
    while (!backward.empty()) {
      std::vector<Single<R>> together;
      TakeApart(backward, l, together);
      reversed.insert(reversed.end(), together.rbegin(), together.rend());
    }
    std::reverse(reversed.begin(), reversed.end());
    CHECK(reversed == expected);

    compared += static_cast<long>(expected.size());
    for (std::size_t k = 1; k < expected.size(); ++k)
      ties += expected[k].time == expected[k - 1].time;
    for (const R d : l.recurrent.delays) missing += !(static_cast<double>(d) < kNever);
  }
  CHECK(compared > 20000);
  CHECK(ties > 10000);
  CHECK(missing > 50);
}

template <class R>
struct Run {
  std::vector<R> time, current, v, i, release;
  std::vector<std::int32_t> index;
  R end_time = 0;
  std::int32_t head = 0, count = 0;
  Outcome outcome;

  explicit Run(Net<R>& l, std::vector<std::int64_t> sizes = {},
               std::vector<std::int64_t> capacities = {}) {
    const Network<R> p = l.Get();
    if (sizes.empty()) sizes = {l.n}, capacities = {l.room};
    const Populations populations{sizes.data(), capacities.data(),
                                  static_cast<std::int64_t>(sizes.size())};
    const auto c = static_cast<std::size_t>(populations.capacity());
    const auto n = static_cast<std::size_t>(l.n);
    time.resize(c), current.resize(c), index.resize(c);
    v.resize(n), i.resize(n), release.resize(n);
    Arena measure(nullptr);
    NetworkForward<Model, R>(measure, p, populations);
    Block block(measure.used());
    Arena arena(block.get());
    NetworkForward<Model, R> sweep(arena, p, populations);
    outcome = CheckNetwork(p);
    if (outcome.ok()) outcome = sweep.Run(Log(), End(), {});
  }
  SpikeLog<R> Log() {
    return {static_cast<std::int64_t>(time.size()), time.data(), index.data(), nullptr,
            current.data()};
  }
  EndState<R> End() { return {v.data(), i.data(), release.data(), &end_time, &head, &count}; }
};

// A loss of all spike times and the final state, with fixed random weights.
constexpr int kV = kCapacity, kI = kCapacity + 10, kRelease = kCapacity + 20, kEnd = kCapacity + 30;

double Loss(Net<double>& l, const std::vector<double>& c, std::vector<std::int32_t>* order) {
  Run<double> run(l);
  *order = run.index;
  double loss = c[kEnd] * run.end_time;
  for (int s = 0; s < run.count; ++s) loss += c[s] * run.time[s];
  for (int j = 0; j < l.n; ++j) {
    loss += c[kV + j] * run.v[j] + c[kI + j] * run.i[j];
    if (run.release[j] > -0.5) loss += c[kRelease + j] * run.release[j];
  }
  return loss;
}

struct Reverse {
  std::vector<double> w, delays, recurrent, recurrent_delays, v, i, release, time, past;
  double t0 = 0, t_max = 0;
};

Reverse Gradient(Net<double>& l, const std::vector<double>& c) {
  Run<double> run(l);
  Reverse r;
  r.w.resize(l.input.weights.size()), r.delays.resize(l.input.delays.size());
  r.recurrent.resize(l.recurrent.weights.size());
  r.recurrent_delays.resize(l.recurrent.delays.size());
  for (auto* lane : {&r.v, &r.i, &r.release}) lane->resize(static_cast<std::size_t>(l.n));
  r.time.resize(l.time.size()), r.past.resize(l.past_time.size());
  std::vector<double> ct_release(c.begin() + kRelease, c.begin() + kRelease + l.n);
  for (int j = 0; j < l.n; ++j) {
    if (!(run.release[j] > -0.5)) ct_release[j] = 0;
  }
  const Cotangents<double> ct{c.data(), c.data() + kV, c.data() + kI, ct_release.data(), c[kEnd]};
  const Network<double> p = l.Get();
  Arena measure(nullptr);
  NetworkReverse<Model, double, false>(measure, p, kCapacity);
  Block block(measure.used());
  Arena arena(block.get());
  NetworkReverse<Model, double, false> sweep(arena, p, kCapacity);
  NetworkGradients<double> g{{r.w.data(), r.delays.data()},
                             {r.recurrent.data(), r.recurrent_delays.data()},
                             r.v.data(),
                             r.i.data(),
                             r.release.data(),
                             r.time.data(),
                             r.past.data(),
                             nullptr,
                             0,
                             0,
                             {}};
  sweep.Run(run.Log(), run.End(), run.outcome.status, ct, {}, g);
  r.t0 = g.time;
  r.t_max = g.t_max;
  return r;
}

void ReverseMatchesDifferences() {
  Random random(5);
  std::normal_distribution<double> normal;
  std::vector<double> c(kCapacity + 40);
  for (double& x : c) x = normal(random);
  int compared = 0, skipped = 0;
  for (unsigned seed = 0; seed < 32; ++seed) {
    Net<double> l = Draw<double>(seed, static_cast<int>(seed % 16), 0);
    const Run<double> whole(l);
    CHECK(whole.outcome.ok());
    CHECK(whole.count > 8);
    // Half of the windows end with a spike, so that their final state moves with it.
    if (seed >= 16) l.room = whole.count / 2;
    Run<double> run(l);
    CHECK(run.outcome.ok() == (seed < 16));
    const Reverse r = Gradient(l, c);
    // Two steps of a central difference, which disagree where an arrival passes a spike in between.
    const auto compare = [&](double& x, double gradient) {
      if (!std::isfinite(x)) return CHECK(gradient == 0);
      const double saved = x;
      std::vector<double> slopes;
      std::vector<std::int32_t> up_order, down_order;
      for (const double h : {1e-6, 2e-6}) {
        x = saved + h;
        const double up = Loss(l, c, &up_order);
        x = saved - h;
        const double down = Loss(l, c, &down_order);
        if (up_order == run.index && down_order == run.index)
          slopes.push_back((up - down) / (2 * h));
      }
      x = saved;
      const double scale = 1 + std::fabs(gradient);
      if (slopes.size() < 2 || std::fabs(slopes[1] - slopes[0]) > 1e-6 * scale) {
        ++skipped;
        return;
      }
      ++compared;
      // rounding: 1e-14 of a sum of some tens of times, grown by 1/V' and divided by the step
      CHECK_NEAR(gradient, slopes[0], 1e-6 * scale);
    };
    const auto compare_all = [&](std::vector<double>& x, const std::vector<double>& gradient) {
      for (std::size_t k = 0; k < x.size(); ++k) compare(x[k], gradient[k]);
    };
    compare_all(l.input.weights, r.w);
    compare_all(l.input.delays, r.delays);
    compare_all(l.recurrent.weights, r.recurrent);
    compare_all(l.recurrent.delays, r.recurrent_delays);
    compare_all(l.i, r.i);
    compare_all(l.time, r.time);
    compare_all(l.past_time, r.past);
    for (int j = 0; j < l.n; ++j) {
      const bool clamped = l.release[j] > 0;
      CHECK(!clamped || r.v[j] == 0);
      if (clamped) compare(l.release[j], r.release[j]);
      if (!clamped) compare(l.v[j], r.v[j]);
    }
    compare(l.t0, r.t0);
    compare(l.t_max, r.t_max);
  }
  CHECK(compared > 2000);
  CHECK(skipped * 10 < compared);
}

void WindowsContinue() {
  for (unsigned seed = 0; seed < 16; ++seed) {
    Net<double> l = Draw<double>(seed, static_cast<int>(seed), 0);
    Run<double> whole(l);
    CHECK(whole.outcome.ok());
    int spikes = 0;
    for (int window = 0; window < kCapacity; ++window) {
      Run<double> part(l, {2, 3}, {2, 2});
      for (int s = 0; s < part.count && spikes < whole.count; ++s, ++spikes) {
        CHECK_NEAR(part.time[s], whole.time[spikes], 1e-10);
        CHECK(part.index[s] == whole.index[spikes]);
        l.past_time.push_back(part.time[s]);
        l.past_index.push_back(part.index[s]);
      }
      l.v = part.v, l.i = part.i, l.release = part.release;
      l.t0 = part.end_time, l.head = part.head;
      if (part.outcome.ok()) break;
      CHECK(part.outcome.status == Status::kEventCapacity);
      CHECK(part.count >= 2);
      CHECK(part.end_time == part.time[part.count - 1]);
    }
    CHECK(spikes == whole.count);
    for (int j = 0; j < l.n; ++j) {
      CHECK_NEAR(l.v[j], whole.v[j], 1e-9);
      CHECK_NEAR(l.i[j], whole.i[j], 1e-9);
    }
  }
}

template <class R>
void BurstsEnd() {
  for (const double delay : {0.0, 1e-12, 0.3}) {
    Net<R> l = Draw<R>(0, 0, 0);
    l.recurrent.delays[0] = static_cast<R>(delay);
    for (R& w : l.input.weights) w = R(1e30);
    for (R& w : l.recurrent.weights) w = R(10);
    Run<R> run(l);
    CHECK(run.outcome.status == Status::kEventCapacity);
    CHECK(run.count == kCapacity);
    CHECK(std::is_sorted(run.time.begin(), run.time.end()));
    for (R& w : l.recurrent.weights) w = std::numeric_limits<R>::max();
    CHECK(!Run<R>(l).outcome.ok());
  }
}

template <class T>
Batched<T> All(std::vector<std::remove_const_t<T>>& data, std::int64_t core, std::int64_t n_batch,
               bool shared) {
  return {data.data(), core, BatchLayout({n_batch}, {shared ? 1 : n_batch})};
}

// A batch through the drivers: everything that comes out.
template <class R>
std::vector<double> Drive(std::int64_t n_batch, int n_threads, unsigned shared,
                          bool baseline = false) {
  const auto on_isa = [baseline](const auto& kernel) {
    if (baseline) return kernel.template operator()<Isa::kBaseline>();
    return OnBestIsa(kernel);
  };
  test::Pool pool(n_threads);
  constexpr std::int64_t kRoom = 60;
  std::vector<Net<R>> nets;
  for (std::int64_t b = 0; b < n_batch; ++b) {
    nets.push_back(Draw<R>(static_cast<unsigned>(b), 15, 0));
    nets.back().t_ref = nets[0].t_ref;  // parameters are shared
  }
  Net<R>& first = nets[0];
  const std::int64_t n = first.n, n_in = first.n_in;
  const auto n_queue = static_cast<std::int64_t>(first.time.size());
  const auto n_past = static_cast<std::int64_t>(first.past_time.size());

  std::vector<R> w, d, rec, rd, v, i, release, t0, t_max, time, past;
  std::vector<std::int32_t> index, head, past_index;
  for (std::int64_t b = 0; b < n_batch; ++b) {
    Net<R>& l = nets[static_cast<std::size_t>(b)];
    const auto append = [b](auto& all, const auto& own, bool only_first) {
      if (b == 0 || !only_first) all.insert(all.end(), own.begin(), own.end());
    };
    append(w, l.input.weights, shared & 1), append(d, l.input.delays, shared & 2);
    append(rec, l.recurrent.weights, shared & 4), append(rd, l.recurrent.delays, shared & 8);
    append(v, l.v, false), append(i, l.i, false), append(release, l.release, false);
    append(time, l.time, false), append(index, l.index, false);
    append(past, l.past_time, false), append(past_index, l.past_index, false);
    t0.push_back(l.t0), t_max.push_back(R(4)), head.push_back(static_cast<std::int32_t>(l.head));
  }

  BatchNetwork<R> network;
  network.n_batch = n_batch, network.n_inputs = n_in, network.n_neurons = n;
  const auto parameter = [&](std::vector<R>& x) { return All<const R>(x, n, n_batch, true); };
  network.params = {parameter(first.tau_mem), parameter(first.tau_syn), parameter(first.v_th),
                    parameter(first.v_leak),  parameter(first.v_reset), parameter(first.t_ref)};
  network.weights = All<const R>(w, n_in * n, n_batch, shared & 1);
  network.delays = All<const R>(d, n_in * n, n_batch, shared & 2);
  network.recurrent = All<const R>(rec, n * n, n_batch, shared & 4);
  network.recurrent_delays = All<const R>(rd, n * n, n_batch, shared & 8);
  network.v = All<const R>(v, n, n_batch, false);
  network.i = All<const R>(i, n, n_batch, false);
  network.release = All<const R>(release, n, n_batch, false);
  network.time = All<const R>(t0, 1, n_batch, false);
  network.t_max = All<const R>(t_max, 1, n_batch, false);
  network.input_time = All<const R>(time, n_queue, n_batch, false);
  network.input_index = All<const std::int32_t>(index, n_queue, n_batch, false);
  network.input_head = All<const std::int32_t>(head, 1, n_batch, false);
  network.past_time = All<const R>(past, n_past, n_batch, false);
  network.past_index = All<const std::int32_t>(past_index, n_past, n_batch, false);
  network.n_sources = n;
  network.delay_rows = n_in, network.delay_cols = n;
  network.recurrent_delay_rows = n, network.recurrent_delay_cols = n;
  network.population_sizes = {n}, network.population_capacities = {kRoom};

  const auto size = [n_batch](std::int64_t core) {
    return static_cast<std::size_t>(n_batch * core);
  };
  std::vector<R> spike_time(size(kRoom)), current(size(kRoom)), end_v(size(n)), end_i(size(n)),
      end_release(size(n)), end_time(size(1)), detail(size(3));
  std::vector<std::int32_t> spike_index(size(kRoom)), end_head(size(1)), count(size(1)),
      status(size(1));
  LoopResults<R> results;
  results.max_events = kRoom;
  results.spike_time = All<R>(spike_time, kRoom, n_batch, false);
  results.spike_index = All<std::int32_t>(spike_index, kRoom, n_batch, false);
  results.spike_current = All<R>(current, kRoom, n_batch, false);
  results.state = {All<R>(end_v, n, n_batch, false), All<R>(end_i, n, n_batch, false),
                   All<R>(end_release, n, n_batch, false), All<R>(end_time, 1, n_batch, false),
                   All<std::int32_t>(end_head, 1, n_batch, false)};
  results.count = All<std::int32_t>(count, 1, n_batch, false);
  results.outcome = {All<std::int32_t>(status, 1, n_batch, false),
                     All<R>(detail, 3, n_batch, false)};
  on_isa([&]<Isa isa>() { NetworkLoopForward<isa, R>(network, results, pool); });
  for (const std::int32_t c : count) CHECK(c > 4);

  Random random(7);
  const auto noise = [&](std::int64_t core) {
    std::vector<R> x(size(core));
    for (R& one : x) one = static_cast<R>(Uniform(random, -1, 1));
    return x;
  };
  std::vector<R> ct_time = noise(kRoom), ct_v = noise(n), ct_i = noise(n), ct_release = noise(n),
                 ct_end = noise(1);
  BatchCotangents<R> cotangents;
  cotangents.event_time = All<const R>(ct_time, kRoom, n_batch, false);
  cotangents.v = All<const R>(ct_v, n, n_batch, false);
  cotangents.i = All<const R>(ct_i, n, n_batch, false);
  cotangents.release = All<const R>(ct_release, n, n_batch, false);
  cotangents.time = All<const R>(ct_end, 1, n_batch, false);
  std::vector<R> g_w(w.size()), g_d(d.size()), g_rec(rec.size()), g_rd(rd.size()), g_v(size(n)),
      g_i(size(n)), g_release(size(n)), g_t0(size(1)), g_time(size(n_queue)), g_past(size(n_past)),
      g_t_max(size(1));
  std::vector<R> g_tau_mem(size(1)), g_tau_syn(size(1)), g_v_th(size(n)), g_v_leak(size(n)),
      g_v_reset(size(n)), g_t_ref(size(n));
  BatchNetworkGradients<R> gradients;
  gradients.weights = All<R>(g_w, n_in * n, n_batch, shared & 1);
  gradients.recurrent = All<R>(g_rec, n * n, n_batch, shared & 4);
  gradients.delays = All<R>(g_d, n_in * n, n_batch, shared & 2);
  gradients.recurrent_delays = All<R>(g_rd, n * n, n_batch, shared & 8);
  gradients.v = All<R>(g_v, n, n_batch, false);
  gradients.i = All<R>(g_i, n, n_batch, false);
  gradients.release = All<R>(g_release, n, n_batch, false);
  gradients.time = All<R>(g_t0, 1, n_batch, false);
  gradients.input_time = All<R>(g_time, n_queue, n_batch, false);
  gradients.past_time = All<R>(g_past, n_past, n_batch, false);
  gradients.t_max = All<R>(g_t_max, 1, n_batch, false);
  gradients.params = {All<R>(g_tau_mem, 1, n_batch, false),
                      All<R>(g_tau_syn, 1, n_batch, false),
                      All<R>(g_v_th, n, n_batch, false),
                      All<R>(g_v_leak, n, n_batch, false),
                      All<R>(g_v_reset, n, n_batch, false),
                      All<R>(g_t_ref, n, n_batch, false),
                      true};
  on_isa([&]<Isa isa>() {
    NetworkLoopBackward<isa, R>(network, results, cotangents, gradients, pool);
  });

  std::vector<double> all;
  const auto keep = [&all](const auto&... lists) {
    const auto one = [&all](const auto& list) { all.insert(all.end(), list.begin(), list.end()); };
    (one(lists), ...);
  };
  keep(spike_time, spike_index, current, end_v, end_i, end_release, end_time, end_head, count,
       status, detail);
  keep(g_w, g_d, g_rec, g_rd, g_v, g_i, g_release, g_t0, g_time, g_past, g_t_max);
  keep(g_tau_mem, g_tau_syn, g_v_th, g_v_leak, g_v_reset, g_t_ref);
  R most = 0;
  for (const auto* g : {&g_w, &g_d, &g_rec, &g_rd, &g_time, &g_past}) {
    for (const R x : *g) most = std::max(most, std::fabs(x));
  }
  CHECK(most > R(0.1));
  return all;
}

template <class R>
void ThreadsGiveTheSameBits() {
  const auto same_bits = [](const std::vector<double>& a, const std::vector<double>& b) {
    return std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0;
  };
  for (const bool baseline : {false, true}) {
    for (const unsigned shared : {0u, 15u, 5u, 10u}) {
      for (const std::int64_t n_batch : {1, 21}) {
        const auto alone = Drive<R>(n_batch, 1, shared, baseline);
        for (const int n_threads : {2, 5}) {
          CHECK(same_bits(Drive<R>(n_batch, n_threads, shared, baseline), alone));
        }
        if (!baseline) continue;
        const auto best = Drive<R>(n_batch, 1, shared);
        CHECK(best.size() == alone.size());
        CHECK(test::ShareOfClose<R>(best, alone) >= (sizeof(R) == 8 ? 1.0 : 0.98));
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  test::Configure(argc, argv);
  QueueMatchesSortedList<float>();
  QueueMatchesSortedList<double>();
  ReverseMatchesDifferences();
  WindowsContinue();
  BurstsEnd<float>();
  BurstsEnd<double>();
  ThreadsGiveTheSameBits<float>();
  ThreadsGiveTheSameBits<double>();
  return test::Report();
}
