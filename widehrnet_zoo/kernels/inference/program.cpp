#include "program.h"

#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
#include <malloc.h>
#elif defined(__linux__)
#include <sys/mman.h>
#endif

#include <new>

// WebAssembly is compiled without exceptions: there it stops
#if defined(__wasm__)
#define WIDEHRNET_THROW(error) __builtin_trap()
#else
#define WIDEHRNET_THROW(error) throw error
#endif

namespace widehrnet {

Memory::Memory(size_t bytes) : size_(bytes) {
  constexpr size_t kPage = 2 << 20;
  const size_t align = bytes >= kPage ? kPage : 64;
  const size_t whole = (bytes + align - 1) / align * align + (bytes ? 0 : align);
#if defined(_WIN32)
  data_ = _aligned_malloc(whole, align);
  if (!data_) WIDEHRNET_THROW(std::bad_alloc());
#else
  if (posix_memalign(&data_, align, whole)) WIDEHRNET_THROW(std::bad_alloc());
#if defined(__linux__)
  if (align == kPage) madvise(data_, whole, MADV_HUGEPAGE);  // fewer misses of the page table's cache
#endif
#endif
}

Memory::~Memory() {
#if defined(_WIN32)
  _aligned_free(data_);
#else
  free(data_);
#endif
}

Memory& Memory::operator=(Memory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

namespace {

// channels, slots or steps; products of two such numbers of channels have to fit
constexpr Int kMost = sizeof(Int) == 4 ? 1 << 13 : 1 << 16;
constexpr int kLevels = 8;

// Reads steps one after the other and keeps track of what each slot holds.
class Reader {
 public:
  Reader(const Variant& variant, const float* numbers, Int size) : numbers_(numbers), size_(size) {
    program_.variant = &variant;
  }

  void step(const Int* fields) {
    field_ = fields;
    require(!done_, "goes on after the head");
    const Int op = next();
    require(op >= 0 && op < static_cast<Int>(Op::kCount), "names a step that there is not");
    Step step;
    step.op = static_cast<Op>(op);
    require((step.op == Op::kStem) == program_.steps.empty(), "must begin with one stem");
    switch (step.op) {
      case Op::kStem: stem(step); break;
      case Op::kBlock: block(step); break;
      case Op::kSeparable: separable(step); break;
      case Op::kPointwise: pointwise(step); break;
      case Op::kAddNearest: add(step, true); break;
      case Op::kAddBilinear: add(step, false); break;
      case Op::kReorder: reorder(step); break;
      default: head(step);
    }
    program_.steps.push_back(step);
  }

  Program finish() {
    require(done_, "has no head");
    return std::move(program_);
  }

 private:
  static void require(bool right, const char* what) {
    if (!right) WIDEHRNET_THROW(std::invalid_argument(std::string("the program ") + what));
  }
  Int next() { return *field_++; }
  Int count() {
    const Int n = next();
    require(n > 0 && n <= kMost, "has a number of channels that cannot be");
    return n;
  }
  bool flag() { return next() != 0; }
  const float* tensor(Int size) {
    const Int at = next();
    require(at >= 0 && size <= size_ && at <= size_ - size, "names weights that there are not");
    return numbers_ + at;
  }
  float* keep(Int floats) {
    program_.weights.emplace_back(static_cast<size_t>(floats + kSlack) * sizeof(float));
    Memory& memory = program_.weights.back();
    memset(memory.data(), 0, memory.size());
    return memory.floats();
  }
  // rows of n numbers, with zeros up to whole vectors
  const float* padded(const float* from, Int rows, Int n) {
    const Int width = program_.variant->width(n);
    float* to = keep(rows * width);
    for (Int i = 0; i < rows; ++i) memcpy(to + i * width, from + i * n, n * sizeof(float));
    return to;
  }
  Product product(Int k, Int n) {
    Product made;
    made.k = k;
    made.n = n;
    const float* weight = tensor(k * n);
    void* to = keep((program_.variant->packed(k, n) + 3) / 4);
    program_.variant->pack(weight, k, n, to);
    made.weight = to;
    made.bias = padded(tensor(n), 1, n);
    return made;
  }
  Depthwise depthwise(Int channels) {
    Depthwise made;
    made.channels = channels;
    made.width = program_.variant->width(channels);
    made.weight = padded(tensor(9 * channels), 9, channels);
    made.bias = padded(tensor(channels), 1, channels);
    return made;
  }
  int slot() {
    const Int at = next();
    require(at >= 0 && at < static_cast<Int>(program_.slots.size()), "uses a slot before it is filled");
    return static_cast<int>(at);
  }
  int fill(Int channels, int level) {
    require(next() == static_cast<Int>(program_.slots.size()), "does not number its slots in order");
    require(level < kLevels && program_.slots.size() < kMost, "is too long");
    program_.slots.push_back({channels, level});
    program_.deepest = level > program_.deepest ? level : program_.deepest;
    return static_cast<int>(program_.slots.size()) - 1;
  }
  const Slot& at(int slot) const { return program_.slots[slot]; }

  void stem(Step& step) {
    step.channels = program_.image_channels = count();
    require(step.channels <= 64, "has a number of channels that cannot be");
    const Int first = count(), second = count(), third = count();
    step.keep = next();
    require(step.keep >= 0 && step.keep < first, "has a stem that keeps what is not there");
    step.relu = flag();
    step.stride = 2;
    step.first = product(9 * step.channels, first);
    step.second = product(first - step.keep, second);
    step.dw = depthwise(step.keep + second);
    step.third = product(step.dw.channels, third);
    step.to = fill(third, 2);
  }
  void block(Step& step) {
    step.from = step.to = slot();
    step.start = next();
    const Int half = count(), middle = count(), squeezed = next();
    step.channels = at(step.to).channels;
    require(step.start >= 0 && step.start <= step.channels - half, "has a block on channels that there are not");
    require(squeezed >= 0 && squeezed <= kMost, "has a number of channels that cannot be");
    step.first = product(half, middle);
    step.dw = depthwise(middle);
    step.second = product(middle, half);
    if (!squeezed) return;
    Squeeze& se = step.squeeze;
    se.middle = squeezed;
    se.width1 = program_.variant->width(squeezed);
    se.width2 = program_.variant->width(middle);
    se.weight1 = padded(tensor(middle * squeezed), middle, squeezed);
    se.bias1 = padded(tensor(squeezed), 1, squeezed);
    se.weight2 = padded(tensor(squeezed * middle), squeezed, middle);
    se.bias2 = padded(tensor(middle), 1, middle);
  }
  void separable(Step& step) {
    step.from = slot();
    step.channels = at(step.from).channels;
    const Int n = count();
    step.stride = static_cast<int>(next());
    require(step.stride == 1 || step.stride == 2, "has a stride other than 1 and 2");
    step.relu = flag();
    step.add = flag();
    step.dw = depthwise(step.channels);
    step.first = product(step.channels, n);
    const int level = at(step.from).level + (step.stride == 2);
    step.to = step.add ? slot() : fill(n, level);
    require(step.to != step.from && at(step.to).channels == n && at(step.to).level == level, "adds what does not fit");
  }
  void pointwise(Step& step) {
    step.from = slot();
    step.channels = at(step.from).channels;
    const Int n = count();
    step.relu = flag();
    step.first = product(step.channels, n);
    step.to = fill(n, at(step.from).level);
  }
  void add(Step& step, bool part) {
    step.from = slot();
    step.start = next();
    step.to = slot();
    const Slot &low = at(step.from), &high = at(step.to);
    step.channels = low.channels;
    const bool fits = part ? step.start >= 0 && step.start <= low.channels - high.channels
                           : step.start == 0 && low.channels == high.channels;
    require(fits && low.level == high.level + 1, "adds what does not fit");
  }
  void reorder(Step& step) {
    step.from = slot();
    step.channels = at(step.from).channels;
    step.relu = flag();
    const float* given = tensor(step.channels);
    int32_t* order = reinterpret_cast<int32_t*>(keep(program_.variant->width(step.channels)));
    memcpy(order, given, step.channels * sizeof(int32_t));
    for (Int i = 0; i < step.channels; ++i)
      require(order[i] >= 0 && order[i] < step.channels, "has an order of channels that there are not");
    step.order = order;
    step.to = fill(step.channels, at(step.from).level);
  }
  void head(Step& step) {
    step.from = slot();
    step.channels = at(step.from).channels;
    program_.outputs = count();
    step.relu = flag();
    step.first = product(step.channels, program_.outputs);
    program_.out_level = at(step.from).level;
    done_ = true;
  }

  Program program_;
  const float* numbers_;
  Int size_;
  const Int* field_ = nullptr;
  bool done_ = false;
};

}  // namespace

Program read_program(const Variant& variant, const Int* steps, Int count, const float* numbers, Int size) {
  if (count > kMost) WIDEHRNET_THROW(std::invalid_argument("the program is too long"));
  Reader reader(variant, numbers, size);
  for (Int i = 0; i < count; ++i) reader.step(steps + i * kFields);
  return reader.finish();
}

}  // namespace widehrnet
