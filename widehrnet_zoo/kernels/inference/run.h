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
