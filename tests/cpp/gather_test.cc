// Lists of spikes, merged and taken apart, against a stable sort of all of them; and first ones.
#include "cpu/gather_spikes.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "pool.h"
#include "test.h"

namespace {

using jaxsnn::Batched;
using jaxsnn::BatchLayout;

constexpr double kInf = std::numeric_limits<double>::infinity();

struct Lists {
  std::int64_t n_batch, length;
  std::vector<std::int64_t> parts;
  std::vector<double> time;
  std::vector<std::int32_t> index;
};

// Few distinct times, so that many spikes coincide; lists of every length, some out of order.
Lists Draw(std::mt19937& rng, bool sorted) {
  Lists lists{static_cast<std::int64_t>(1 + rng() % 40), 0, {}, {}, {}};
  for (std::size_t k = 0; k < 1 + rng() % 4; ++k) {
    lists.parts.push_back(static_cast<std::int64_t>(rng() % 12));
    lists.length += lists.parts.back();
  }
  for (std::int64_t b = 0; b < lists.n_batch; ++b) {
    for (const std::int64_t size : lists.parts) {
      std::vector<double> own(rng() % static_cast<std::uint32_t>(size + 1));
      for (double& t : own) t = static_cast<double>(rng() % 8);
      if (sorted) std::sort(own.begin(), own.end());
      for (std::int64_t k = 0; k < size; ++k) {
        const bool there = k < static_cast<std::int64_t>(own.size());
        lists.time.push_back(there ? own[static_cast<std::size_t>(k)] : kInf);
        lists.index.push_back(there ? static_cast<std::int32_t>(rng() % 9) : -1);
      }
    }
  }
  return lists;
}

template <class T>
Batched<T> Own(T* data, const Lists& lists, std::int64_t size) {
  return {data, size, BatchLayout({lists.n_batch}, {lists.n_batch})};
}

void AgainstAStableSort(jaxsnn::Gather rule) {
  std::mt19937 rng(static_cast<std::uint32_t>(rule));
  test::Pool pool(3);
  for (int repeat = 0; repeat < 300; ++repeat) {
    const Lists lists = Draw(rng, repeat % 2 == 0);
    jaxsnn::GatherProblem<double> problem;
    problem.n_batch = lists.n_batch;
    problem.time = Own(lists.time.data(), lists, lists.length);
    problem.index = Own(lists.index.data(), lists, lists.length);
    problem.parts = lists.parts;
    problem.begin = rng() % 3;
    problem.end = problem.begin + rng() % 9;
    problem.rule = rule;
    jaxsnn::GatherResults<double> results;
    results.size = static_cast<std::int64_t>(rng() % 30);
    const auto size = static_cast<std::size_t>(results.size * lists.n_batch);
    std::vector<double> time(size);
    std::vector<std::int32_t> index(size), position(size);
    std::vector<std::int32_t> count(static_cast<std::size_t>(lists.n_batch));
    results.time = Own(time.data(), lists, results.size);
    results.index = Own(index.data(), lists, results.size);
    results.position = Own(position.data(), lists, results.size);
    results.count = Own(count.data(), lists, 1);
    jaxsnn::GatherSpikes(problem, results, pool);

    std::vector<double> gradient(lists.time.size()), expected_gradient(lists.time.size());
    std::vector<double> cotangent(size);
    for (double& c : cotangent) c = static_cast<double>(rng() % 1000);
    for (std::int64_t b = 0; b < lists.n_batch; ++b) {
      const double* const from = problem.time[b];
      std::vector<std::int32_t> expected;
      for (std::int32_t k = 0; k < lists.length; ++k) {
        const std::int32_t channel = problem.index[b][k];
        if (channel >= problem.begin && channel < problem.end) expected.push_back(k);
      }
      if (rule == jaxsnn::Gather::kFirstOfEach) {
        std::vector<std::int32_t> first(static_cast<std::size_t>(results.size), -1);
        for (const std::int32_t at : expected) {
          const std::int64_t k = problem.index[b][at] - problem.begin;
          if (k < results.size && first[static_cast<std::size_t>(k)] < 0) {
            first[static_cast<std::size_t>(k)] = at;
          }
        }
        expected = first;
      }
      if (rule == jaxsnn::Gather::kInTimeOrder) {
        std::stable_sort(expected.begin(), expected.end(),
                         [from](std::int32_t i, std::int32_t j) { return from[i] < from[j]; });
      }
      CHECK(*results.count[b] == std::count_if(expected.begin(), expected.end(),
                                               [](std::int32_t at) { return at >= 0; }));
      for (std::int64_t k = 0; k < results.size; ++k) {
        const bool within = k < static_cast<std::int64_t>(expected.size());
        const std::int32_t at = within ? expected[static_cast<std::size_t>(k)] : -1;
        const bool there = at >= 0;
        CHECK(results.position[b][k] == at);
        CHECK(results.time[b][k] == (there ? from[at] : kInf));
        CHECK(results.index[b][k] ==
              (there ? problem.index[b][at] - static_cast<std::int32_t>(problem.begin) : -1));
        if (there) {
          expected_gradient[static_cast<std::size_t>(b * lists.length + at)] =
              cotangent[static_cast<std::size_t>(b * results.size + k)];
        }
      }
    }
    jaxsnn::GatherSpikesBackward(
        results, Own(static_cast<const double*>(cotangent.data()), lists, results.size),
        lists.n_batch, Own(gradient.data(), lists, lists.length), pool);
    CHECK(gradient == expected_gradient);
  }
}

}  // namespace

int main(int argc, char** argv) {
  test::Configure(argc, argv);
  AgainstAStableSort(jaxsnn::Gather::kInTimeOrder);
  AgainstAStableSort(jaxsnn::Gather::kAsTheyStand);
  AgainstAStableSort(jaxsnn::Gather::kFirstOfEach);
  return test::Report();
}
