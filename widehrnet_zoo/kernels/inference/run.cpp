#include "run.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>

#include "pool.h"
#include "schedule.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace widehrnet {
namespace {

constexpr size_t kPlans = 8, kSpare = 32;

void pause_a_moment() {
#if defined(__SSE2__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

}  // namespace

// The threads of one call. Images that fill all threads are run one by each thread, from end to end. The rest are run
// by all threads together: whoever is free takes a unit of a phase that waits for nothing any more.
class Team {
 public:
  Team(Network& network, const float* images, Int batch, Int height, Int width, float* heatmaps, int threads)
      : network_(network), program_(network.program()), images_(images), heatmaps_(heatmaps), threads_(threads) {
    image_ = program_.image_channels * height * width;
    maps_ = program_.outputs * (height >> program_.out_level) * (width >> program_.out_level);
    whole_ = batch / threads * threads;
    if (whole_) alone_ = network.plan(height, width, 1);
    if (batch > whole_) {
      shared_ = network.plan(height, width, threads);
      schedule_ = Schedule(*shared_, static_cast<int>(batch - whole_), threads);
      for (Int i = whole_; i < batch; ++i) memories_.push_back(network.take(shared_->memory));
    }
  }

  void run() {
    together(threads_ - 1, [this] {
      try {
        participate();
      } catch (...) {  // no memory: the others see to the rest, and the call says so
        failed_ = true;
      }
    });
    for (Memory& memory : memories_) network_.give(std::move(memory));
    if (failed_ || done_ < whole_ || !schedule_.over()) throw std::bad_alloc();
  }

 private:
  void participate() {
    const int me = arrived_++;
    Int index = next_++;
    if (index < whole_) {
      Memory memory = network_.take(alone_->memory), scratch = network_.take(alone_->scratch);
      for (; index < whole_; index = next_++) {
        for (const Phase& phase : alone_->phases)
          for (int unit = 0; unit < phase.units; ++unit)
            run_unit(program_, *alone_, phase, unit, memory.floats(), scratch.floats(), images_ + index * image_,
                     heatmaps_ + index * maps_);
        ++done_;
      }
      network_.give(std::move(memory));
      network_.give(std::move(scratch));
    }
    if (!shared_) return;
    Memory scratch = network_.take(shared_->scratch);
    Task task;
    while (claim(task, me)) {
      index = whole_ + task.image;
      run_unit(program_, *shared_, shared_->phases[task.phase], task.unit, memories_[task.image].floats(),
               scratch.floats(), images_ + index * image_, heatmaps_ + index * maps_);
    }
    network_.give(std::move(scratch));
  }

  // Hand in the unit that was computed, and take another one; false when all images are done.
  bool claim(Task& task, int me) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (task.image >= 0 && schedule_.finish(task, me)) {
      news_.fetch_add(1, std::memory_order_release);
      if (asleep_) changed_.notify_all();
    }
    while (!schedule_.over() && !schedule_.take(task, me)) wait(lock);
    return !schedule_.over();
  }

  // News come within microseconds as a rule, sooner than a thread can be woken; then it sleeps all the same.
  void wait(std::unique_lock<std::mutex>& lock) {
    const unsigned before = news_.load(std::memory_order_relaxed);
    lock.unlock();
    for (int i = 0; i < 1000 && news_.load(std::memory_order_acquire) == before; ++i) pause_a_moment();
    lock.lock();
    ++asleep_;
    changed_.wait(lock, [&] { return news_.load(std::memory_order_relaxed) != before; });
    --asleep_;
  }

  Network& network_;
  const Program& program_;
  const float* images_;
  float* heatmaps_;
  const int threads_;
  Int image_ = 0, maps_ = 0, whole_ = 0;
  std::shared_ptr<const Plan> alone_, shared_;
  std::vector<Memory> memories_;  // of the images that are shared
  std::atomic<Int> next_{0}, done_{0};
  std::atomic<int> arrived_{0};
  std::atomic<bool> failed_{false};

  std::mutex mutex_;  // of all below
  std::condition_variable changed_;
  Schedule schedule_;
  int asleep_ = 0;
  std::atomic<unsigned> news_{0};
};

void Network::run(const float* images, Int batch, Int height, Int width, float* heatmaps, int threads) {
  Team(*this, images, batch, height, width, heatmaps, threads).run();
}

void Network::profile(const float* image, Int height, Int width, float* heatmaps, double* seconds, double* work) {
  const std::shared_ptr<const Plan> alone = plan(height, width, 1);
  Memory memory = take(alone->memory), scratch = take(alone->scratch);
  for (const Phase& phase : alone->phases) {
    const auto start = std::chrono::steady_clock::now();
    for (int unit = 0; unit < phase.units; ++unit)
      run_unit(program_, *alone, phase, unit, memory.floats(), scratch.floats(), image, heatmaps);
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    seconds[static_cast<int>(phase.part)] += passed.count();
    work[static_cast<int>(phase.part)] += multiply_adds(program_, *alone, phase);
  }
  give(std::move(memory));
  give(std::move(scratch));
}

std::shared_ptr<const Plan> Network::plan(Int height, Int width, int threads) {
  const Key key{height, width, threads};
  {
    Guard guard;
    const auto found = plans_.find(key);
    if (found != plans_.end()) return found->second;
  }
  const auto made = std::make_shared<const Plan>(make_plan(program_, height, width, threads));
  Guard guard;
  if (plans_.size() >= kPlans) plans_.clear();
  return plans_[key] = made;
}

Memory Network::take(size_t floats) {
  const size_t bytes = (floats + kSlack) * sizeof(float);
  {
    Guard guard;
    for (size_t i = 0; i < spare_.size(); ++i)
      if (spare_[i].size() == bytes) {
        Memory found = std::move(spare_[i]);
        spare_.erase(spare_.begin() + static_cast<ptrdiff_t>(i));
        return found;
      }
  }
  return Memory(bytes);
}

void Network::give(Memory memory) {
  Guard guard;
  if (spare_.size() >= kSpare) spare_.erase(spare_.begin());
  spare_.push_back(std::move(memory));
}

}  // namespace widehrnet
