// A network as a list of steps on numbered slots, made ready for one variant of the kernels.
#pragma once
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "step.h"

namespace widehrnet {

// Memory that starts on a cache line, since a load across two of them costs twice.
class Memory {
 public:
  Memory() = default;
  explicit Memory(size_t bytes);
  ~Memory();
  Memory(Memory&& other) noexcept : data_(other.data_), size_(other.size_) { other.data_ = nullptr; }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  Memory& operator=(Memory&& other) noexcept;
  void* data() const { return data_; }
  size_t size() const { return size_; }
  float* floats() const { return static_cast<float*>(data_); }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

struct Slot {
  Int channels;
  int level;  // height and width are those of the image, divided by 2 to this power
};

struct Program {
  const Variant* variant;
  std::vector<Step> steps;
  std::vector<Slot> slots;
  Int image_channels = 0, outputs = 0;
  int out_level = 0, deepest = 0;
  std::vector<Memory> weights;
};

constexpr Int kFields = 20;  // numbers of a step as they are handed over

// From `count` rows of kFields numbers, which name places in `numbers`; throws std::invalid_argument if they are wrong.
Program read_program(const Variant& variant, const Int* steps, Int count, const float* numbers, Int size);

// The variants of this build, best last, and whether this processor runs them.
const std::vector<const Variant*>& variants();
bool runs_here(const Variant& variant);

}  // namespace widehrnet
