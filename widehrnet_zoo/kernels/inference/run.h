// A network that is ready to run.
#pragma once
#include <map>
#include <memory>
#include <tuple>

#include "plan.h"

namespace widehrnet {

class Network {
 public:
  explicit Network(Program program) : program_(std::move(program)) {}
  const Program& program() const { return program_; }

  // images (batch, C, height, width) to heatmaps (batch, outputs, height / 4, width / 4)
  void run(const float* images, Int batch, Int height, Int width, float* heatmaps, int threads);

  // One image on one thread: adds the seconds and the multiply-adds of each kind of part to those that are there
  void profile(const float* image, Int height, Int width, float* heatmaps, double* seconds, double* work);

 private:
  friend class Team;
  using Key = std::tuple<Int, Int, int>;
  std::shared_ptr<const Plan> plan(Int height, Int width, int threads);
  Memory take(size_t floats);
  void give(Memory memory);

  Program program_;
  std::map<Key, std::shared_ptr<const Plan>> plans_;
  std::vector<Memory> spare_;
};

}  // namespace widehrnet
