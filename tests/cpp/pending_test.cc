// The order of the spikes of an interval, against std::sort.
#include <algorithm>
#include <random>
#include <vector>

#include "core/pending_spikes.h"
#include "test.h"

namespace {

using Pending = jaxsnn::PendingSpikes<float>;

// Adds spikes to a record with room for `room` and returns what it keeps, in order.
std::vector<Pending::Spike> Keep(const std::vector<Pending::Spike>& spikes, std::int64_t room) {
  jaxsnn::Arena measure(nullptr);
  Pending::Take(measure, room);
  std::vector<double> block(measure.used() / sizeof(double) + 16);
  jaxsnn::Arena arena(block.data());
  Pending pending = Pending::Take(arena, room);
  pending.Clear();
  for (const auto& spike : spikes) pending.Add(spike, room);
  pending.Sort(0, 1);
  std::vector<Pending::Spike> kept(static_cast<std::size_t>(pending.size()));
  pending.ForEach(pending.size(), [&kept](std::int64_t s, const Pending::Spike& spike) {
    kept[static_cast<std::size_t>(s)] = spike;
  });
  return kept;
}

// How times lie in an interval.
enum class Times { kSpread, kTied, kClustered, kEqual };

std::vector<Pending::Spike> Draw(std::mt19937_64& random, int n, Times times) {
  std::uniform_real_distribution<double> u(0, 1);
  std::vector<Pending::Spike> spikes;
  for (int s = 0; s < n; ++s) {
    double time = u(random);
    if (times == Times::kTied) time = std::floor(8 * time) / 8;
    if (times == Times::kClustered && s > 0) time *= 1e-9;
    if (times == Times::kEqual) time = 0.25;
    spikes.push_back({time, static_cast<float>(u(random)), s});
  }
  std::shuffle(spikes.begin(), spikes.end(), random);
  return spikes;
}

void OrderIsThatOfTimeAndNeuron() {
  std::mt19937_64 random(6);
  for (const Times times : {Times::kSpread, Times::kTied, Times::kClustered, Times::kEqual}) {
    for (const int n : {0, 1, 2, 3, 7, 8, 9, 16, 47, 48, 49, 100, 1000}) {
      auto spikes = Draw(random, n, times);
      const auto kept = Keep(spikes, n + 1);
      std::sort(spikes.begin(), spikes.end());
      CHECK(kept.size() == spikes.size());
      for (std::size_t s = 0; s < kept.size(); ++s) {
        CHECK(kept[s].time == spikes[s].time && kept[s].neuron == spikes[s].neuron);
        CHECK(kept[s].current == spikes[s].current);
      }
    }
  }
}

// Of more spikes than there is room for, the earliest are kept, and one more.
void TheEarliestAreKept() {
  std::mt19937_64 random(7);
  for (const Times times : {Times::kSpread, Times::kTied}) {
    for (const int room : {1, 5, 60}) {
      auto spikes = Draw(random, 500, times);
      const auto kept = Keep(spikes, room);
      std::sort(spikes.begin(), spikes.end());
      CHECK(static_cast<int>(kept.size()) > room);
      for (int s = 0; s <= room; ++s) CHECK(kept[s].neuron == spikes[s].neuron);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  test::Configure(argc, argv);
  OrderIsThatOfTimeAndNeuron();
  TheEarliestAreKept();
  return test::Report();
}
