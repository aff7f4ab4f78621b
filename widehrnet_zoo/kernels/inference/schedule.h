// Which thread computes what next, of a few images that all threads run together. What calls it sees to its lock.
#pragma once
#include <stdint.h>

#include <vector>

#include "plan.h"

namespace widehrnet {

struct Task {
  int image = -1, phase = -1, unit = 0;
};

class Schedule {
 public:
  Schedule() = default;
  // The plan must outlive it.
  Schedule(const Plan& plan, int images, int threads) : plan_(&plan), threads_(threads) {
    left_ = static_cast<int>(plan.phases.size()) * images;
    // so that nothing has to be allocated, and can fail, while others wait
    ready_.reserve(left_);
    for (int i = 0; i < images; ++i) {
      State state;
      state.done.resize(plan.phases.size());
      for (const Phase& phase : plan.phases) state.waits.push_back(phase.waits);
      images_.push_back(std::move(state));
      for (size_t p = 0; p < plan.phases.size(); ++p)
        if (plan.phases[p].waits == 0) offer(i, static_cast<int>(p), -1);
    }
  }

  // All has been computed
  bool over() const { return left_ == 0; }

  // A unit for a thread that has just computed `task`; false if nothing is ready at the moment.
  bool take(Task& task, int me) {
    if (ready_.empty()) return false;
    // what this thread has just worked on is in its cache; otherwise what most others wait for
    size_t best = ready_.size();
    double most = -1;
    for (size_t i = 0; i < ready_.size(); ++i) {
      const Ready& r = ready_[i];
      if (r.image == task.image && r.phase == task.phase) {
        best = i;
        break;
      }
      const double worth = plan_->phases[r.phase].rest * (r.owner == me ? 2.0 : 1.0);
      if (worth > most) {
        most = worth;
        best = i;
      }
    }
    Ready& r = ready_[best];
    const int units = plan_->phases[r.phase].units;
    int unit = units * (me % threads_) / threads_;
    while (r.taken >> unit & 1) unit = (unit + 1) % units;
    r.taken |= uint64_t{1} << unit;
    task.image = r.image;
    task.phase = r.phase;
    task.unit = unit;
    if (--r.left == 0) {
      ready_[best] = ready_.back();
      ready_.pop_back();
    }
    return true;
  }

  // A unit has been computed; whether there is news for threads that found nothing ready.
  bool finish(const Task& task, int me) {
    State& image = images_[task.image];
    const Phase& phase = plan_->phases[task.phase];
    if (++image.done[task.phase] < phase.units) return false;
    bool news = --left_ == 0;
    for (int next : phase.next)
      if (--image.waits[next] == 0) {
        offer(task.image, next, me);
        news = true;
      }
    return news;
  }

 private:
  struct State {
    std::vector<int> waits, done;
  };
  struct Ready {
    int image, phase, owner;
    uint64_t taken;
    int left;
  };

  void offer(int image, int phase, int owner) {
    ready_.push_back({image, phase, owner, 0, plan_->phases[phase].units});
  }

  const Plan* plan_ = nullptr;
  int threads_ = 1, left_ = 0;
  std::vector<State> images_;
  std::vector<Ready> ready_;
};

}  // namespace widehrnet
