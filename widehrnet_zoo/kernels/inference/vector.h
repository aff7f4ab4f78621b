// Vectors of floats on the processor that this file is compiled for, and the kinds of inputs of products.
// Everything is static: the variants are linked into one library, where inline functions of the same name would be one.
#pragma once
#include <string.h>

#include "step.h"
#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#elif defined(__wasm_simd128__)
#include <wasm_simd128.h>
#endif

namespace widehrnet {
namespace WIDEHRNET_VARIANT {

#if defined(__AVX512F__)
constexpr Int kLanes = 16;
#elif defined(__AVX__)
constexpr Int kLanes = 8;
#else
constexpr Int kLanes = 4;
#endif
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr Int kPanel = 5;  // vectors of outputs at most; with the sums below they fill 32 registers
constexpr int rows_of(int vectors) { return vectors <= 3 ? 8 : vectors == 4 ? 6 : 5; }
#elif defined(__wasm__)
constexpr Int kPanel = 2;  // browsers keep the sums in registers only where there are few
constexpr int rows_of(int vectors) { return vectors <= 1 ? 6 : 4; }
#else
constexpr Int kPanel = 3;  // 16 registers
constexpr int rows_of(int vectors) { return vectors <= 1 ? 8 : vectors == 2 ? 6 : 4; }
#endif

typedef float Vec __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
typedef float HalfVec __attribute__((vector_size(2 * kLanes), aligned(4), may_alias));

// What a function is handed over, as a copy that stays in registers: for all that the compiler knows, what is stored might lie
// in the original. Browsers' compilers do worse with copies.
#if defined(__wasm__)
template <typename S>
using Held = const S&;
#else
template <typename S>
using Held = const S;
#endif

static inline Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
static inline void store(float* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }
static inline Vec spread(float x) { return Vec{} + x; }

// NaN stays NaN, so that damaged weights can be seen in the heatmaps
static inline Vec relu(Vec v) {
#if defined(__AVX512F__)
  return (Vec)_mm512_max_ps(_mm512_setzero_ps(), (__m512)v);
#elif defined(__AVX__)
  return (Vec)_mm256_max_ps(_mm256_setzero_ps(), (__m256)v);
#elif defined(__SSE2__)
  return (Vec)_mm_max_ps(_mm_setzero_ps(), (__m128)v);
#elif defined(__aarch64__)
  return (Vec)vmaxq_f32((float32x4_t)v, vdupq_n_f32(0));
#elif defined(__wasm_simd128__)
  return (Vec)wasm_f32x4_pmax((v128_t)v, wasm_f32x4_const_splat(0));
#else
  for (Int i = 0; i < kLanes; ++i) v[i] = v[i] < 0 ? 0 : v[i];
  return v;
#endif
}

#if defined(__AVX512F__)
static inline __mmask16 lanes(Int n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : static_cast<__mmask16>((1u << n) - 1); }
#endif

// The first n values, and zeros
static inline Vec load_part(const float* p, Int n) {
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_loadu_ps(lanes(n), p);
#else
  float part[kLanes] = {};
  memcpy(part, p, n * sizeof(float));
  return load(part);
#endif
}

static inline void store_part(float* p, Vec v, Int n) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, lanes(n), (__m512)v);
#else
  float part[kLanes];
  store(part, v);
  memcpy(p, part, n * sizeof(float));
#endif
}

static inline HalfVec load_half(const float* p) { return *reinterpret_cast<const HalfVec*>(p); }
static inline Vec widen(HalfVec h) {
  Vec v = {};
  memcpy(&v, &h, sizeof h);
  return v;
}

static inline Int round_up(Int n) { return ceil_div(n, kLanes) * kLanes; }

// What the sums of a panel of outputs begin with and are multiplied with.
struct Ends {
  const float* bias;
  const float* scale;   // of integers: for each output
  const int32_t* zero;  // of integers: makes up for inputs that are stored with 128 added
};

// float32 sums begin with the bias, and need nothing more.
struct FloatSums {
  typedef Vec Sum;
  typedef HalfVec HalfSum;
  static constexpr bool kScaled = false;
  static inline Sum begin(const Ends& ends, Int at, bool) { return load(ends.bias + at); }
  static inline HalfSum begin_half(const Ends& ends, Int at, bool) { return load_half(ends.bias + at); }
  static inline Vec end(Sum sum, const Ends&, Int, float) { return sum; }
  static inline Vec end_half(HalfSum sum, const Ends&, Int, float) { return widen(sum); }
};

// float32 inputs. `kStep` values of k share one broadcast.
struct F32 : FloatSums {
  typedef float T;
  static constexpr Int kStep = 1;
  static inline Vec fma(const T* a, const T* b, Vec c) { return c + *a * load(b); }
  static inline HalfVec fma(const T* a, const T* b, HalfVec c) { return c + *a * load_half(b); }
  static inline T convert(float v) { return v; }
  static inline void put(T* to, Vec v) { store(to, v); }
  // weights of kStep rows and `wide` columns, times a factor per row
  static inline void scale_rows(const T* from, const float* factors, T* to, Int wide) {
    for (Int j = 0; j < wide; j += kLanes) store(to + j, load(from + j) * factors[0]);
  }
  static inline void scale(T* values, const float* factors) { store(values, load(values) * load(factors)); }
};

#if defined(__AVX512VNNI__)
// 8-bit inputs, int32 sums. Inputs of a product are either not negative and in 0..255 as they are, as the program has
// scaled them, or have a scale for each pixel and 128 added.
struct I8 {
  typedef uint8_t T;
  typedef int32_t Sum __attribute__((vector_size(64), aligned(4), may_alias));
  typedef int32_t HalfSum __attribute__((vector_size(32), aligned(4), may_alias));
  static constexpr Int kStep = 4;
  static constexpr bool kScaled = true;
  static inline Sum begin(const Ends& ends, Int at, bool shifted) {
    return shifted ? *reinterpret_cast<const Sum*>(ends.zero + at) : Sum{};
  }
  static inline HalfSum begin_half(const Ends& ends, Int at, bool shifted) {
    return shifted ? *reinterpret_cast<const HalfSum*>(ends.zero + at) : HalfSum{};
  }
  static inline Vec end(Sum sum, const Ends& ends, Int at, float scale) {
    return load(ends.bias + at) + __builtin_convertvector(sum, Vec) * (load(ends.scale + at) * scale);
  }
  static inline Vec end_half(HalfSum sum, const Ends& ends, Int at, float scale) {
    const HalfVec v = __builtin_convertvector(sum, HalfVec);
    return widen(load_half(ends.bias + at) + v * (load_half(ends.scale + at) * scale));
  }
  static inline Sum fma(const T* a, const T* b, Sum c) {
    int32_t four;
    memcpy(&four, a, 4);
    return (Sum)_mm512_dpbusd_epi32((__m512i)c, _mm512_set1_epi32(four), _mm512_loadu_si512(b));
  }
  static inline HalfSum fma(const T* a, const T* b, HalfSum c) {
    int32_t four;
    memcpy(&four, a, 4);
    const __m256i w = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b));
    return (HalfSum)_mm256_dpbusd_epi32((__m256i)c, _mm256_set1_epi32(four), w);
  }
  static inline void put(T* to, Vec v) {
    const __m512i rounded = _mm512_cvtps_epi32((__m512)v);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtusepi32_epi8(rounded));
  }
  static inline void scale(T* values, const float* factors) {
    const __m128i few = _mm_loadu_si128(reinterpret_cast<const __m128i*>(values));
    put(values, (Vec)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(few)) * load(factors));
  }
  // A pixel's k channels between -127 and 127, with 128 added; returns the scale. NaN and infinity give no number.
  static inline float quantise(const float* x, Int k, T* to) {
    // as whole numbers positive floats have the same order, and NaN is above all
    __m512i most = _mm512_setzero_si512();
    Int j = 0;
    for (; j + kLanes <= k; j += kLanes) most = _mm512_max_epi32(most, bits_of_size(load(x + j)));
    if (j < k) most = _mm512_max_epi32(most, bits_of_size(load_part(x + j, k - j)));
    const int32_t bits = _mm512_reduce_max_epi32(most);
    float largest;
    memcpy(&largest, &bits, 4);
    const __m512 factor = _mm512_set1_ps(largest > 1e-30f && largest < 1e30f ? 127.f / largest : 0.f);
    // where all bits behind the point are used up, the last byte is the whole number
    const __m512 up = _mm512_set1_ps(12582912.f + 128.f);
    for (j = 0; j < k; j += kLanes) {
      const __m512 v = (__m512)(j + kLanes <= k ? load(x + j) : load_part(x + j, k - j));
      const __m512i whole = (__m512i)_mm512_fmadd_ps(v, factor, up);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + j), _mm512_cvtepi32_epi8(whole));
    }
    return largest / 127.f;
  }

 private:
  static inline __m512i bits_of_size(Vec v) { return _mm512_and_si512((__m512i)v, _mm512_set1_epi32(0x7fffffff)); }
};
typedef I8 Kind;
#elif defined(__AVX512BF16__)
// bfloat16 inputs, float32 sums
struct BF16 : FloatSums {
  typedef uint16_t T;
  static constexpr Int kStep = 2;
  static inline Vec fma(const T* a, const T* b, Vec c) {
    int32_t pair;
    memcpy(&pair, a, 4);
    return (Vec)_mm512_dpbf16_ps((__m512)c, (__m512bh)_mm512_set1_epi32(pair), (__m512bh)_mm512_loadu_si512(b));
  }
  static inline HalfVec fma(const T* a, const T* b, HalfVec c) {
    int32_t pair;
    memcpy(&pair, a, 4);
    const __m256i w = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b));
    return (HalfVec)_mm256_dpbf16_ps((__m256)c, (__m256bh)_mm256_set1_epi32(pair), (__m256bh)w);
  }
  static inline T convert(float v) {
    uint32_t bits;
    memcpy(&bits, &v, 4);
    return static_cast<T>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
  }
  static inline void put(T* to, Vec v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh((__m512)v));
  }
  static inline void scale_rows(const T* from, const float* factors, T* to, Int wide) {
    alignas(64) static const int16_t kInterleave[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512 even = _mm512_set1_ps(factors[0]), odd = _mm512_set1_ps(factors[1]);
    for (Int j = 0; j < wide; j += kLanes) {
      const __m512i pairs = _mm512_loadu_si512(from + 2 * j);
      const __m512 low = _mm512_mul_ps((__m512)_mm512_slli_epi32(pairs, 16), even);
      const __m512 high = _mm512_mul_ps((__m512)_mm512_and_si512(pairs, _mm512_set1_epi32(-65536)), odd);
      const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(high, low);
      _mm512_storeu_si512(to + 2 * j, _mm512_permutexvar_epi16(_mm512_load_si512(kInterleave), both));
    }
  }
  static inline void scale(T* values, const float* factors) {
    const __m256i few = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values));
    put(values, (Vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32(few), 16) * load(factors));
  }
};
typedef BF16 Kind;
#else
typedef F32 Kind;
#endif

}  // namespace WIDEHRNET_VARIANT
}  // namespace widehrnet
