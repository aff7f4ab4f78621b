// Kernels of the deployed network on a CPU. Tensors are float32 with rows of channels, one row per pixel. Products run on
// panels of at most five vectors of output channels, so that a tile of five pixels stays in registers; they take float32
// or, where the processor has the instruction, bfloat16 inputs, and always sum in float32.
#include <ATen/Parallel.h>
#include <torch/extension.h>
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

using torch::Tensor;

namespace {

constexpr int64_t kLanes = 16, kPanel = 5, kTile = 5;
typedef float Vec __attribute__((vector_size(64), aligned(4), may_alias));

inline Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
inline void store(float* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }
inline Vec relu(Vec v) {
  const Vec zero = {};
  return v > zero ? v : zero;
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
  static T convert(float v) { return v; }
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
  static T convert(float v) {
    uint32_t bits;
    std::memcpy(&bits, &v, 4);
    return static_cast<T>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
  }
};
#endif

template <typename K>
int64_t padded(int64_t k) {
  return ceil_div(k, K::Step) * K::Step;
}

// One tile: R pixels by V vectors. c = [c +] a b + bias, with or without ReLU.
template <typename K, int R, int V>
void tile(const typename K::T* a, int64_t lda, const typename K::T* b, int64_t k, const float* bias, float* c,
          int64_t ldc, int64_t n, bool add, bool positive) {
  Vec sum[R][V];
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) {
    const Vec start = load(bias + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) sum[r][v] = start;
  }
  for (int64_t i = 0; i < k; i += K::Step) {
    const auto* row = b + i * V * kLanes;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sum[r][v] = K::fma(a + r * lda + i, row + v * kLanes * K::Step, sum[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      float* out = c + r * ldc + v * kLanes;
      const int64_t left = n - v * kLanes;
      if (left >= kLanes) {
        Vec s = sum[r][v];
        if (add) s += load(out);
        store(out, positive ? relu(s) : s);
      } else {
        float parts[kLanes];
        store(parts, sum[r][v]);
        for (int64_t j = 0; j < left; ++j) {
          const float s = parts[j] + (add ? out[j] : 0.f);
          out[j] = positive ? std::max(0.f, s) : s;
        }
      }
    }
  }
}

template <typename K, int V>
void strip(const typename K::T* a, int64_t lda, const typename K::T* b, int64_t k, const float* bias, float* c,
           int64_t ldc, int64_t m, int64_t n, bool add, bool positive) {
  // narrow panels take taller tiles, to have enough sums in flight
  constexpr int R = V == 1 ? 8 : V == 2 ? 8 : V == 3 ? 8 : V == 4 ? 6 : kTile;
  int64_t i = 0;
  for (; i + R <= m; i += R) tile<K, R, V>(a + i * lda, lda, b, k, bias, c + i * ldc, ldc, n, add, positive);
  for (; i < m; ++i) tile<K, 1, V>(a + i * lda, lda, b, k, bias, c + i * ldc, ldc, n, add, positive);
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

template <typename K>
void product(const typename K::T* a, int64_t lda, const typename K::T* packed, int64_t k, const float* bias, float* c,
             int64_t ldc, int64_t m, int64_t n, bool add, bool positive) {
  const Panels panels(n);
  for (int64_t p = 0; p < panels.count; ++p)
    panel<K>(a, lda, packed, k, bias, c + panels.first(p) * kLanes, ldc, m, n, panels, p, add, positive);
}

// Rows of float32 as inputs of a product, times a factor per channel if there is one.
template <typename K>
const typename K::T* inputs(const float* x, int64_t ldx, int64_t m, int64_t k, const float* gate, int64_t& lda,
                            Scratch<typename K::T>& scratch) {
  if constexpr (K::Step == 1) {
    if (!gate) {
      lda = ldx;
      return x;
    }
  }
  lda = padded<K>(k);
  auto* buffer = scratch.get(m * lda);
  for (int64_t i = 0; i < m; ++i) {
    const float* row = x + i * ldx;
    auto* out = buffer + i * lda;
    int64_t j = 0;
#if defined(__AVX512BF16__)
    if constexpr (K::Step == 2) {
      for (; j + kLanes <= k; j += kLanes) {
        Vec v = load(row + j);
        if (gate) v *= load(gate + j);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + j), (__m256i)_mm512_cvtneps_pbh((__m512)v));
      }
    }
#endif
    if (gate)
      for (; j < k; ++j) out[j] = K::convert(row[j] * gate[j]);
    else
      for (; j < k; ++j) out[j] = K::convert(row[j]);
    for (j = k; j < lda; ++j) out[j] = 0;
  }
  return buffer;
}

// A row of a depthwise 3x3: `above`, `here`, `below` point at the pixel left of the first one; vectors of channels.
inline void depthwise_row(const float* const* rows, int64_t ldx, const float* weight, const float* bias, int64_t ldw,
                          float* out, int64_t ldo, int64_t width, int64_t stride, int64_t vectors, bool positive,
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
      store(out + x * ldo + at, s);
      total += s;
    }
    if (pooled) store(pooled + at, load(pooled + at) + total);
  }
}

struct Product {
  int64_t k, n;
  const void* packed;
  const float* bias;
};

Product product_of(const Tensor& packed, const Tensor& bias, int64_t k, int64_t n) {
  TORCH_CHECK(bias.numel() == Panels(n).width(), "a bias must be padded");
  return {k, n, packed.data_ptr(), bias.data_ptr<float>()};
}

template <typename K>
const typename K::T* weights(const Product& p) {
  return static_cast<const typename K::T*>(p.packed);
}

void check(const Tensor& x) { TORCH_CHECK(x.scalar_type() == at::kFloat && x.is_contiguous(), "expected float32"); }

// y = act(W x + b), one row of outputs after the other
void gemv(const float* weight, const float* bias, const float* x, float* y, int64_t k, int64_t n, int64_t ld) {
  std::copy(bias, bias + ld, y);
  for (int64_t i = 0; i < k; ++i) {
    const Vec f = Vec{} + x[i];
    for (int64_t v = 0; v < ld; v += kLanes) store(y + v, load(y + v) + f * load(weight + i * ld + v));
  }
}

struct Squeeze {
  const float *w1 = nullptr, *b1 = nullptr, *w2 = nullptr, *b2 = nullptr;
  int64_t middle = 0, ld1 = 0, ld2 = 0;
};

template <typename K>
void block_image(float* x, int64_t H, int64_t W, int64_t C, int64_t start, const Product& expand, const float* dw,
                 const float* dw_bias, const Product& project, const Squeeze& se, float* y) {
  const Panels panels(expand.n);
  const int64_t ld = panels.width(), threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  const int64_t bands = panels.count % threads == 0 ? 1 : std::min(threads, H);
  std::vector<float> sums(bands * ld, 0.f);
  at::parallel_for(0, panels.count * bands, 1, [&](int64_t begin, int64_t end) {
    static thread_local Scratch<float> scratch;
    static thread_local Scratch<typename K::T> buffer;
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t p = unit % panels.count, band = unit / panels.count;
      const int64_t vectors = panels.first(p + 1) - panels.first(p), at = panels.first(p) * kLanes;
      const int64_t wide = vectors * kLanes, row = (W + 2) * wide;
      // three rows in turn and one of zeros; the pixels left and right of a row stay zero
      float* ring = scratch.get(4 * row);
      std::fill(ring, ring + 4 * row, 0.f);
      const int64_t top = H * band / bands, bottom = H * (band + 1) / bands;
      auto fill = [&](int64_t r) {
        if (r < 0 || r >= H) return;
        int64_t lda;
        const auto* a = inputs<K>(x + r * W * C + start, C, W, expand.k, nullptr, lda, buffer);
        panel<K>(a, lda, weights<K>(expand), expand.k, expand.bias, ring + (r % 3) * row + wide, wide, W,
                 panels.first(p + 1) * kLanes, panels, p, false, true);
      };
      fill(top - 1);
      fill(top);
      for (int64_t r = top; r < bottom; ++r) {
        fill(r + 1);
        const float* rows[3];
        for (int64_t i = 0; i < 3; ++i) {
          const int64_t from = r - 1 + i;
          rows[i] = ring + (from < 0 || from >= H ? 3 : from % 3) * row;
        }
        depthwise_row(rows, wide, dw + at, dw_bias + at, ld, y + r * W * ld + at, ld, W, 1, vectors, true,
                      se.w1 ? sums.data() + band * ld + at : nullptr);
      }
    }
  });
  std::vector<float> gate;
  if (se.w1) {
    for (int64_t b = 1; b < bands; ++b)
      for (int64_t c = 0; c < ld; ++c) sums[c] += sums[b * ld + c];
    for (int64_t c = 0; c < ld; ++c) sums[c] /= static_cast<float>(H * W);
    std::vector<float> middle(se.ld1);
    gate.resize(se.ld2);
    gemv(se.w1, se.b1, sums.data(), middle.data(), expand.n, se.middle, se.ld1);
    for (auto& v : middle) v = std::max(0.f, v);
    gemv(se.w2, se.b2, middle.data(), gate.data(), se.middle, expand.n, se.ld2);
    for (auto& v : gate) v = 1.f / (1.f + std::exp(-v));
  }
  at::parallel_for(0, H * W, 1 + H * W / (4 * threads), [&](int64_t begin, int64_t end) {
    static thread_local Scratch<typename K::T> buffer;
    constexpr int64_t kRows = 40;
    for (int64_t i = begin; i < end; i += kRows) {
      const int64_t m = std::min(kRows, end - i);
      int64_t lda;
      const auto* a = inputs<K>(y + i * ld, ld, m, project.k, se.w1 ? gate.data() : nullptr, lda, buffer);
      product<K>(a, lda, weights<K>(project), project.k, project.bias, x + i * C + start, C, m, project.n, true, false);
    }
  });
}

template <typename F>
void each_image(int64_t batch, const F& body) {
  if (batch >= at::get_num_threads())
    at::parallel_for(0, batch, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) body(b);
    });
  else
    for (int64_t b = 0; b < batch; ++b) body(b);
}

template <typename F>
void dispatch(bool bf16, const F& body) {
#if defined(__AVX512BF16__)
  if (bf16) return body(BF16{});
#endif
  TORCH_CHECK(!bf16, "no bfloat16 instructions here");
  body(F32{});
}

}  // namespace

bool has_bf16() {
#if defined(__AVX512BF16__)
  return true;
#else
  return false;
#endif
}

// Weights (k, n) of a product in the order in which the panels read them.
Tensor pack(const Tensor& weight, bool bf16) {
  check(weight);
  const int64_t k = weight.size(0), n = weight.size(1);
  const Panels panels(n);
  Tensor out;
  dispatch(bf16, [&](auto kind) {
    using K = decltype(kind);
    const int64_t kp = padded<K>(k);
    out = torch::zeros({panels.width() * kp}, torch::dtype(K::Step == 1 ? torch::kFloat : torch::kShort));
    auto* to = static_cast<typename K::T*>(out.data_ptr());
    const float* w = weight.data_ptr<float>();
    for (int64_t p = 0; p < panels.count; ++p) {
      const int64_t start = panels.first(p) * kLanes, wide = panels.first(p + 1) * kLanes - start;
      for (int64_t i = 0; i < k; ++i)
        for (int64_t j = 0; j < wide && start + j < n; ++j)
          to[start * kp + i / K::Step * K::Step * wide + j * K::Step + i % K::Step] = K::convert(w[i * n + start + j]);
    }
  });
  return out;
}

// A block, in place on channels [start, start + n) of x (B, H, W, C).
void block(Tensor x, int64_t start, const Tensor& expand, const Tensor& expand_bias, int64_t middle, const Tensor& dw,
           const Tensor& dw_bias, const Tensor& project, const Tensor& project_bias, int64_t half,
           const std::vector<Tensor>& squeeze, bool bf16) {
  check(x);
  const int64_t B = x.size(0), H = x.size(1), W = x.size(2), C = x.size(3);
  const Product e = product_of(expand, expand_bias, half, middle), p = product_of(project, project_bias, middle, half);
  Squeeze se;
  if (!squeeze.empty())
    se = {squeeze[0].data_ptr<float>(), squeeze[1].data_ptr<float>(), squeeze[2].data_ptr<float>(),
          squeeze[3].data_ptr<float>(), squeeze[2].size(0), squeeze[0].size(1), squeeze[2].size(1)};
  const int64_t ld = Panels(middle).width();
  dispatch(bf16, [&](auto kind) {
    each_image(B, [&](int64_t b) {
      static thread_local Scratch<float> y;
      block_image<decltype(kind)>(x.data_ptr<float>() + b * H * W * C, H, W, C, start, e, dw.data_ptr<float>(),
                                  dw_bias.data_ptr<float>(), p, se, y.get(H * W * ld));
    });
  });
}

// out = [out +] act(W x + b) over the rows of x (..., k)
void pointwise(const Tensor& x, const Tensor& packed, const Tensor& bias, int64_t n, Tensor out, bool add,
               bool positive, bool bf16) {
  check(x);
  check(out);
  const int64_t k = x.size(-1), rows = x.numel() / k;
  const Product p = product_of(packed, bias, k, n);
  dispatch(bf16, [&](auto kind) {
    using K = decltype(kind);
    at::parallel_for(0, rows, 40, [&](int64_t begin, int64_t end) {
      static thread_local Scratch<typename K::T> buffer;
      constexpr int64_t kRows = 40;
      for (int64_t i = begin; i < end; i += kRows) {
        const int64_t m = std::min(kRows, end - i);
        int64_t lda;
        const auto* a = inputs<K>(x.data_ptr<float>() + i * k, k, m, k, nullptr, lda, buffer);
        product<K>(a, lda, weights<K>(p), k, p.bias, out.data_ptr<float>() + i * n, n, m, n, add, positive);
      }
    });
  });
}

// Depthwise 3x3 and 1x1 in one pass: out = [out +] act(W dw(x) + b)
void separable(const Tensor& x, const Tensor& dw, const Tensor& dw_bias, int64_t stride, const Tensor& packed,
               const Tensor& bias, int64_t n, Tensor out, bool add, bool positive, bool bf16) {
  check(x);
  check(out);
  const int64_t H = x.size(1), W = x.size(2), C = x.size(3), h = out.size(1), w = out.size(2);
  const int64_t wide = Panels(C).width(), in_width = std::max(W + 2, (w - 1) * stride + 3);
  const Product p = product_of(packed, bias, C, n);
  dispatch(bf16, [&](auto kind) {
    using K = decltype(kind);
    at::parallel_for(0, x.size(0) * h, 1, [&](int64_t begin, int64_t end) {
      static thread_local Scratch<float> scratch, results;
      static thread_local Scratch<typename K::T> buffer;
      // rows are copied to have zeros beside them, and channels to whole vectors
      const int64_t row = in_width * wide;
      float *ring = scratch.get(4 * row), *middle = results.get(w * wide);
      std::fill(ring, ring + 4 * row, 0.f);
      int64_t held[3] = {-1, -1, -1};
      for (int64_t unit = begin; unit < end; ++unit) {
        const int64_t b = unit / h, r = unit % h;
        const float* rows[3];
        for (int64_t i = 0; i < 3; ++i) {
          const int64_t from = r * stride - 1 + i, slot = (from + 3) % 3, name = b * H + from;
          if (from < 0 || from >= H) {
            rows[i] = ring + 3 * row;
            continue;
          }
          float* to = ring + slot * row;
          if (held[slot] != name) {
            const float* pixels = x.data_ptr<float>() + name * W * C;
            for (int64_t j = 0; j < W; ++j) std::memcpy(to + (j + 1) * wide, pixels + j * C, C * sizeof(float));
            held[slot] = name;
          }
          rows[i] = to;
        }
        depthwise_row(rows, wide, dw.data_ptr<float>(), dw_bias.data_ptr<float>(), wide, middle, wide, w, stride,
                      wide / kLanes, false, nullptr);
        int64_t lda;
        const auto* a = inputs<K>(middle, wide, w, C, nullptr, lda, buffer);
        product<K>(a, lda, weights<K>(p), C, p.bias, out.data_ptr<float>() + unit * w * n, n, w, n, add, positive);
      }
    });
  });
}

// Add channels [start, start + C) of low (B, h, w, L) to x (B, 2h, 2w, C), each pixel four times; in place.
void add_upsampled(Tensor x, const Tensor& low, int64_t start) {
  check(x);
  check(low);
  const int64_t H = x.size(1), W = x.size(2), C = x.size(3), L = low.size(3);
  at::parallel_for(0, x.size(0) * H, 8, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float* to = x.data_ptr<float>() + r * W * C;
      const float* from = low.data_ptr<float>() + (r / H * (H / 2) + r % H / 2) * (W / 2) * L + start;
      for (int64_t j = 0; j < W; ++j)
        for (int64_t c = 0; c < C; ++c) to[j * C + c] += from[j / 2 * L + c];
    }
  });
}

// relu(x) with channels in another order
Tensor finish(const Tensor& x, const Tensor& gather) {
  check(x);
  const int64_t C = x.size(3), rows = x.numel() / C;
  const int64_t* order = gather.data_ptr<int64_t>();
  std::vector<int32_t> places(order, order + C);
  Tensor out = torch::empty_like(x);
  at::parallel_for(0, rows, 64, [&](int64_t begin, int64_t end) {
    const int32_t* at = places.data();
    for (int64_t r = begin; r < end; ++r) {
      const float* from = x.data_ptr<float>() + r * C;
      float* to = out.data_ptr<float>() + r * C;
#pragma GCC ivdep
      for (int64_t c = 0; c < C; ++c) to[c] = std::max(0.f, from[at[c]]);
    }
  });
  return out;
}

// The whole network as a list of steps on numbered slots, so that running it is one call.
class Program {
 public:
  using Slots = std::vector<Tensor>;

  void block(int64_t slot, int64_t start, Tensor expand, Tensor expand_bias, int64_t middle, Tensor dw, Tensor dw_bias,
             Tensor project, Tensor project_bias, int64_t half, std::vector<Tensor> squeeze, bool bf16) {
    add({slot}, [=](Slots& s) {
      ::block(s[slot], start, expand, expand_bias, middle, dw, dw_bias, project, project_bias, half, squeeze, bf16);
    });
  }
  int64_t stem(int64_t from, Tensor weight, Tensor bias) {
    const int64_t to = next();
    add({from, to}, [=](Slots& s) {
      const Tensor x = s[from].contiguous(at::MemoryFormat::ChannelsLast);
      s[to] = at::conv2d(x, weight, bias, 2, 1).relu_().permute({0, 2, 3, 1}).contiguous();
    });
    return to;
  }
  int64_t pointwise(int64_t from, Tensor packed, Tensor bias, int64_t n, bool positive, bool bf16) {
    const int64_t to = next();
    add({from, to}, [=](Slots& s) {
      const Tensor& x = s[from];
      s[to] = at::empty({x.size(0), x.size(1), x.size(2), n}, x.options());
      ::pointwise(x, packed, bias, n, s[to], false, positive, bf16);
    });
    return to;
  }
  int64_t separable(int64_t from, Tensor dw, Tensor dw_bias, int64_t stride, Tensor packed, Tensor bias, int64_t n,
                    int64_t into, bool positive, bool bf16) {
    const int64_t to = into < 0 ? next() : into;
    add({from, to}, [=](Slots& s) {
      const Tensor& x = s[from];
      if (into < 0)
        s[to] = at::empty({x.size(0), (x.size(1) - 1) / stride + 1, (x.size(2) - 1) / stride + 1, n}, x.options());
      ::separable(x, dw, dw_bias, stride, packed, bias, n, s[to], into >= 0, positive, bf16);
    });
    return to;
  }
  void add_upsampled(int64_t to, int64_t low, int64_t start) {
    add({to, low}, [=](Slots& s) { ::add_upsampled(s[to], s[low], start); });
  }
  void add_bilinear(int64_t to, int64_t low) {
    add({to, low}, [=](Slots& s) {
      Tensor& x = s[to];
      const Tensor up = at::upsample_bilinear2d(s[low].permute({0, 3, 1, 2}), {x.size(1), x.size(2)}, true);
      x.add_(up.permute({0, 2, 3, 1}));
    });
  }
  int64_t copy(int64_t from) {
    const int64_t to = next();
    add({from, to}, [=](Slots& s) { s[to] = s[from].clone(); });
    return to;
  }
  void add_bias(int64_t to, Tensor bias) {
    add({to}, [=](Slots& s) { s[to].add_(bias); });
  }
  void relu(int64_t to) {
    add({to}, [=](Slots& s) { s[to].relu_(); });
  }
  int64_t finish(int64_t from, Tensor gather) {
    const int64_t to = next();
    add({from, to}, [=](Slots& s) { s[to] = ::finish(s[from], gather); });
    return to;
  }
  int64_t gather(int64_t from, Tensor order) {
    const int64_t to = next();
    add({from, to}, [=](Slots& s) { s[to] = s[from].index_select(3, order); });
    return to;
  }
  Tensor run(const Tensor& x, int64_t result) const {
    torch::NoGradGuard guard;
    Slots slots(slots_);
    slots[0] = x;
    for (size_t i = 0; i < steps_.size(); ++i) {
      steps_[i](slots);
      // memory that was just read is what the next result should be written to
      for (int64_t slot : used_[i])
        if (last_use_[slot] == i && slot != result) slots[slot].reset();
    }
    return slots[result].permute({0, 3, 1, 2}).contiguous();
  }

 private:
  int64_t next() {
    last_use_.resize(slots_ + 1);
    return slots_++;
  }
  void add(std::vector<int64_t> used, std::function<void(Slots&)> step) {
    last_use_.resize(slots_);
    for (int64_t slot : used) last_use_[slot] = steps_.size();
    used_.push_back(std::move(used));
    steps_.push_back(std::move(step));
  }

  int64_t slots_ = 1;
  std::vector<std::function<void(Slots&)>> steps_;
  std::vector<std::vector<int64_t>> used_;  // slots of each step
  std::vector<size_t> last_use_;            // step of each slot
};

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("has_bf16", &has_bf16);
  m.def("pack", &pack);
  pybind11::class_<Program>(m, "Program")
      .def(pybind11::init<>())
      .def("block", &Program::block)
      .def("stem", &Program::stem)
      .def("pointwise", &Program::pointwise)
      .def("separable", &Program::separable)
      .def("add_upsampled", &Program::add_upsampled)
      .def("add_bilinear", &Program::add_bilinear)
      .def("copy", &Program::copy)
      .def("add_bias", &Program::add_bias)
      .def("relu", &Program::relu)
      .def("finish", &Program::finish)
      .def("gather", &Program::gather)
      .def("run", &Program::run, pybind11::call_guard<pybind11::gil_scoped_release>());
}
