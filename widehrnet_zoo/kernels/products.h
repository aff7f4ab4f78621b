// Products over rows of channels, and a row of a depthwise convolution. Products run on panels of at most five vectors of
// output channels, so that a tile of five pixels stays in registers; they take float32 or, where the processor has the
// instruction, bfloat16 inputs, and always sum in float32.
#pragma once
#include <torch/extension.h>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace widehrnet {

constexpr int64_t kLanes = 16, kPanel = 5, kTile = 5;
typedef float Vec __attribute__((vector_size(64), aligned(4), may_alias));
typedef float HalfVec __attribute__((vector_size(32), aligned(4), may_alias));

inline Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
inline void store(float* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }
inline Vec relu(Vec v) {
  const Vec zero = {};
  return v > zero ? v : zero;
}
// The first n values, and zeros
inline Vec load_part(const float* p, int64_t n) {
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p);
#else
  Vec v = {};
  std::memcpy(&v, p, n * sizeof(float));
  return v;
#endif
}
inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Scratch memory that grows and is kept; on cache lines, since a load across two of them costs twice.
template <typename T>
class Scratch {
 public:
  T* get(int64_t size) {
    if (size > size_) {
      std::free(data_);
      data_ = static_cast<T*>(std::aligned_alloc(64, ceil_div(size * sizeof(T), 64) * 64));
      TORCH_CHECK(data_, "out of memory");
      size_ = size;
    }
    return data_;
  }
  ~Scratch() { std::free(data_); }

 private:
  T* data_ = nullptr;
  int64_t size_ = 0;
};

// Output channels of a product, cut into panels of nearly equal width. Panel p has vectors [first(p), first(p + 1)).
struct Panels {
  int64_t vectors, count;
  explicit Panels(int64_t n) : vectors(ceil_div(n, kLanes)), count(ceil_div(vectors, kPanel)) {}
  int64_t first(int64_t p) const { return vectors * p / count; }
  int64_t width() const { return vectors * kLanes; }
};

// How the two kinds of inputs are multiplied. `Step` values of k share one broadcast.
struct F32 {
  using T = float;
  static constexpr int64_t Step = 1;
  static Vec fma(const T* a, const T* b, Vec c) { return c + *a * load(b); }
  static HalfVec fma(const T* a, const T* b, HalfVec c) { return c + *a * *reinterpret_cast<const HalfVec*>(b); }
  static T convert(float v) { return v; }
  static void put(T* to, Vec v) { store(to, v); }
  // weights of `Step` rows and `wide` columns, times a factor per row
  static void scale(const T* from, const float* factors, T* to, int64_t wide) {
    for (int64_t j = 0; j < wide; ++j) to[j] = from[j] * factors[0];
  }
};
#if defined(__AVX512BF16__)
struct BF16 {
  using T = uint16_t;
  static constexpr int64_t Step = 2;
  static Vec fma(const T* a, const T* b, Vec c) {
    int32_t pair;
    std::memcpy(&pair, a, 4);
    return (Vec)_mm512_dpbf16_ps((__m512)c, (__m512bh)_mm512_set1_epi32(pair), (__m512bh)_mm512_loadu_si512(b));
  }
  static HalfVec fma(const T* a, const T* b, HalfVec c) {
    int32_t pair;
    std::memcpy(&pair, a, 4);
    const __m256i w = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b));
    return (HalfVec)_mm256_dpbf16_ps((__m256)c, (__m256bh)_mm256_set1_epi32(pair), (__m256bh)w);
  }
  static T convert(float v) {
    uint32_t bits;
    std::memcpy(&bits, &v, 4);
    return static_cast<T>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
  }
  static void put(T* to, Vec v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh((__m512)v));
  }
  static void scale(const T* from, const float* factors, T* to, int64_t wide) {
    const __m512 even = _mm512_set1_ps(factors[0]), odd = _mm512_set1_ps(factors[1]);
    for (int64_t j = 0; j < wide; j += kLanes) {
      const __m512i pairs = _mm512_loadu_si512(from + 2 * j);
      const __m512 low = _mm512_mul_ps((__m512)_mm512_slli_epi32(pairs, 16), even);
      const __m512 high = _mm512_mul_ps((__m512)_mm512_and_si512(pairs, _mm512_set1_epi32(-65536)), odd);
      const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(high, low);
      _mm512_storeu_si512(to + 2 * j, _mm512_permutexvar_epi16(_mm512_load_si512(kInterleave), both));
    }
  }
  alignas(64) static constexpr int16_t kInterleave[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                          8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
};
#endif

template <typename K>
int64_t padded(int64_t k) {
  return ceil_div(k, K::Step) * K::Step;
}

// The first n output channels of a vector: out = [out +] act(sums).
inline void finish_part(Vec sums, float* out, int64_t n, bool add, bool positive) {
#if defined(__AVX512F__)
  const __mmask16 here = static_cast<__mmask16>((1u << n) - 1);
  if (add) sums += (Vec)_mm512_maskz_loadu_ps(here, out);
  _mm512_mask_storeu_ps(out, here, (__m512)(positive ? relu(sums) : sums));
#else
  for (int64_t j = 0; j < n; ++j) {
    const float s = sums[j] + (add ? out[j] : 0.f);
    out[j] = positive ? std::max(0.f, s) : s;
  }
#endif
}

// One tile: R pixels by V vectors, and half a vector more if Half. c = [c +] a b + bias, with or without ReLU.
template <typename K, int R, int V, bool Half>
void tile(const typename K::T* a, int64_t lda, const typename K::T* b, int64_t k, const float* bias, float* c,
          int64_t ldc, int64_t n, bool add, bool positive) {
  constexpr int kWidth = V + Half;
  Vec sum[R][V ? V : 1];
  HalfVec half[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) sum[r][v] = load(bias + v * kLanes);
    if constexpr (Half) half[r] = *reinterpret_cast<const HalfVec*>(bias + V * kLanes);
  }
  for (int64_t i = 0; i < k; i += K::Step) {
    const auto* row = b + i * kWidth * kLanes;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sum[r][v] = K::fma(a + r * lda + i, row + v * kLanes * K::Step, sum[r][v]);
      if constexpr (Half) half[r] = K::fma(a + r * lda + i, row + V * kLanes * K::Step, half[r]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    float* out = c + r * ldc;
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      const int64_t left = n - v * kLanes;
      if (left >= kLanes) {
        Vec s = sum[r][v];
        if (add) s += load(out + v * kLanes);
        store(out + v * kLanes, positive ? relu(s) : s);
      } else {
        finish_part(sum[r][v], out + v * kLanes, left, add, positive);
      }
    }
    if constexpr (Half) {
      const HalfVec h = half[r];
      const Vec wide = {h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7]};
      finish_part(wide, out + V * kLanes, n - V * kLanes, add, positive);
    }
  }
}

template <typename K, int V, bool Half = false>
void strip(const typename K::T* a, int64_t lda, const typename K::T* b, int64_t k, const float* bias, float* c,
           int64_t ldc, int64_t m, int64_t n, bool add, bool positive) {
  if constexpr (!Half)
    if (n <= (V - 1) * kLanes + kLanes / 2)
      return strip<K, V - 1, true>(a, lda, b, k, bias, c, ldc, m, n, add, positive);
  // narrow panels take taller tiles, to have enough sums in flight
  constexpr int W = V + Half;
  constexpr int R = W <= 3 ? 8 : W == 4 ? 6 : kTile;
  int64_t i = 0;
  for (; i + R <= m; i += R) tile<K, R, V, Half>(a + i * lda, lda, b, k, bias, c + i * ldc, ldc, n, add, positive);
  for (; i < m; ++i) tile<K, 1, V, Half>(a + i * lda, lda, b, k, bias, c + i * ldc, ldc, n, add, positive);
}

// One panel of the product: m pixels, output channels from vector `first` on. `n` is the number of all outputs.
template <typename K>
void panel(const typename K::T* a, int64_t lda, const typename K::T* packed, int64_t k, const float* bias, float* c,
           int64_t ldc, int64_t m, int64_t n, const Panels& panels, int64_t p, bool add, bool positive) {
  const int64_t first = panels.first(p), vectors = panels.first(p + 1) - first, start = first * kLanes;
  const auto* b = packed + start * padded<K>(k);
  k = padded<K>(k);
  n -= start;
  bias += start;
  switch (vectors) {
    case 1: return strip<K, 1>(a, lda, b, k, bias, c, ldc, m, n, add, positive);
    case 2: return strip<K, 2>(a, lda, b, k, bias, c, ldc, m, n, add, positive);
    case 3: return strip<K, 3>(a, lda, b, k, bias, c, ldc, m, n, add, positive);
    case 4: return strip<K, 4>(a, lda, b, k, bias, c, ldc, m, n, add, positive);
    default: return strip<K, 5>(a, lda, b, k, bias, c, ldc, m, n, add, positive);
  }
}

// Weights of a product with a factor for each of its k inputs
template <typename K>
void scale(const typename K::T* packed, int64_t k, int64_t n, const float* factors, typename K::T* to) {
  const Panels panels(n);
  for (int64_t p = 0; p < panels.count; ++p) {
    const int64_t start = panels.first(p) * kLanes, wide = panels.first(p + 1) * kLanes - start;
    for (int64_t i = 0; i < padded<K>(k); i += K::Step) {
      const int64_t at = start * padded<K>(k) + i * wide;
      K::scale(packed + at, factors + i, to + at, wide);
    }
  }
}

template <typename K>
void product(const typename K::T* a, int64_t lda, const typename K::T* packed, int64_t k, const float* bias, float* c,
             int64_t ldc, int64_t m, int64_t n, bool add, bool positive) {
  const Panels panels(n);
  for (int64_t p = 0; p < panels.count; ++p)
    panel<K>(a, lda, packed, k, bias, c + panels.first(p) * kLanes, ldc, m, n, panels, p, add, positive);
}

// Rows of float32 as inputs of a product.
template <typename K>
const typename K::T* inputs(const float* x, int64_t ldx, int64_t m, int64_t k, int64_t& lda,
                            Scratch<typename K::T>& scratch) {
  if constexpr (K::Step == 1) {
    lda = ldx;
    return x;
  } else {
    lda = ceil_div(k, kLanes) * kLanes;
    auto* buffer = scratch.get(m * lda);
    for (int64_t i = 0; i < m; ++i) {
      int64_t j = 0;
      for (; j + kLanes <= k; j += kLanes) K::put(buffer + i * lda + j, load(x + i * ldx + j));
      if (j < k) K::put(buffer + i * lda + j, load_part(x + i * ldx + j, k - j));
    }
    return buffer;
  }
}

// A row of a depthwise 3x3: `rows` point at the pixel left of the first one. The sums are the
// inputs of a product.
template <typename K>
void depthwise_row(const float* const* rows, int64_t ldx, const float* weight, const float* bias, int64_t ldw,
                   typename K::T* out, int64_t ldo, int64_t width, int64_t stride, int64_t vectors, bool positive,
                   float* pooled) {
  for (int64_t v = 0; v < vectors; ++v) {
    const int64_t at = v * kLanes;
    Vec w[9];
    for (int i = 0; i < 9; ++i) w[i] = load(weight + i * ldw + at);
    const Vec start = load(bias + at);
    Vec total = {};
    for (int64_t x = 0; x < width; ++x) {
      Vec s = start;
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i) {
        const float* p = rows[i] + x * stride * ldx + at;
        s += w[3 * i] * load(p) + w[3 * i + 1] * load(p + ldx) + w[3 * i + 2] * load(p + 2 * ldx);
      }
      if (positive) s = relu(s);
      K::put(out + x * ldo + at, s);
      total += s;
    }
    if (pooled) store(pooled + at, load(pooled + at) + total);
  }
}

}  // namespace widehrnet
