// Depthwise 3x3 convolutions of a training step, forward and backward: between two norms, where what goes in and out is made
// from the stored activations row by row and never stored itself; and of stride 2.
#pragma once
#include "rows.h"

namespace widehrnet {

constexpr int64_t kLanes = 16;
typedef float Vec __attribute__((vector_size(64), may_alias));

// Memory for `n` float32, on cache lines
class Floats {
 public:
  explicit Floats(int64_t n) : lanes_(n / kLanes + 1, Lanes{}) {}
  float* data() { return reinterpret_cast<float*>(lanes_.data()); }

 private:
  struct Lanes {
    Vec v;
  };
  std::vector<Lanes> lanes_;
};

inline Vec& lanes(float* p) { return *reinterpret_cast<Vec*>(p); }
inline const Vec& lanes(const float* p) { return *reinterpret_cast<const Vec*>(p); }
inline int64_t whole_lanes(int64_t C) { return (C + kLanes - 1) / kLanes * kLanes; }

// Pixels of C channels to pixels of `wide` float32 and back
template <typename T>
void take(const T* from, int64_t pixels, int64_t C, float* to, int64_t wide) {
  for (int64_t p = 0; p < pixels; ++p, from += C, to += wide)
    VECTORISE for (int64_t c = 0; c < C; ++c) to[c] = load(from[c]);
}
template <typename T>
void put(const float* from, int64_t wide, T* to, int64_t pixels, int64_t C) {
  for (int64_t p = 0; p < pixels; ++p, from += wide, to += C)
    VECTORISE for (int64_t c = 0; c < C; ++c) store(to[c], from[c]);
}

// The last three rows of an image as float32, `wide` values a pixel (whole vectors, the rest zeros), with a pixel of
// zeros at both ends; rows outside the image are zeros.
class Window {
 public:
  Window(int64_t pixels, int64_t wide) : size_((pixels + 2) * wide), wide_(wide), values_(3 * size_) {}
  // row r from the pixel left of the first one
  float* row(int64_t r) { return values_.data() + (r + 3) % 3 * size_; }
  float* pixels(int64_t r) { return row(r) + wide_; }
  void clear(int64_t r) { std::fill_n(row(r), size_, 0.f); }
  // row r of an image of `height` rows: `fill` writes its pixels
  template <typename F>
  void enter(int64_t r, int64_t height, const F& fill) {
    if (r < 0 || r >= height)
      clear(r);
    else
      fill(pixels(r));
  }

 private:
  int64_t size_, wide_;
  Floats values_;
};

// Weights (C, 1, 3, 3) as nine rows of `wide` values
inline Floats taps(const Tensor& weight, int64_t wide) {
  Floats w(9 * wide);
  const float* from = data<float>(weight);
  for (int64_t c = 0; c < weight.size(0); ++c)
    for (int64_t i = 0; i < 9; ++i) w.data()[i * wide + c] = from[c * 9 + i];
  return w;
}

// Add up what the threads have; the nine rows of `wide` values from `start` on are the gradient of weights (C, 1, 3, 3)
inline Tensor weight_grad(std::vector<std::vector<double>>& totals, int64_t start, int64_t C, int64_t wide) {
  add_up(totals);
  Tensor dw = torch::empty({C, 1, 3, 3}, torch::kFloat);
  for (int64_t c = 0; c < C; ++c)
    for (int64_t i = 0; i < 9; ++i) data<float>(dw)[c * 9 + i] = static_cast<float>(totals[0][start + i * wide + c]);
  return dw;
}

// The depthwise convolution of relu(x * scale + shift), and mean and biased variance of its outputs
template <typename T>
std::vector<Tensor> depthwise(const Tensor& x, const Tensor& scale, const Tensor& shift, const Tensor& weight) {
  const int64_t N = x.size(0), C = x.size(1), H = x.size(2), W = x.size(3), wide = whole_lanes(C);
  Tensor y = rows_like(x, C);
  const T* in = data<T>(x);
  const float *s = data<float>(scale), *t = data<float>(shift);
  Floats weights = taps(weight, wide);
  const float* w = weights.data();
  T* out = data<T>(y);
  std::vector<Moments> moments(at::get_num_threads());
  at::parallel_for(0, N, 1, [&](int64_t begin, int64_t end) {
    Window window(W, wide);
    Floats sums(W * wide);
    for (int64_t n = begin; n < end; ++n) {
      const auto enter = [&](int64_t r) {
        window.enter(r, H, [&](float* to) {
          const T* from = in + (n * H + r) * W * C;
          for (int64_t p = 0; p < W; ++p, from += C, to += wide)
            VECTORISE for (int64_t c = 0; c < C; ++c) to[c] = std::max(0.f, load(from[c]) * s[c] + t[c]);
        });
      };
      enter(-1);
      enter(0);
      for (int64_t r = 0; r < H; ++r) {
        enter(r + 1);
        const float* near[3] = {window.row(r - 1), window.row(r), window.row(r + 1)};
        for (int64_t c = 0; c < wide; c += kLanes) {
          Vec tap[9];
          for (int i = 0; i < 9; ++i) tap[i] = lanes(w + i * wide + c);
          for (int64_t p = 0; p < W; ++p) {
            Vec part[3];
#pragma GCC unroll 3
            for (int i = 0; i < 3; ++i) {
              const float* q = near[i] + p * wide + c;
              part[i] = tap[3 * i] * lanes(q) + tap[3 * i + 1] * lanes(q + wide) + tap[3 * i + 2] * lanes(q + 2 * wide);
            }
            lanes(sums.data() + p * wide + c) = part[0] + part[1] + part[2];
          }
        }
        put(sums.data(), wide, out + (n * H + r) * W * C, W, C);
      }
      moments[at::get_thread_num()].add(out + n * H * W * C, H * W, C);
    }
  });
  auto stats = Moments::merge(moments, C);
  return {y, stats[0], stats[1]};
}

// Backward from the gradient dy after norm, ReLU and gate of y, the output of `depthwise` on x, to the gradient after the
// ReLU of x. The gradient of y is scale * v + a + b * y, where v is dy * gate + pool with ReLU's zeros. Returns v of x,
// its sums of v and v * (x - mean) (2, C), and the gradient of the weights.
template <typename T>
std::vector<Tensor> depthwise_backward(const Tensor& dy, const Tensor& y, const Tensor& y_scale, const Tensor& y_shift,
                                       const Tensor& a, const Tensor& b, const Tensor& gate, const Tensor& pool,
                                       const Tensor& x, const Tensor& mean, const Tensor& scale, const Tensor& shift,
                                       const Tensor& weight) {
  check_alike(dy, y);
  check_alike(dy, x);
  const int64_t N = x.size(0), C = x.size(1), H = x.size(2), W = x.size(3), wide = whole_lanes(C);
  Tensor dx = rows_like(x, C);
  const T *grad = data<T>(dy), *outputs = data<T>(y), *in = data<T>(x);
  const float *ys = data<float>(y_scale), *yt = data<float>(y_shift), *ya = data<float>(a), *yb = data<float>(b);
  const float *mu = data<float>(mean), *s = data<float>(scale), *t = data<float>(shift);
  const bool gated = gate.numel() > 0;
  Floats weights = taps(weight, wide);
  const float* w = weights.data();
  T* to = data<T>(dx);
  // per thread: sums of v and v * (x - mean), and the gradients of nine rows of weights
  const int64_t width = 2 * C + 9 * wide;
  std::vector<std::vector<double>> totals(at::get_num_threads(), std::vector<double>(width, 0.));
  at::parallel_for(0, N, 1, [&](int64_t begin, int64_t end) {
    Window window(W, wide);
    Floats inputs(W * wide), sums(W * wide), dweight(9 * wide);
    std::vector<float> dnorm(2 * C);
    auto& total = totals[at::get_thread_num()];
    for (int64_t n = begin; n < end; ++n) {
      const float *g = gated ? data<float>(gate) + n * C : nullptr, *q = gated ? data<float>(pool) + n * C : nullptr;
      const auto enter = [&](int64_t r) {
        window.enter(r, H, [&](float* o) {
          const T *d = grad + (n * H + r) * W * C, *h = outputs + (n * H + r) * W * C;
          for (int64_t p = 0; p < W; ++p, d += C, h += C, o += wide) {
            if (gated)
              VECTORISE for (int64_t c = 0; c < C; ++c) {
                const float z = load(h[c]), u = load(d[c]) * g[c] + q[c], v = z * ys[c] + yt[c] > 0.f ? u : 0.f;
                o[c] = ys[c] * v + ya[c] + yb[c] * z;
              }
            else
              VECTORISE for (int64_t c = 0; c < C; ++c) {
                const float z = load(h[c]), u = load(d[c]), v = z * ys[c] + yt[c] > 0.f ? u : 0.f;
                o[c] = ys[c] * v + ya[c] + yb[c] * z;
              }
          }
        });
      };
      enter(-1);
      enter(0);
      for (int64_t r = 0; r < H; ++r) {
        enter(r + 1);
        const T* from = in + (n * H + r) * W * C;
        float* act = inputs.data();
        for (int64_t p = 0; p < W; ++p)
          VECTORISE for (int64_t c = 0; c < C; ++c)
            act[p * wide + c] = std::max(0.f, load(from[p * C + c]) * s[c] + t[c]);
        // an input meets the weight of tap (i, j) in the output one row and column further on, less (i, j)
        const float* near[3] = {window.row(r + 1), window.row(r), window.row(r - 1)};
        for (int64_t c = 0; c < wide; c += kLanes) {
          Vec tap[9], part[9];
          for (int i = 0; i < 9; ++i) {
            tap[i] = lanes(w + i * wide + c);
            part[i] = lanes(dweight.data() + i * wide + c);
          }
          for (int64_t p = 0; p < W; ++p) {
            const Vec value = lanes(act + p * wide + c);
            Vec sum = {};
#pragma GCC unroll 3
            for (int i = 0; i < 3; ++i)
#pragma GCC unroll 3
              for (int j = 0; j < 3; ++j) {
                const Vec d = lanes(near[i] + (p + 2 - j) * wide + c);
                sum += tap[3 * i + j] * d;
                part[3 * i + j] += value * d;
              }
            lanes(sums.data() + p * wide + c) = sum;
          }
          for (int i = 0; i < 9; ++i) lanes(dweight.data() + i * wide + c) = part[i];
        }
        T* o = to + (n * H + r) * W * C;
        const float* d = sums.data();
        std::fill(dnorm.begin(), dnorm.end(), 0.f);
        float* acc = dnorm.data();
        for (int64_t p = 0; p < W; ++p, from += C, o += C, d += wide, act += wide)
          VECTORISE for (int64_t c = 0; c < C; ++c) {
            const float v = act[c] > 0.f ? d[c] : 0.f;
            store(o[c], v);
            acc[c] += v;
            acc[C + c] += v * (load(from[c]) - mu[c]);
          }
        for (int64_t c = 0; c < 2 * C; ++c) total[c] += acc[c];
      }
      for (int64_t i = 0; i < 9 * wide; ++i) total[2 * C + i] += dweight.data()[i];
      std::fill_n(dweight.data(), 9 * wide, 0.f);
    }
  });
  Tensor dw = weight_grad(totals, 2 * C, C, wide);
  return {dx, to_tensor(totals[0].data(), 2 * C).view({2, C}), dw};
}

// A depthwise 3x3 of stride 2 with a border of one pixel
template <typename T>
Tensor depthwise_strided(const Tensor& x, const Tensor& weight) {
  const int64_t N = x.size(0), C = x.size(1), H = x.size(2), W = x.size(3), wide = whole_lanes(C);
  const int64_t P = (H + 1) / 2, Q = (W + 1) / 2;
  Tensor y = torch::empty({N, C, P, Q}, x.options(), at::MemoryFormat::ChannelsLast);
  const T* in = data<T>(x);
  T* out = data<T>(y);
  Floats weights = taps(weight, wide);
  const float* w = weights.data();
  at::parallel_for(0, N, 1, [&](int64_t begin, int64_t end) {
    Window window(W, wide);
    Floats sums(Q * wide);
    for (int64_t n = begin; n < end; ++n)
      for (int64_t r = 0; r < P; ++r) {
        for (int64_t i = r ? 2 * r : -1; i <= 2 * r + 1; ++i)
          window.enter(i, H, [&](float* to) { take(in + (n * H + i) * W * C, W, C, to, wide); });
        const float* near[3] = {window.row(2 * r - 1), window.row(2 * r), window.row(2 * r + 1)};
        for (int64_t c = 0; c < wide; c += kLanes) {
          Vec tap[9];
          for (int i = 0; i < 9; ++i) tap[i] = lanes(w + i * wide + c);
          for (int64_t q = 0; q < Q; ++q) {
            Vec sum = {};
#pragma GCC unroll 9
            for (int i = 0; i < 9; ++i) sum += tap[i] * lanes(near[i / 3] + (2 * q + i % 3) * wide + c);
            lanes(sums.data() + q * wide + c) = sum;
          }
        }
        put(sums.data(), wide, out + (n * P + r) * Q * C, Q, C);
      }
  });
  return y;
}

// The gradients of its inputs and weights
template <typename T>
std::vector<Tensor> depthwise_strided_backward(const Tensor& dy, const Tensor& x, const Tensor& weight) {
  check_alike(dy, x);
  const int64_t N = x.size(0), C = x.size(1), H = x.size(2), W = x.size(3), wide = whole_lanes(C);
  const int64_t P = dy.size(2), Q = dy.size(3);
  Tensor dx = rows_like(x, C);
  const T *in = data<T>(x), *grad = data<T>(dy);
  T* out = data<T>(dx);
  Floats weights = taps(weight, wide);
  const float* w = weights.data();
  std::vector<std::vector<double>> totals(at::get_num_threads(), std::vector<double>(9 * wide, 0.));
  at::parallel_for(0, N, 1, [&](int64_t begin, int64_t end) {
    Window inputs(W, wide), sums(W, wide);
    Floats row(Q * wide), dweight(9 * wide);
    auto& total = totals[at::get_thread_num()];
    for (int64_t n = begin; n < end; ++n) {
      sums.clear(-1);
      for (int64_t r = 0; r < P; ++r) {
        for (int64_t i = r ? 2 * r : -1; i <= 2 * r + 1; ++i)
          inputs.enter(i, H, [&](float* to) { take(in + (n * H + i) * W * C, W, C, to, wide); });
        sums.clear(2 * r);
        sums.clear(2 * r + 1);
        take(grad + (n * P + r) * Q * C, Q, C, row.data(), wide);
        const float* near[3] = {inputs.row(2 * r - 1), inputs.row(2 * r), inputs.row(2 * r + 1)};
        float* to[3] = {sums.row(2 * r - 1), sums.row(2 * r), sums.row(2 * r + 1)};
        for (int64_t c = 0; c < wide; c += kLanes) {
          Vec tap[9], part[9];
          for (int i = 0; i < 9; ++i) {
            tap[i] = lanes(w + i * wide + c);
            part[i] = lanes(dweight.data() + i * wide + c);
          }
          for (int64_t q = 0; q < Q; ++q) {
            const Vec d = lanes(row.data() + q * wide + c);
#pragma GCC unroll 9
            for (int i = 0; i < 9; ++i) {
              const int64_t at = (2 * q + i % 3) * wide + c;
              part[i] += d * lanes(near[i / 3] + at);
              lanes(to[i / 3] + at) += d * tap[i];
            }
          }
          for (int i = 0; i < 9; ++i) lanes(dweight.data() + i * wide + c) = part[i];
        }
        // the row after these two still gets its share from the next output row
        const int64_t last = r + 1 < P ? 2 * r : H - 1;
        for (int64_t i = std::max<int64_t>(0, 2 * r - 1); i <= last; ++i)
          put(sums.pixels(i), wide, out + (n * H + i) * W * C, W, C);
      }
      for (int64_t i = 0; i < 9 * wide; ++i) total[i] += dweight.data()[i];
      std::fill_n(dweight.data(), 9 * wide, 0.f);
    }
  });
  return {dx, weight_grad(totals, 0, C, wide)};
}

}  // namespace widehrnet
