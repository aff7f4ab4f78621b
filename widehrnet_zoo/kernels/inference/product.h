// Products over rows of channels. They run on panels of a few vectors of output channels, so that the sums of a tile of
// pixels stay in registers.
#pragma once
#include "vector.h"

namespace widehrnet {
namespace WIDEHRNET_VARIANT {

typedef Kind::T T;

static inline Int padded(Int k) { return ceil_div(k, Kind::kStep) * Kind::kStep; }

// Output channels cut into panels of nearly equal width. Panel p has vectors [first(p), first(p + 1)).
struct Panels {
  Int vectors, count;
  explicit Panels(Int n) : vectors(ceil_div(n, kLanes)), count(ceil_div(vectors, kPanel)) {}
  Int first(Int p) const { return vectors * p / count; }
};

static void pack(const float* weight, Int k, Int n, void* packed) {
  const Panels panels(n);
  const Int kp = padded(k);
  T* to = static_cast<T*>(packed);
  memset(to, 0, panels.vectors * kLanes * kp * sizeof(T));
  for (Int p = 0; p < panels.count; ++p) {
    const Int start = panels.first(p) * kLanes, wide = panels.first(p + 1) * kLanes - start;
    for (Int i = 0; i < k; ++i)
      for (Int j = 0; j < wide && start + j < n; ++j)
        to[start * kp + i / Kind::kStep * Kind::kStep * wide + j * Kind::kStep + i % Kind::kStep] =
            Kind::convert(weight[i * n + start + j]);
  }
}

struct Rows {
  const T* a;  // inputs
  Int lda;
  float* c;  // outputs
  Int ldc;
  bool add, relu;
};

// The first n channels of a vector: out = [out +] act(sums)
static inline void finish(Vec sums, float* out, Int n, bool add, bool positive) {
  if (n >= kLanes) {
    if (add) sums += load(out);
    store(out, positive ? relu(sums) : sums);
  } else if (n > 0) {
    if (add) sums += load_part(out, n);
    store_part(out, positive ? relu(sums) : sums, n);
  }
}

// R pixels by V vectors, and half a vector more if Half
template <int R, int V, int Half>
static inline void tile(const Rows& rows, const T* b, Int k, const float* bias, Int n) {
  constexpr int kWidth = V + Half;
  Vec sum[R][V ? V : 1];
  HalfVec half[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) sum[r][v] = load(bias + v * kLanes);
    if constexpr (Half) half[r] = *reinterpret_cast<const HalfVec*>(bias + V * kLanes);
  }
  const T* a = rows.a;
  const Int lda = rows.lda;
  for (Int i = 0; i < k; i += Kind::kStep) {
    const T* row = b + i * kWidth * kLanes;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sum[r][v] = Kind::fma(a + r * lda + i, row + v * kLanes * Kind::kStep, sum[r][v]);
      if constexpr (Half) half[r] = Kind::fma(a + r * lda + i, row + V * kLanes * Kind::kStep, half[r]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    float* out = rows.c + r * rows.ldc;
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) finish(sum[r][v], out + v * kLanes, n - v * kLanes, rows.add, rows.relu);
    if constexpr (Half) finish(widen(half[r]), out + V * kLanes, n - V * kLanes, rows.add, rows.relu);
  }
}

template <int R, int V, int Half>
static inline void tile_of(Int height, const Rows& rows, const T* b, Int k, const float* bias, Int n) {
  if constexpr (R > 1)
    if (height < R) return tile_of<R - 1, V, Half>(height, rows, b, k, bias, n);
  tile<R, V, Half>(rows, b, k, bias, n);
}

// m pixels in tiles of nearly equal height
template <int V, int Half>
static void strip(Rows rows, const T* b, Int k, const float* bias, Int m, Int n) {
  constexpr int R = rows_of(V + Half);
  const Int tiles = ceil_div(m, R);
  const T* a = rows.a;
  float* c = rows.c;
  for (Int t = 0; t < tiles; ++t) {
    const Int from = m * t / tiles;
    rows.a = a + from * rows.lda;
    rows.c = c + from * rows.ldc;
    tile_of<R, V, Half>(m * (t + 1) / tiles - from, rows, b, k, bias, n);
  }
}

template <int V>
static inline void strips(const Rows& rows, const T* b, Int k, const float* bias, Int m, Int n) {
  if constexpr (kLanes > 4)
    if (n <= (V - 1) * kLanes + kLanes / 2) return strip<V - 1, 1>(rows, b, k, bias, m, n);
  strip<V, 0>(rows, b, k, bias, m, n);
}

// One panel: `rows.c` is where its first channel goes. `left`: channels that are stored.
static void panel(const Product& product, const void* packed, const Panels& panels, Int p, const Rows& rows, Int m,
                  Int left) {
  const Int first = panels.first(p), start = first * kLanes, k = padded(product.k);
  const T* b = static_cast<const T*>(packed) + start * k;
  const float* bias = product.bias + start;
  switch (panels.first(p + 1) - first) {
    case 1: return strips<1>(rows, b, k, bias, m, left);
    case 2: return strips<2>(rows, b, k, bias, m, left);
#if defined(__AVX512F__) || defined(__aarch64__)
    case 3: return strips<3>(rows, b, k, bias, m, left);
    case 4: return strips<4>(rows, b, k, bias, m, left);
    default: return strips<5>(rows, b, k, bias, m, left);
#else
    default: return strips<3>(rows, b, k, bias, m, left);
#endif
  }
}

static void multiply(const Product& product, const void* packed, Rows rows, Int m, Range which) {
  const Panels panels(product.n);
  float* c = rows.c;
  for (Int p = which.begin; p < which.end; ++p) {
    const Int start = panels.first(p) * kLanes;
    rows.c = c + start;
    panel(product, packed, panels, p, rows, m, product.n - start);
  }
}

static inline void multiply(const Product& product, const Rows& rows, Int m) {
  multiply(product, product.weight, rows, m, {0, Panels(product.n).count});
}

// Weights with a factor for each of their inputs
static void scale_weights(const Product& product, const float* factors, void* scaled) {
  const Panels panels(product.n);
  const Int k = padded(product.k);
  for (Int p = 0; p < panels.count; ++p) {
    const Int start = panels.first(p) * kLanes, wide = panels.first(p + 1) * kLanes - start;
    for (Int i = 0; i < k; i += Kind::kStep) {
      const Int at = start * k + i * wide;
      Kind::scale_rows(static_cast<const T*>(product.weight) + at, factors + i, static_cast<T*>(scaled) + at, wide);
    }
  }
}

// Floats that `inputs` may need for m rows
static inline Int room(Int m, Int k) { return Kind::kStep == 1 ? 0 : ceil_div(m * round_up(k), 2) + kSlack; }

// Rows of float32 as inputs of a product.
static inline const T* inputs(const float* x, Int ldx, Int m, Int k, Int& lda, float* scratch) {
  if constexpr (Kind::kStep == 1) {
    lda = ldx;
    return reinterpret_cast<const T*>(x);
  } else {
    lda = round_up(k);
    T* buffer = reinterpret_cast<T*>(scratch);
    for (Int i = 0; i < m; ++i) {
      Int j = 0;
      for (; j + kLanes <= k; j += kLanes) Kind::put(buffer + i * lda + j, load(x + i * ldx + j));
      if (j < k) Kind::put(buffer + i * lda + j, load_part(x + i * ldx + j, k - j));
    }
    return buffer;
  }
}

}  // namespace WIDEHRNET_VARIANT
}  // namespace widehrnet
