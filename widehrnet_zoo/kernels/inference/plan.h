// A program for one size of images: buffers, and the parts of its steps with what each of them waits for.
#pragma once
#include "program.h"

namespace widehrnet {

enum class Part { kStem, kExpand, kGate, kProject, kSeparable, kPointwise, kAddNearest, kAddBilinear, kReorder, kHead, kParts };

// A part of a step, cut into units that any thread may compute in any order
struct Phase {
  Part part;
  const Step* step;
  int units = 1, bands = 1, panels = 1;
  int waits = 0;          // phases that must end before
  std::vector<int> next;  // phases that wait for this one
  double rest = 0;        // work from here to the end
  size_t y = 0, sums = 0, gates = 0, scaled = 0;  // places in the memory, of a block
};

struct Plan {
  Int height = 0, width = 0;
  std::vector<Phase> phases;
  std::vector<size_t> slots;  // places in the memory, in floats
  size_t memory = 0, scratch = 0;
};

// Of the products and convolutions of a phase, on the whole image
double multiply_adds(const Program& program, const Plan& plan, const Phase& phase);

Plan make_plan(const Program& program, Int height, Int width, int threads);

// Compute one unit of a phase. `memory` and `scratch` are as large as the plan says.
void run_unit(const Program& program, const Plan& plan, const Phase& phase, int unit, float* memory, float* scratch,
              const float* image, float* heatmaps);

}  // namespace widehrnet
