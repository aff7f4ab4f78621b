// Fused passes of a training step on the CPU. Activations and their gradients are float32 or bfloat16 and channels last in
// memory, that is rows of C channels, one row per pixel; N samples have M = N * P rows. Statistics, scales, gates and all
// arithmetic are float32. Batch norm in training needs the statistics of the whole batch, so each norm costs one pass to
// sum and one to apply; everything element-wise around it rides on these passes.
#include <torch/extension.h>
#include <ATen/Parallel.h>

#include <vector>

using torch::Tensor;

namespace {

// the rows written never overlap those read, which the compiler cannot know
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

template <typename T>
T* data(const Tensor& x) {
  return static_cast<T*>(x.data_ptr());
}

Tensor rows_like(const Tensor& x, int64_t channels) {
  return torch::empty({x.size(0), channels, x.size(2), x.size(3)}, x.options(), at::MemoryFormat::ChannelsLast);
}

int64_t num_rows(const Tensor& x) { return x.size(0) * x.size(2) * x.size(3); }

void check(const Tensor& x) {
  TORCH_CHECK((x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16) &&
                  x.is_contiguous(at::MemoryFormat::ChannelsLast),
              "expected float32 or bfloat16, channels last");
}

void check_alike(const Tensor& a, const Tensor& b) {
  check(b);
  TORCH_CHECK(a.scalar_type() == b.scalar_type(), "expected one storage type");
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
  for (size_t t = 1; t < totals.size(); ++t)
    for (int64_t c = 0; c < width; ++c) totals[0][c] += totals[t][c];
  return totals[0];
}

template <typename F>
void each_row(int64_t rows, const F& body) {
  at::parallel_for(0, rows, 256, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) body(row);
  });
}

Tensor to_tensor(const double* values, int64_t n) {
  Tensor out = torch::empty({n}, torch::kFloat);
  float* o = out.data_ptr<float>();
  for (int64_t i = 0; i < n; ++i) o[i] = static_cast<float>(values[i]);
  return out;
}

}  // namespace

// Mean and biased variance per channel. Sums are taken about the first row, against cancellation.
template <typename T>
std::vector<Tensor> bn_stats(const Tensor& x) {
  const int64_t C = x.size(1), M = num_rows(x);
  const T* in = data<T>(x);
  auto sums = reduce(M, 2 * C, [&](int64_t row, float* s) {
    const T* r = in + row * C;
    VECTORISE for (int64_t c = 0; c < C; ++c) {
      const float d = load(r[c]) - load(in[c]);
      s[c] += d;
      s[C + c] += d * d;
    }
  });
  std::vector<double> mean(C), var(C);
  for (int64_t c = 0; c < C; ++c) {
    const double m = sums[c] / M;
    mean[c] = m + load(in[c]);
    var[c] = std::max(0., sums[C + c] / M - m * m);
  }
  return {to_tensor(mean.data(), C), to_tensor(var.data(), C)};
}

// y = act(x * scale + shift)
template <typename T>
Tensor affine(const Tensor& x, const Tensor& scale, const Tensor& shift, bool relu) {
  const int64_t C = x.size(1), M = num_rows(x);
  Tensor y = rows_like(x, C);
  const T* in = data<T>(x);
  const float *s = data<float>(scale), *t = data<float>(shift);
  T* out = data<T>(y);
  each_row(M, [&](int64_t row) {
    const T* r = in + row * C;
    T* o = out + row * C;
    if (relu)
      VECTORISE for (int64_t c = 0; c < C; ++c) store(o[c], std::max(0.f, load(r[c]) * s[c] + t[c]));
    else
      VECTORISE for (int64_t c = 0; c < C; ++c) store(o[c], load(r[c]) * s[c] + t[c]);
  });
  return y;
}

// Per sample and channel, the mean over pixels of relu(x * scale + shift): (N, C)
template <typename T>
Tensor affine_pool(const Tensor& x, const Tensor& scale, const Tensor& shift) {
  const int64_t N = x.size(0), C = x.size(1), P = x.size(2) * x.size(3);
  Tensor pooled = torch::zeros({N, C}, x.options().dtype(at::kFloat));
  const T* in = data<T>(x);
  const float *s = data<float>(scale), *t = data<float>(shift);
  float* out = data<float>(pooled);
  at::parallel_for(0, N, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      float* o = out + n * C;
      for (int64_t p = 0; p < P; ++p) {
        const T* r = in + (n * P + p) * C;
        VECTORISE for (int64_t c = 0; c < C; ++c) o[c] += std::max(0.f, load(r[c]) * s[c] + t[c]);
      }
      VECTORISE for (int64_t c = 0; c < C; ++c) o[c] /= P;
    }
  });
  return pooled;
}

// y = relu(x * scale + shift) * gate, gate (N, C)
template <typename T>
Tensor affine_gate(const Tensor& x, const Tensor& scale, const Tensor& shift, const Tensor& gate) {
  const int64_t C = x.size(1), P = x.size(2) * x.size(3), M = num_rows(x);
  Tensor y = rows_like(x, C);
  const T* in = data<T>(x);
  const float *s = data<float>(scale), *t = data<float>(shift), *g = data<float>(gate);
  T* out = data<T>(y);
  each_row(M, [&](int64_t row) {
    const T* r = in + row * C;
    const float* gn = g + row / P * C;
    T* o = out + row * C;
    VECTORISE for (int64_t c = 0; c < C; ++c) store(o[c], std::max(0.f, load(r[c]) * s[c] + t[c]) * gn[c]);
  });
  return y;
}

// d_gate (N, C): sum over pixels of dy * relu(x * scale + shift)
template <typename T>
Tensor gate_backward(const Tensor& dy, const Tensor& x, const Tensor& scale, const Tensor& shift) {
  check_alike(dy, x);
  const int64_t N = x.size(0), C = x.size(1), P = x.size(2) * x.size(3);
  Tensor dgate = torch::zeros({N, C}, x.options().dtype(at::kFloat));
  const T *in = data<T>(x), *d = data<T>(dy);
  const float *s = data<float>(scale), *t = data<float>(shift);
  float* out = data<float>(dgate);
  at::parallel_for(0, N, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      float* o = out + n * C;
      for (int64_t p = 0; p < P; ++p) {
        const int64_t at = (n * P + p) * C;
        VECTORISE for (int64_t c = 0; c < C; ++c)
          o[c] += load(d[at + c]) * std::max(0.f, load(in[at + c]) * s[c] + t[c]);
      }
    }
  });
  return dgate;
}

// Backward of relu(batch_norm(x)), optionally followed by the gate: dy is the gradient after it, and `pool` (N, C) the
// gradient of the pooled mean. Returns dx, and the sums that are the gradients of gamma and beta.
template <typename T>
std::vector<Tensor> bn_backward(const Tensor& dy, const Tensor& x, const Tensor& mean, const Tensor& invstd,
                                const Tensor& scale, const Tensor& shift, bool relu, const Tensor& gate,
                                const Tensor& pool) {
  check_alike(dy, x);
  const int64_t C = x.size(1), P = x.size(2) * x.size(3), M = num_rows(x);
  const T *in = data<T>(x), *d = data<T>(dy);
  const float *mu = data<float>(mean), *is = data<float>(invstd), *s = data<float>(scale), *t = data<float>(shift);
  const bool gated = gate.numel() > 0;
  const float *g = gated ? data<float>(gate) : nullptr, *q = gated ? data<float>(pool) : nullptr;
  auto sums = reduce(M, 2 * C, [&](int64_t row, float* acc) {
    const T *r = in + row * C, *e = d + row * C;
    if (gated) {
      const float *gn = g + row / P * C, *qn = q + row / P * C;
      VECTORISE for (int64_t c = 0; c < C; ++c) {
        const float h = load(r[c]), u = load(e[c]) * gn[c] + qn[c], v = h * s[c] + t[c] > 0.f ? u : 0.f;
        acc[c] += v;
        acc[C + c] += v * (h - mu[c]);
      }
    } else if (relu) {
      VECTORISE for (int64_t c = 0; c < C; ++c) {
        const float h = load(r[c]), u = load(e[c]), v = h * s[c] + t[c] > 0.f ? u : 0.f;
        acc[c] += v;
        acc[C + c] += v * (h - mu[c]);
      }
    } else {
      VECTORISE for (int64_t c = 0; c < C; ++c) {
        const float u = load(e[c]);
        acc[c] += u;
        acc[C + c] += u * (load(r[c]) - mu[c]);
      }
    }
  });
  std::vector<double> dgamma(C);
  std::vector<float> a(C), b(C);
  for (int64_t c = 0; c < C; ++c) {
    dgamma[c] = sums[C + c] * is[c];
    // dx = scale * (v - mean(v) - xhat * mean(v * xhat)), written as scale * v + a + b * x
    b[c] = static_cast<float>(-s[c] * is[c] * dgamma[c] / M);
    a[c] = static_cast<float>(-s[c] * sums[c] / M) - b[c] * mu[c];
  }
  Tensor dx = rows_like(x, C);
  T* out = data<T>(dx);
  const float *pa = a.data(), *pb = b.data();
  each_row(M, [&](int64_t row) {
    const T *r = in + row * C, *e = d + row * C;
    T* o = out + row * C;
    if (gated) {
      const float *gn = g + row / P * C, *qn = q + row / P * C;
      VECTORISE for (int64_t c = 0; c < C; ++c) {
        const float h = load(r[c]), u = load(e[c]) * gn[c] + qn[c], v = h * s[c] + t[c] > 0.f ? u : 0.f;
        store(o[c], s[c] * v + pa[c] + pb[c] * h);
      }
    } else if (relu) {
      VECTORISE for (int64_t c = 0; c < C; ++c) {
        const float h = load(r[c]), u = load(e[c]), v = h * s[c] + t[c] > 0.f ? u : 0.f;
        store(o[c], s[c] * v + pa[c] + pb[c] * h);
      }
    } else {
      VECTORISE for (int64_t c = 0; c < C; ++c) store(o[c], s[c] * load(e[c]) + pa[c] + pb[c] * load(r[c]));
    }
  });
  return {dx, to_tensor(dgamma.data(), C), to_tensor(sums.data(), C)};
}

// out = shuffle(concat(first half of x, second half of x + h * scale + shift)), two groups
template <typename T>
Tensor add_shuffle(const Tensor& h, const Tensor& scale, const Tensor& shift, const Tensor& x) {
  check_alike(h, x);
  const int64_t C = h.size(1), M = num_rows(h);
  Tensor y = rows_like(x, 2 * C);
  const T *in = data<T>(x), *r = data<T>(h);
  const float *s = data<float>(scale), *t = data<float>(shift);
  T* out = data<T>(y);
  each_row(M, [&](int64_t row) {
    const T *a = in + row * 2 * C, *b = a + C, *e = r + row * C;
    T* o = out + row * 2 * C;
    VECTORISE for (int64_t c = 0; c < C; ++c) {
      o[2 * c] = a[c];
      store(o[2 * c + 1], load(b[c]) + load(e[c]) * s[c] + t[c]);
    }
  });
  return y;
}

// Undo the shuffle on a gradient: the halves side by side, and a copy of the second one.
template <typename T>
std::vector<Tensor> unshuffle(const Tensor& dy) {
  const int64_t C = dy.size(1) / 2, M = num_rows(dy);
  Tensor dx = rows_like(dy, 2 * C), second = rows_like(dy, C);
  const T* in = data<T>(dy);
  T *o = data<T>(dx), *q = data<T>(second);
  each_row(M, [&](int64_t row) {
    const T* r = in + row * 2 * C;
    T *a = o + row * 2 * C, *b = a + C, *e = q + row * C;
    VECTORISE for (int64_t c = 0; c < C; ++c) {
      a[c] = r[2 * c];
      b[c] = e[c] = r[2 * c + 1];
    }
  });
  return {dx, second};
}

// The second half of the channels of x, as a tensor of its own
template <typename T>
Tensor second_half(const Tensor& x) {
  const int64_t C = x.size(1) / 2, M = num_rows(x);
  Tensor y = rows_like(x, C);
  const T* in = data<T>(x);
  T* out = data<T>(y);
  each_row(M, [&](int64_t row) { std::copy_n(in + row * 2 * C + C, C, out + row * C); });
  return y;
}

// x[:, C/2:] += d, in place
template <typename T>
void add_second_half(const Tensor& x, const Tensor& d) {
  check_alike(x, d);
  const int64_t C = d.size(1), M = num_rows(d);
  T* out = data<T>(x);
  const T* in = data<T>(d);
  each_row(M, [&](int64_t row) {
    T* o = out + row * 2 * C + C;
    const T* r = in + row * C;
    VECTORISE for (int64_t c = 0; c < C; ++c) store(o[c], load(o[c]) + load(r[c]));
  });
}

// A kernel for both storage types, chosen by the first argument
template <typename R, typename... Args>
auto by_type(R (*narrow)(const Tensor&, Args...), R (*wide)(const Tensor&, Args...)) {
  return [=](const Tensor& first, Args... rest) {
    check(first);
    return (first.scalar_type() == at::kBFloat16 ? narrow : wide)(first, rest...);
  };
}

#define KERNEL(name) m.def(#name, by_type(&name<Half>, &name<float>))

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  KERNEL(bn_stats);
  KERNEL(affine);
  KERNEL(affine_pool);
  KERNEL(affine_gate);
  KERNEL(gate_backward);
  KERNEL(bn_backward);
  KERNEL(add_shuffle);
  KERNEL(unshuffle);
  KERNEL(second_half);
  KERNEL(add_second_half);
}
