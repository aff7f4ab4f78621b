// What the page's script calls, compiled to WebAssembly for one thread (scripts/web/build_kernels.sh).
// All pointers are to memory that the script has from `allocate`.
#include <stdlib.h>
#include <string.h>

#include <__verbose_abort>

#include "page.h"
#include "plan.h"

// that of the library brings printf with it
void std::__libcpp_verbose_abort(const char*, ...) noexcept { __builtin_trap(); }

namespace widehrnet {
namespace wasm {
extern const Variant variant;
}

namespace {
struct Opened {
  Program program;
  Plan plan;
  Memory memory, scratch;
};
}  // namespace
}  // namespace widehrnet

using namespace widehrnet;
#define EXPORT(name) extern "C" __attribute__((export_name(#name)))

EXPORT(allocate)
void* allocate(size_t bytes) {
  void* memory = malloc(bytes);
  if (!memory) __builtin_trap();
  return memory;
}
EXPORT(release)
void release(void* memory) { free(memory); }

// From the number of steps, the steps and the weights; stops if they are wrong
EXPORT(open_network)
Opened* open_network(const Int* file, Int bytes) {
  const Int steps = *file;
  if (steps < 1 || steps > (bytes / 4 - 1) / kFields) __builtin_trap();
  const Int size = bytes / 4 - 1 - steps * kFields;
  const float* numbers = reinterpret_cast<const float*>(file + 1 + steps * kFields);
  return new Opened{read_program(wasm::variant, file + 1, steps, numbers, size), {}, {}, {}};
}

// images (batch, channels, height, width) to maps; height and width are multiples of 32
EXPORT(run)
void run(Opened* network, const float* images, Int batch, Int height, Int width, float* maps) {
  const Program& program = network->program;
  Plan& plan = network->plan;
  if (plan.height != height || plan.width != width) {
    plan = make_plan(program, height, width, 1);
    network->memory = Memory((plan.memory + kSlack) * sizeof(float));
    network->scratch = Memory((plan.scratch + kSlack) * sizeof(float));
  }
  for (Int i = 0; i < batch; ++i) {
    for (const Phase& phase : plan.phases)
      for (int unit = 0; unit < phase.units; ++unit)
        run_unit(program, plan, phase, unit, network->memory.floats(), network->scratch.floats(), images, maps);
    images += program.image_channels * height * width;
    maps += program.outputs * (height >> program.out_level) * (width >> program.out_level);
  }
}

// Whole numbers 0..255 in planes of red, green and blue, for `normalise`
EXPORT(crop_picture)
void crop_picture(const uint8_t* rgba, Int width, Int height, double step_x, double start_x, double step_y,
                  double start_y, Int rows, Int columns, float* image) {
  const Axis x = {columns, width, step_x, start_x, 1}, y = {rows, height, step_y, start_y, 1};
  resample({rgba, width, height}, x, y, image, columns, rows * columns);
}

EXPORT(fit_picture)
void fit_picture(const uint8_t* rgba, Int width, Int height, Int rows, Int columns, float* image) {
  letterbox({rgba, width, height}, rows, columns, image);
}

EXPORT(normalise)
void normalise(float* images, Int batch, Int plane, float mean_r, float mean_g, float mean_b, float std_r,
               float std_g, float std_b) {
  const float mean[3] = {mean_r, mean_g, mean_b}, std[3] = {std_r, std_g, std_b};
  for (Int i = 0; i < 3 * batch; ++i, images += plane)
    for (Int j = 0; j < plane; ++j) images[j] = (images[j] - 255 * mean[i % 3]) / (255 * std[i % 3]);
}

// Rows of x, y and height of the maximum, in pixels of the maps
EXPORT(find_keypoints)
void find_keypoints(const float* maps, Int count, Int height, Int width, float* rows) {
  for (Int i = 0; i < count; ++i) keypoint(maps + i * height * width, height, width, rows + 3 * i);
}

// Rows of x1, y1, x2, y2 in the picture and score, at most 1000, the highest score first; gives their number
EXPORT(find_people)
Int find_people(const float* maps, Int width, Int height, Int rows, Int columns, float min_score, float* found) {
  const std::vector<Box> boxes = find_boxes(maps, rows / 4, columns / 4, min_score);
  Int count = 0;
  for (Box box : boxes) {
    if (!from_letterbox(box, width, height, rows, columns)) continue;
    memcpy(found + 5 * count++, &box, sizeof box);
  }
  return count;
}
