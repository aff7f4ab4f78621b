// Rows of a depthwise 3x3 convolution with a border of zeros.
#pragma once
#include "product.h"

namespace widehrnet {
namespace WIDEHRNET_VARIANT {

// The rows above, at and below an output row that lie in the picture: `count` of them, the first seen by row `first` of
// the weights.
struct Neighbours {
  const float* row[3];
  Int first, count, ld, width;
};

template <typename K>
struct Outputs {
  typename K::T* to;
  Int ld, width;
  bool relu;
  float* pooled;  // sums over the row, or null
};

// G outputs side by side, N rows, S the stride. `Left` and `Right`: the first or last column is outside.
template <int N, int S, int G, bool Left, bool Right, typename K>
static inline void columns(const Neighbours& in, Int x, Int at, const Vec (&w)[3 * N], Vec bias, const Outputs<K>& out,
                           Vec& total) {
  Vec sum[G];
#pragma GCC unroll 8
  for (int g = 0; g < G; ++g) sum[g] = bias;
#pragma GCC unroll 3
  for (int i = 0; i < N; ++i) {
    const float* p = in.row[i] + (x * S - 1) * in.ld + at;
#pragma GCC unroll 16
    for (int c = 0; c < (G - 1) * S + 3; ++c) {
      if ((Left && c == 0) || (Right && c == (G - 1) * S + 2)) continue;
      const Vec v = load(p + c * in.ld);
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g)
        if (c - g * S >= 0 && c - g * S < 3) sum[g] += w[3 * i + c - g * S] * v;
    }
  }
#pragma GCC unroll 8
  for (int g = 0; g < G; ++g) {
    if (out.relu) sum[g] = relu(sum[g]);
    K::put(out.to + (x + g) * out.ld + at, sum[g]);
    total += sum[g];
  }
}

template <int N, int S, typename K>
static void depthwise_rows(const Neighbours& near, const Depthwise& dw, Int channel, Int vectors, const Outputs<K>& to) {
  constexpr int G = 4;
  Held<Neighbours> in = near;
  Held<Outputs<K>> out = to;
  // with stride 2 and an even width the last output has its right column inside
  const Int inside = S == 1 || in.width % 2 ? out.width - 1 : out.width;
  for (Int v = 0; v < vectors; ++v) {
    const Int at = v * kLanes, of = channel + at;
    Vec w[3 * N];
#pragma GCC unroll 9
    for (int i = 0; i < 3 * N; ++i) w[i] = load(dw.weight + (3 * in.first + i) * dw.width + of);
    const Vec bias = load(dw.bias + of);
    Vec total = {};
    if (out.width == 1 && inside == 0) {
      columns<N, S, 1, true, true>(in, 0, at, w, bias, out, total);
    } else {
      columns<N, S, 1, true, false>(in, 0, at, w, bias, out, total);
      Int x = 1;
      for (; x + G <= inside; x += G) columns<N, S, G, false, false>(in, x, at, w, bias, out, total);
      for (; x < inside; ++x) columns<N, S, 1, false, false>(in, x, at, w, bias, out, total);
      if (x < out.width) columns<N, S, 1, false, true>(in, x, at, w, bias, out, total);
    }
    if (out.pooled) store(out.pooled + at, load(out.pooled + at) + total);
  }
}

// Channels [channel, channel + vectors * kLanes) of the weights; `in` and `out` point at the first of them.
template <typename K>
static void depthwise(const Neighbours& in, const Depthwise& dw, Int stride, Int channel, Int vectors,
                      const Outputs<K>& out) {
  if (stride == 1) {
    if (in.count == 3) return depthwise_rows<3, 1>(in, dw, channel, vectors, out);
    if (in.count == 2) return depthwise_rows<2, 1>(in, dw, channel, vectors, out);
    return depthwise_rows<1, 1>(in, dw, channel, vectors, out);
  }
  if (in.count == 3) return depthwise_rows<3, 2>(in, dw, channel, vectors, out);
  if (in.count == 2) return depthwise_rows<2, 2>(in, dw, channel, vectors, out);
  return depthwise_rows<1, 2>(in, dw, channel, vectors, out);
}

// The neighbours of output row r, where `row(i)` is input row i
template <typename F>
static inline Neighbours neighbours(Int r, Int stride, Int height, Int width, Int ld, const F& row) {
  Neighbours in = {{}, 0, 0, ld, width};
  for (Int i = 0; i < 3; ++i) {
    const Int at = r * stride - 1 + i;
    if (at < 0) in.first = i + 1;
    else if (at < height) in.row[in.count++] = row(at);
  }
  return in;
}

}  // namespace WIDEHRNET_VARIANT
}  // namespace widehrnet
