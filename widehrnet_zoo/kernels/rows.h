// What the passes of a training step share. Activations and their gradients are float32 or bfloat16 and channels last in
// memory, that is rows of C channels, one row per pixel; N samples have M = N * P rows. Statistics, scales, gates and all
// arithmetic are float32.
#pragma once
#include <torch/extension.h>
#include <ATen/Parallel.h>

#include <vector>

namespace widehrnet {

using torch::Tensor;

// the rows written never overlap those read, or are the same element by element, which the compiler cannot know
#define VECTORISE _Pragma("GCC ivdep")

constexpr int64_t kBlock = 64;  // rows summed in float before they are added in double

// bfloat16 as the upper half of a float32, in integer operations that the compiler can vectorise
struct Half {
  uint16_t bits;
};

inline float load(const float& v) { return v; }
inline float load(const Half& v) {
  const uint32_t bits = static_cast<uint32_t>(v.bits) << 16;
  float f;
  __builtin_memcpy(&f, &bits, sizeof f);
  return f;
}
inline void store(float& to, float v) { to = v; }
inline void store(Half& to, float v) {
  uint32_t bits;
  __builtin_memcpy(&bits, &v, sizeof bits);
  to.bits = static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// Two values side by side; those of bfloat16 as one of 32 bits, which the compiler can vectorise
inline void store_pair(float* to, float a, float b) {
  to[0] = a;
  to[1] = b;
}
inline void store_pair(Half* to, Half a, float b) {
  Half half;
  store(half, b);
  const uint32_t both = a.bits | static_cast<uint32_t>(half.bits) << 16;
  __builtin_memcpy(to, &both, sizeof both);
}
inline void load_pair(const float* from, float& a, float& b) {
  a = from[0];
  b = from[1];
}
inline void load_pair(const Half* from, Half& a, Half& b) {
  uint32_t both;
  __builtin_memcpy(&both, from, sizeof both);
  a.bits = static_cast<uint16_t>(both);
  b.bits = static_cast<uint16_t>(both >> 16);
}

template <typename T>
T* data(const Tensor& x) {
  return static_cast<T*>(x.data_ptr());
}

inline Tensor rows_like(const Tensor& x, int64_t channels) {
  return torch::empty({x.size(0), channels, x.size(2), x.size(3)}, x.options(), at::MemoryFormat::ChannelsLast);
}

inline int64_t num_rows(const Tensor& x) { return x.size(0) * x.size(2) * x.size(3); }

inline void check(const Tensor& x) {
  TORCH_CHECK((x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16) &&
                  x.is_contiguous(at::MemoryFormat::ChannelsLast),
              "expected float32 or bfloat16, channels last");
}

inline void check_alike(const Tensor& a, const Tensor& b) {
  check(b);
  TORCH_CHECK(a.scalar_type() == b.scalar_type(), "expected one storage type");
}

// The sums of all threads into those of the first
inline void add_up(std::vector<std::vector<double>>& totals) {
  for (size_t t = 1; t < totals.size(); ++t)
    for (size_t i = 0; i < totals[0].size(); ++i) totals[0][i] += totals[t][i];
}

// Sum `count` quantities per channel over all rows. `body(row, sums)` adds one row to float sums of count * C.
template <typename F>
std::vector<double> reduce(int64_t rows, int64_t width, const F& body) {
  const int64_t threads = at::get_num_threads();
  std::vector<std::vector<double>> totals(threads, std::vector<double>(width, 0.));
  at::parallel_for(0, rows, std::max<int64_t>(1, (rows + threads - 1) / threads), [&](int64_t begin, int64_t end) {
    auto& total = totals[at::get_thread_num()];
    std::vector<float> partial(width);
    for (int64_t start = begin; start < end; start += kBlock) {
      std::fill(partial.begin(), partial.end(), 0.f);
      for (int64_t row = start; row < std::min(end, start + kBlock); ++row) body(row, partial.data());
      for (int64_t c = 0; c < width; ++c) total[c] += partial[c];
    }
  });
  add_up(totals);
  return totals[0];
}

template <typename F>
void each_row(int64_t rows, const F& body) {
  at::parallel_for(0, rows, 256, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) body(row);
  });
}

inline Tensor to_tensor(const double* values, int64_t n) {
  Tensor out = torch::empty({n}, torch::kFloat);
  float* o = out.data_ptr<float>();
  for (int64_t i = 0; i < n; ++i) o[i] = static_cast<float>(values[i]);
  return out;
}

// Count, sum and sum of squares of each channel about its value in the first row, for the rows that one thread sees
class Moments {
 public:
  template <typename T>
  void add(const T* rows, int64_t n, int64_t C) {
    if (!count_) {
      about_.resize(C);
      sums_.assign(2 * C, 0.);
      for (int64_t c = 0; c < C; ++c) about_[c] = load(rows[c]);
    }
    count_ += n;
    std::vector<float> partial(2 * C);
    const float* about = about_.data();
    for (int64_t start = 0; start < n; start += kBlock) {
      std::fill(partial.begin(), partial.end(), 0.f);
      float* s = partial.data();
      for (int64_t row = start; row < std::min(n, start + kBlock); ++row) {
        const T* r = rows + row * C;
        VECTORISE for (int64_t c = 0; c < C; ++c) {
          const float d = load(r[c]) - about[c];
          s[c] += d;
          s[C + c] += d * d;
        }
      }
      for (int64_t c = 0; c < 2 * C; ++c) sums_[c] += s[c];
    }
  }

  // Mean and biased variance of all rows: Chan, Golub and LeVeque, Algorithms for Computing the Sample Variance (1983),
  // equation 2.1
  static std::vector<Tensor> merge(const std::vector<Moments>& parts, int64_t C) {
    std::vector<double> mean(C, 0.), squares(C, 0.);
    int64_t count = 0;
    for (const Moments& part : parts) {
      if (!part.count_) continue;
      const double n = part.count_, all = count + n;
      for (int64_t c = 0; c < C; ++c) {
        const double m = part.sums_[c] / n, apart = part.about_[c] + m - mean[c];
        squares[c] += std::max(0., part.sums_[C + c] - n * m * m) + apart * apart * count * n / all;
        mean[c] += apart * n / all;
      }
      count += part.count_;
    }
    for (int64_t c = 0; c < C; ++c) squares[c] /= count;
    return {to_tensor(mean.data(), C), to_tensor(squares.data(), C)};
  }

 private:
  int64_t count_ = 0;
  std::vector<float> about_;
  std::vector<double> sums_;
};

}  // namespace widehrnet
