// Products over rows of channels. They run on panels of a few vectors of output channels, so that the sums of a tile of
// pixels stay in registers.
#pragma once
#include <math.h>

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

static inline Int packed(Int k, Int n) {
  return round_up(n) * (padded(k) * sizeof(T) + (Kind::kScaled ? sizeof(float) + sizeof(int32_t) : 0));
}
// Behind the integers of a product lie `Ends::scale` and `Ends::zero`.
static inline const float* scales_of(const void* packed, Int k, Int n) {
  return reinterpret_cast<const float*>(static_cast<const T*>(packed) + round_up(n) * padded(k));
}
static inline float* scales_of(void* packed, Int k, Int n) {
  return const_cast<float*>(scales_of(static_cast<const void*>(packed), k, n));
}
static inline const int32_t* zeros_of(const void* packed, Int k, Int n) {
  return reinterpret_cast<const int32_t*>(scales_of(packed, k, n) + round_up(n));
}

static void pack(const float* weight, Int k, Int n, void* packed_) {
  const Panels panels(n);
  const Int kp = padded(k);
  T* to = static_cast<T*>(packed_);
  memset(to, 0, packed(k, n));
  for (Int p = 0; p < panels.count; ++p) {
    const Int start = panels.first(p) * kLanes, wide = panels.first(p + 1) * kLanes - start;
    for (Int j = 0; j < wide && start + j < n; ++j) {
      const auto at = [&](Int i) -> T& {
        return to[start * kp + i / Kind::kStep * Kind::kStep * wide + j * Kind::kStep + i % Kind::kStep];
      };
      const float* column = weight + start + j;
#if defined(__AVX512VNNI__)
      float most = 0;
      for (Int i = 0; i < k; ++i) most = fmaxf(most, fabsf(column[i * n]));
      float* scale = scales_of(packed_, k, n) + start + j;
      int32_t& zero = const_cast<int32_t*>(zeros_of(packed_, k, n))[start + j];
      *scale = most / 127.f;
      for (Int i = 0; i < k; ++i) {
        const int whole = most > 1e-30f ? static_cast<int>(lrintf(column[i * n] * (127.f / most))) : 0;
        at(i) = static_cast<T>(whole);
        zero -= 128 * whole;
      }
#else
      for (Int i = 0; i < k; ++i) at(i) = Kind::convert(column[i * n]);
#endif
    }
  }
}

// What goes into a product: pixels in rows of channels, and of integers with 128 added the scale of each pixel.
struct Inputs {
  const T* a;
  Int lda;
  const float* scale;
};

struct Rows {
  Inputs in;
  float* c;  // outputs
  Int ldc;
  bool add, relu;
};

// The first n channels of a vector: out = [out +] act(sums)
static inline void finish(Vec sums, float* out, Int n, bool add, bool positive) {
  if (n >= kLanes) {
    if (add) sums += load(out);
    store(out, positive ? relu(sums) : sums);
  } else if (kLanes > 4 && n == kLanes / 2) {  // without the call of memcpy that a count makes which is not known
    if (add) sums += widen(load_half(out));
    if (positive) sums = relu(sums);
    memcpy(out, &sums, sizeof(HalfVec));
  } else if (n > 0) {
    if (add) sums += load_part(out, n);
    store_part(out, positive ? relu(sums) : sums, n);
  }
}

// R pixels by V vectors, and half a vector more if Half
template <int R, int V, int Half>
static inline void tile(const Rows& outputs, const T* b, const Ends& ends, Int k, Int n) {
  Held<Rows> rows = outputs;
  constexpr int kWidth = V + Half;
  Kind::Sum sum[R][V ? V : 1];
  Kind::HalfSum half[R];
  const bool shifted = rows.in.scale;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) sum[r][v] = Kind::begin(ends, v * kLanes, shifted);
    if constexpr (Half) half[r] = Kind::begin_half(ends, V * kLanes, shifted);
  }
  const T* a = rows.in.a;
  const Int lda = rows.in.lda;
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
    const float scale = shifted ? rows.in.scale[r] : 1.f;
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v)
      finish(Kind::end(sum[r][v], ends, v * kLanes, scale), out + v * kLanes, n - v * kLanes, rows.add, rows.relu);
    if constexpr (Half)
      finish(Kind::end_half(half[r], ends, V * kLanes, scale), out + V * kLanes, n - V * kLanes, rows.add, rows.relu);
  }
}

template <int R, int V, int Half>
static inline void tile_of(Int height, const Rows& rows, const T* b, const Ends& ends, Int k, Int n) {
  if constexpr (R > 1)
    if (height < R) return tile_of<R - 1, V, Half>(height, rows, b, ends, k, n);
  tile<R, V, Half>(rows, b, ends, k, n);
}

// m pixels in tiles of nearly equal height
template <int V, int Half>
static void strip(Rows rows, const T* b, const Ends& ends, Int k, Int m, Int n) {
  constexpr int R = rows_of(V + Half);
  const Int tiles = ceil_div(m, R);
  const Inputs in = rows.in;
  float* c = rows.c;
  for (Int t = 0; t < tiles; ++t) {
    const Int from = m * t / tiles;
    rows.in = {in.a + from * in.lda, in.lda, in.scale ? in.scale + from : nullptr};
    rows.c = c + from * rows.ldc;
    tile_of<R, V, Half>(m * (t + 1) / tiles - from, rows, b, ends, k, n);
  }
}

template <int V>
static inline void strips(const Rows& rows, const T* b, const Ends& ends, Int k, Int m, Int n) {
  if constexpr (kLanes > 4)
    if (n <= (V - 1) * kLanes + kLanes / 2) return strip<V - 1, 1>(rows, b, ends, k, m, n);
  strip<V, 0>(rows, b, ends, k, m, n);
}

// One panel: `rows.c` is where its first channel goes. `left`: channels that are stored.
static void panel(const Product& product, const void* packed, const Panels& panels, Int p, const Rows& rows, Int m,
                  Int left) {
  const Int first = panels.first(p), start = first * kLanes, k = padded(product.k);
  const T* b = static_cast<const T*>(packed) + start * k;
  Ends ends = {product.bias + start, nullptr, nullptr};
  if constexpr (Kind::kScaled) {
    ends.scale = scales_of(packed, product.k, product.n) + start;
    ends.zero = zeros_of(packed, product.k, product.n) + start;
  }
  switch (panels.first(p + 1) - first) {
    case 1: return strips<1>(rows, b, ends, k, m, left);
    case 2: return strips<2>(rows, b, ends, k, m, left);
#if defined(__AVX512F__) || defined(__aarch64__)
    case 3: return strips<3>(rows, b, ends, k, m, left);
    case 4: return strips<4>(rows, b, ends, k, m, left);
    default: return strips<5>(rows, b, ends, k, m, left);
#else
    default: return strips<kPanel>(rows, b, ends, k, m, left);
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

#if defined(__AVX512VNNI__)
// 16 columns, from column j of a panel on, with a factor for each row, and with new scales
static void scale_columns(const T* from, const float* factors, Int k, Int wide, Int j, const float* scale, T* to,
                          float* new_scale) {
  const auto times = [&](Int i, int part) {  // row i + part
    const __m512i four = _mm512_loadu_si512(from + i * wide + 4 * j);
    const __m512i one = _mm512_srai_epi32(_mm512_slli_epi32(four, 24 - 8 * part), 24);
    return _mm512_mul_ps(_mm512_cvtepi32_ps(one), _mm512_set1_ps(factors[i + part]));
  };
  __m512 most = _mm512_set1_ps(1e-30f);
  for (Int i = 0; i < k; i += 4)
#pragma GCC unroll 4
    for (int part = 0; part < 4; ++part) most = _mm512_max_ps(most, _mm512_abs_ps(times(i, part)));
  const __m512 factor = _mm512_div_ps(_mm512_set1_ps(127.f), most);
  store(new_scale + j, load(scale + j) * (Vec)_mm512_div_ps(most, _mm512_set1_ps(127.f)));
  const __m512i byte = _mm512_set1_epi32(255);
  for (Int i = 0; i < k; i += 4) {
    __m512i four = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (int part = 0; part < 4; ++part) {
      const __m512i one = _mm512_and_si512(_mm512_cvtps_epi32(_mm512_mul_ps(times(i, part), factor)), byte);
      four = _mm512_or_si512(four, _mm512_slli_epi32(one, 8 * part));
    }
    _mm512_storeu_si512(to + i * wide + 4 * j, four);
  }
}
#endif

// Weights with a factor for each of their inputs
static void scale_weights(const Product& product, const float* factors, void* scaled) {
  const Panels panels(product.n);
  const Int k = padded(product.k);
  for (Int p = 0; p < panels.count; ++p) {
    const Int start = panels.first(p) * kLanes, wide = panels.first(p + 1) * kLanes - start;
    const T* from = static_cast<const T*>(product.weight) + start * k;
    T* to = static_cast<T*>(scaled) + start * k;
#if defined(__AVX512VNNI__)
    const float* scale = scales_of(product.weight, product.k, product.n) + start;
    float* new_scale = scales_of(scaled, product.k, product.n) + start;
    for (Int j = 0; j < wide; j += kLanes) scale_columns(from, factors, k, wide, j, scale, to, new_scale);
#else
    for (Int i = 0; i < k; i += Kind::kStep) Kind::scale_rows(from + i * wide, factors + i, to + i * wide, wide);
#endif
  }
}

// Rows of channels of m pixels as inputs of a product: as they are, or brought into `scratch`.
template <typename X>
static inline Inputs inputs(const X* x, Int ldx, Int m, Int k, float* scratch) {
  if constexpr (sizeof(X) == sizeof(T)) {
    return {x, ldx, nullptr};
  } else {
    const Int lda = round_up(k);
    T* a = reinterpret_cast<T*>(scratch);
#if defined(__AVX512VNNI__)
    float* scale = scratch + ceil_div(m * lda, 4);
    for (Int i = 0; i < m; ++i) scale[i] = Kind::quantise(x + i * ldx, k, a + i * lda);
    return {a, lda, scale};
#else
    for (Int i = 0; i < m; ++i) {
      Int j = 0;
      for (; j + kLanes <= k; j += kLanes) Kind::put(a + i * lda + j, load(x + i * ldx + j));
      if (j < k) Kind::put(a + i * lda + j, load_part(x + i * ldx + j, k - j));
    }
    return {a, lda, nullptr};
#endif
  }
}
// Floats of scratch that this needs
static inline Int room(Int m, Int k) {
  if (sizeof(T) == sizeof(float)) return 0;
  return ceil_div(m * round_up(k) * static_cast<Int>(sizeof(T)), 4) + (Kind::kScaled ? m : 0) + kSlack;
}

}  // namespace WIDEHRNET_VARIANT
}  // namespace widehrnet
