// What the page's script calls, compiled to WebAssembly (scripts/web/build_kernels.sh) for one thread and for several.
// Threads are workers of the browser that share the page's memory; they call `help` alone, the page all the rest.
// All pointers are to memory that the script has from `allocate`.
#include <stdlib.h>
#include <string.h>

#include <__verbose_abort>

#include "page.h"
#include "schedule.h"

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
  std::vector<Memory> memories, scratch;  // of each image that is run with others, and of each thread
  Schedule schedule;
  const float* images = nullptr;
  float* maps = nullptr;
};

// A lock that nobody sleeps for: browsers do not let the page's own thread sleep. It is held for moments only.
int locked = 0;
struct Lock {
  Lock() {
    while (__atomic_exchange_n(&locked, 1, __ATOMIC_ACQUIRE)) {
    }
  }
  ~Lock() { __atomic_store_n(&locked, 0, __ATOMIC_RELEASE); }
};

Opened* running = nullptr;
int news = 0;  // goes up when there may be something to do

void tell() {
  __atomic_fetch_add(&news, 1, __ATOMIC_RELEASE);
#if defined(__wasm_atomics__)
  __builtin_wasm_memory_atomic_notify(&news, -1);
#endif
}

// News come within microseconds as a rule, sooner than a thread can be woken.
void wait(int before, bool may_sleep) {
  for (int i = 0; i < 20000; ++i)
    if (__atomic_load_n(&news, __ATOMIC_ACQUIRE) != before) return;
#if defined(__wasm_atomics__)
  if (may_sleep) __builtin_wasm_memory_atomic_wait32(&news, before, -1);
#endif
}

// Take part in what runs, until it is over; helpers wait for what runs next then.
void participate(int me) {
  Task task;
  for (;;) {
    bool taken = false;
    int before;
    {
      Lock lock;
      if (running) {
        if (task.image >= 0 && running->schedule.finish(task, me)) tell();
        taken = running->schedule.take(task, me);
        if (!me && running->schedule.over()) return;
      }
      before = news;
    }
    if (!taken) {
      task = {};
      wait(before, me);
      continue;
    }
    // stays what it is until this unit has been handed in
    const Opened& now = *running;
    const Program& program = now.program;
    const Int image = program.image_channels * now.plan.height * now.plan.width;
    const Int maps = program.outputs * (now.plan.height >> program.out_level) * (now.plan.width >> program.out_level);
    run_unit(program, now.plan, now.plan.phases[task.phase], task.unit, now.memories[task.image].floats(),
             now.scratch[me].floats(), now.images + task.image * image, now.maps + task.image * maps);
  }
}
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

// From the number of steps, the steps and the weights, which are released: weights are packed anew. Stops if it is wrong.
EXPORT(open_network)
Opened* open_network(Int* file, Int bytes) {
  const Int steps = *file;
  if (steps < 1 || steps > (bytes / 4 - 1) / kFields) __builtin_trap();
  const Int size = bytes / 4 - 1 - steps * kFields;
  const float* numbers = reinterpret_cast<const float*>(file + 1 + steps * kFields);
  Opened* opened = new Opened;
  opened->program = read_program(wasm::variant, file + 1, steps, numbers, size);
  release(file);
  return opened;
}

// images (batch, channels, height, width) to maps; height and width are multiples of 32. A network is always run by the
// same number of threads.
EXPORT(run)
void run(Opened* network, const float* images, Int batch, Int height, Int width, float* maps, Int threads) {
  const Program& program = network->program;
  Plan& plan = network->plan;
  for (Int first = 0; first < batch; first += threads) {
    const Int count = smaller(threads, batch - first);
    {
      Lock lock;
      if (plan.height != height || plan.width != width) {
        plan = make_plan(program, height, width, threads);
        network->memories.clear();
        network->scratch.clear();
        for (Int i = 0; i < threads; ++i) network->scratch.emplace_back((plan.scratch + kSlack) * sizeof(float));
      }
      while (static_cast<Int>(network->memories.size()) < count)
        network->memories.emplace_back((plan.memory + kSlack) * sizeof(float));
      network->images = images + first * program.image_channels * height * width;
      network->maps = maps + first * program.outputs * (height >> program.out_level) * (width >> program.out_level);
      network->schedule = Schedule(plan, count, threads);
      running = network;
      tell();
    }
    participate(0);
  }
}

// What a worker runs until the page is closed; workers are numbered from 1
EXPORT(help)
void help(Int me) { participate(me); }

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
