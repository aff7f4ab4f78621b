// What the parser of programs, the planner and the variants of the kernels share.
// Activations are float32 in rows of channels, one row per pixel, with kSlack floats behind the last one.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace widehrnet {

#if defined(__wasm__)
typedef int32_t Int;  // as wide as an address
#else
typedef int64_t Int;
#endif

constexpr Int kSlack = 16;  // a whole vector may be read where a row of channels ends
constexpr Int kMaxUnits = 64;

enum class Op : Int { kStem, kBlock, kSeparable, kPointwise, kAddNearest, kAddBilinear, kReorder, kHead, kCount };

// A product over rows of channels, y = W x + b; the weights as the variant has packed them, the bias padded.
struct Product {
  Int k = 0, n = 0;
  const void* weight = nullptr;
  const float* bias = nullptr;
};

// A depthwise 3x3 convolution: nine rows of weights, padded to whole vectors.
struct Depthwise {
  Int channels = 0, width = 0;
  const float* weight = nullptr;
  const float* bias = nullptr;
};

// The two layers of squeeze-excitation's gate, not packed: (k, n) and n padded.
struct Squeeze {
  Int middle = 0, width1 = 0, width2 = 0;
  const float *weight1 = nullptr, *bias1 = nullptr, *weight2 = nullptr, *bias2 = nullptr;
};

struct Step {
  Op op = Op::kCount;
  int from = -1, to = -1;  // slots; the image is no slot, nor are the heatmaps
  Int start = 0;           // first channel that is worked on
  Int keep = 0;            // of the stem: channels that pass the second convolution
  Int stride = 1;
  bool relu = false, add = false;
  Product first, second, third;
  Depthwise dw;
  Squeeze squeeze;
  const int32_t* order = nullptr;
  Int channels = 0;  // of the input
};

struct View {
  float* data;
  Int height, width, channels;
};

struct Range {
  Int begin, end;
};

// Of what products multiply; the value is how many share 32 bits.
enum class Precision { kF32 = 1, kBF16 = 2, kInt8 = 4 };

// One set of kernels, compiled for one kind of processor. Every function computes a part of a step.
struct Variant {
  const char* name;
  Precision precision;
  Int (*width)(Int n);                                               // channels padded to whole vectors
  Int (*panels)(Int n);                                              // runs of output channels of a product
  Int (*packed)(Int k, Int n);                                       // bytes of packed weights
  void (*pack)(const float* weight, Int k, Int n, void* to);         // from (k, n)
  Int (*scratch)(const Step& step, Int height, Int width);           // floats that a part needs for itself
  void (*stem)(const Step&, const float* image, View in, View out, Range rows, float* scratch);
  void (*expand)(const Step&, View x, void* y, float* sums, Int panel, Range rows, float* scratch);
  void (*gate)(const Step&, View x, void* y, float* sums, Int bands, float* gates, void* scaled);
  void (*project)(const Step&, View x, const void* y, const void* scaled, Range panels, Range pixels);
  void (*separable)(const Step&, View in, View out, Range rows, float* scratch);
  void (*pointwise)(const Step&, View in, View out, Range panels, Range pixels, float* scratch);
  void (*add_nearest)(const Step&, View low, View out, Range rows);
  void (*add_bilinear)(const Step&, View low, View out, Range rows);
  void (*reorder)(const Step&, View in, View out, Range pixels);
  void (*head)(const Step&, View in, float* heatmaps, Range pixels, float* scratch);
  Int (*registers_only)(Int rounds, float* sums);  // multiply-adds without memory; their number
};

// Where the gates of squeeze-excitation are multiplied in: the activations or the weights, whichever are fewer.
static inline bool gates_on_weights(const Step& step, Int pixels) { return step.squeeze.middle && pixels > step.second.n; }

static inline Int ceil_div(Int a, Int b) { return (a + b - 1) / b; }
static inline Int smaller(Int a, Int b) { return a < b ? a : b; }
static inline Int larger(Int a, Int b) { return a > b ? a : b; }

}  // namespace widehrnet
