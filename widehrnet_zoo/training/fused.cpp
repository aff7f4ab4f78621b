// Fused passes of a training step on the CPU. All tensors are float32 and channels last in memory, that is rows of C
// channels, one row per pixel; N samples have M = N * P rows. Batch norm in training needs the statistics of the whole
// batch, so each norm costs one pass to sum and one to apply; everything element-wise around it rides on these passes.
#include <torch/extension.h>
#include <ATen/Parallel.h>

#include <vector>

using torch::Tensor;

namespace {

// the rows written never overlap those read, which the compiler cannot know
#define VECTORISE _Pragma("GCC ivdep")

constexpr int64_t kBlock = 64;  // rows summed in float before they are added in double

Tensor rows_like(const Tensor& x, int64_t channels) {
  return torch::empty({x.size(0), channels, x.size(2), x.size(3)}, x.options(), at::MemoryFormat::ChannelsLast);
}

int64_t num_rows(const Tensor& x) { return x.size(0) * x.size(2) * x.size(3); }

void check(const Tensor& x) {
  TORCH_CHECK(x.scalar_type() == at::kFloat && x.is_contiguous(at::MemoryFormat::ChannelsLast),
              "expected float32, channels last");
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
std::vector<Tensor> bn_stats(const Tensor& x) {
  check(x);
  const int64_t C = x.size(1), M = num_rows(x);
  const float* in = x.data_ptr<float>();
  auto sums = reduce(M, 2 * C, [&](int64_t row, float* s) {
    const float* r = in + row * C;
    VECTORISE for (int64_t c = 0; c < C; ++c) {
      const float d = r[c] - in[c];
      s[c] += d;
      s[C + c] += d * d;
    }
  });
  std::vector<double> mean(C), var(C);
  for (int64_t c = 0; c < C; ++c) {
    const double m = sums[c] / M;
    mean[c] = m + in[c];
    var[c] = std::max(0., sums[C + c] / M - m * m);
  }
  return {to_tensor(mean.data(), C), to_tensor(var.data(), C)};
}

// y = act(x * scale + shift)
Tensor affine(const Tensor& x, const Tensor& scale, const Tensor& shift, bool relu) {
  check(x);
  const int64_t C = x.size(1), M = num_rows(x);
  Tensor y = rows_like(x, C);
  const float *in = x.data_ptr<float>(), *s = scale.data_ptr<float>(), *t = shift.data_ptr<float>();
  float* out = y.data_ptr<float>();
  each_row(M, [&](int64_t row) {
    const float* r = in + row * C;
    float* o = out + row * C;
    if (relu)
      VECTORISE for (int64_t c = 0; c < C; ++c) o[c] = std::max(0.f, r[c] * s[c] + t[c]);
    else
      VECTORISE for (int64_t c = 0; c < C; ++c) o[c] = r[c] * s[c] + t[c];
  });
  return y;
}

// Per sample and channel, the mean over pixels of relu(x * scale + shift): (N, C)
Tensor affine_pool(const Tensor& x, const Tensor& scale, const Tensor& shift) {
  check(x);
  const int64_t N = x.size(0), C = x.size(1), P = x.size(2) * x.size(3);
  Tensor pooled = torch::zeros({N, C}, x.options());
  const float *in = x.data_ptr<float>(), *s = scale.data_ptr<float>(), *t = shift.data_ptr<float>();
  float* out = pooled.data_ptr<float>();
  at::parallel_for(0, N, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      float* o = out + n * C;
      for (int64_t p = 0; p < P; ++p) {
        const float* r = in + (n * P + p) * C;
        VECTORISE for (int64_t c = 0; c < C; ++c) o[c] += std::max(0.f, r[c] * s[c] + t[c]);
      }
      VECTORISE for (int64_t c = 0; c < C; ++c) o[c] /= P;
    }
  });
  return pooled;
}

// y = relu(x * scale + shift) * gate, gate (N, C)
Tensor affine_gate(const Tensor& x, const Tensor& scale, const Tensor& shift, const Tensor& gate) {
  check(x);
  const int64_t C = x.size(1), P = x.size(2) * x.size(3), M = num_rows(x);
  Tensor y = rows_like(x, C);
  const float *in = x.data_ptr<float>(), *s = scale.data_ptr<float>(), *t = shift.data_ptr<float>(),
              *g = gate.data_ptr<float>();
  float* out = y.data_ptr<float>();
  each_row(M, [&](int64_t row) {
    const float *r = in + row * C, *gn = g + row / P * C;
    float* o = out + row * C;
    VECTORISE for (int64_t c = 0; c < C; ++c) o[c] = std::max(0.f, r[c] * s[c] + t[c]) * gn[c];
  });
  return y;
}

// d_gate (N, C): sum over pixels of dy * relu(x * scale + shift)
Tensor gate_backward(const Tensor& dy, const Tensor& x, const Tensor& scale, const Tensor& shift) {
  check(dy);
  const int64_t N = x.size(0), C = x.size(1), P = x.size(2) * x.size(3);
  Tensor dgate = torch::zeros({N, C}, x.options());
  const float *in = x.data_ptr<float>(), *d = dy.data_ptr<float>(), *s = scale.data_ptr<float>(),
              *t = shift.data_ptr<float>();
  float* out = dgate.data_ptr<float>();
  at::parallel_for(0, N, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      float* o = out + n * C;
      for (int64_t p = 0; p < P; ++p) {
        const int64_t at = (n * P + p) * C;
        VECTORISE for (int64_t c = 0; c < C; ++c) o[c] += d[at + c] * std::max(0.f, in[at + c] * s[c] + t[c]);
      }
    }
  });
  return dgate;
}

// Backward of relu(batch_norm(x)), optionally followed by the gate: dy is the gradient after it, and `pool` (N, C) the
// gradient of the pooled mean. Returns dx, and the sums that are the gradients of gamma and beta.
std::vector<Tensor> bn_backward(const Tensor& dy, const Tensor& x, const Tensor& mean, const Tensor& invstd,
                                const Tensor& scale, const Tensor& shift, bool relu, const Tensor& gate,
                                const Tensor& pool) {
  check(x);
  check(dy);
  const int64_t C = x.size(1), P = x.size(2) * x.size(3), M = num_rows(x);
  const float *in = x.data_ptr<float>(), *d = dy.data_ptr<float>(), *mu = mean.data_ptr<float>(),
              *is = invstd.data_ptr<float>(), *s = scale.data_ptr<float>(), *t = shift.data_ptr<float>();
  const bool gated = gate.numel() > 0;
  const float *g = gated ? gate.data_ptr<float>() : nullptr, *q = gated ? pool.data_ptr<float>() : nullptr;
  auto sums = reduce(M, 2 * C, [&](int64_t row, float* acc) {
    const float *r = in + row * C, *e = d + row * C;
    if (gated) {
      const float *gn = g + row / P * C, *qn = q + row / P * C;
      VECTORISE for (int64_t c = 0; c < C; ++c) {
        const float u = e[c] * gn[c] + qn[c], v = r[c] * s[c] + t[c] > 0.f ? u : 0.f;
        acc[c] += v;
        acc[C + c] += v * (r[c] - mu[c]);
      }
    } else if (relu) {
      VECTORISE for (int64_t c = 0; c < C; ++c) {
        const float u = e[c], v = r[c] * s[c] + t[c] > 0.f ? u : 0.f;
        acc[c] += v;
        acc[C + c] += v * (r[c] - mu[c]);
      }
    } else {
      VECTORISE for (int64_t c = 0; c < C; ++c) {
        acc[c] += e[c];
        acc[C + c] += e[c] * (r[c] - mu[c]);
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
  float* out = dx.data_ptr<float>();
  each_row(M, [&](int64_t row) {
    const float *r = in + row * C, *e = d + row * C;
    float* o = out + row * C;
    if (gated) {
      const float *gn = g + row / P * C, *qn = q + row / P * C;
      VECTORISE for (int64_t c = 0; c < C; ++c) {
        const float u = e[c] * gn[c] + qn[c], v = r[c] * s[c] + t[c] > 0.f ? u : 0.f;
        o[c] = s[c] * v + a[c] + b[c] * r[c];
      }
    } else if (relu) {
      VECTORISE for (int64_t c = 0; c < C; ++c) {
        const float u = e[c], v = r[c] * s[c] + t[c] > 0.f ? u : 0.f;
        o[c] = s[c] * v + a[c] + b[c] * r[c];
      }
    } else {
      VECTORISE for (int64_t c = 0; c < C; ++c) o[c] = s[c] * e[c] + a[c] + b[c] * r[c];
    }
  });
  return {dx, to_tensor(dgamma.data(), C), to_tensor(sums.data(), C)};
}

// out = shuffle(concat(first half of x, second half of x + h * scale + shift)), two groups
Tensor add_shuffle(const Tensor& h, const Tensor& scale, const Tensor& shift, const Tensor& x) {
  check(h);
  check(x);
  const int64_t C = h.size(1), M = num_rows(h);
  Tensor y = rows_like(x, 2 * C);
  const float *in = x.data_ptr<float>(), *r = h.data_ptr<float>(), *s = scale.data_ptr<float>(),
              *t = shift.data_ptr<float>();
  float* out = y.data_ptr<float>();
  each_row(M, [&](int64_t row) {
    const float *a = in + row * 2 * C, *b = a + C, *e = r + row * C;
    float* o = out + row * 2 * C;
    VECTORISE for (int64_t c = 0; c < C; ++c) {
      o[2 * c] = a[c];
      o[2 * c + 1] = b[c] + e[c] * s[c] + t[c];
    }
  });
  return y;
}

// Undo the shuffle on a gradient: the halves side by side, and a copy of the second one.
std::vector<Tensor> unshuffle(const Tensor& dy) {
  check(dy);
  const int64_t C = dy.size(1) / 2, M = num_rows(dy);
  Tensor dx = rows_like(dy, 2 * C), second = rows_like(dy, C);
  const float* in = dy.data_ptr<float>();
  float *o = dx.data_ptr<float>(), *q = second.data_ptr<float>();
  each_row(M, [&](int64_t row) {
    const float* r = in + row * 2 * C;
    float *a = o + row * 2 * C, *b = a + C, *e = q + row * C;
    VECTORISE for (int64_t c = 0; c < C; ++c) {
      a[c] = r[2 * c];
      b[c] = e[c] = r[2 * c + 1];
    }
  });
  return {dx, second};
}

// The second half of the channels of x, as a tensor of its own
Tensor second_half(const Tensor& x) {
  check(x);
  const int64_t C = x.size(1) / 2, M = num_rows(x);
  Tensor y = rows_like(x, C);
  const float* in = x.data_ptr<float>();
  float* out = y.data_ptr<float>();
  each_row(M, [&](int64_t row) { std::copy_n(in + row * 2 * C + C, C, out + row * C); });
  return y;
}

// x[:, C/2:] += d, in place
void add_second_half(Tensor x, const Tensor& d) {
  check(x);
  check(d);
  const int64_t C = d.size(1), M = num_rows(d);
  float* out = x.data_ptr<float>();
  const float* in = d.data_ptr<float>();
  each_row(M, [&](int64_t row) {
    float* o = out + row * 2 * C + C;
    const float* r = in + row * C;
    VECTORISE for (int64_t c = 0; c < C; ++c) o[c] += r[c];
  });
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("bn_stats", &bn_stats);
  m.def("affine", &affine);
  m.def("affine_pool", &affine_pool);
  m.def("affine_gate", &affine_gate);
  m.def("gate_backward", &gate_backward);
  m.def("bn_backward", &bn_backward);
  m.def("add_shuffle", &add_shuffle);
  m.def("unshuffle", &unshuffle);
  m.def("second_half", &second_half);
  m.def("add_second_half", &add_second_half);
}
