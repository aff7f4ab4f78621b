// Fused passes of a training step on the CPU. Batch norm in training needs the statistics of the whole batch, so each norm
// costs one pass to sum and one to apply; everything element-wise around it rides on these passes.
#include "depthwise.h"

namespace widehrnet {

// Mean and biased variance per channel
template <typename T>
std::vector<Tensor> bn_stats(const Tensor& x) {
  const int64_t C = x.size(1), M = num_rows(x), threads = at::get_num_threads();
  const T* in = data<T>(x);
  std::vector<Moments> moments(threads);
  at::parallel_for(0, M, std::max<int64_t>(1, (M + threads - 1) / threads), [&](int64_t begin, int64_t end) {
    moments[at::get_thread_num()].add(in + begin * C, end - begin, C);
  });
  return Moments::merge(moments, C);
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

// Per sample and channel, over the pixels where relu(x * scale + shift) is positive: the sums of dy, dy * (x - mean), 1
// and x - mean, (4, N, C). The gradient of a gate, and the sums of the norm before it, are combinations of these.
template <typename T>
Tensor gate_sums(const Tensor& dy, const Tensor& x, const Tensor& mean, const Tensor& scale, const Tensor& shift) {
  check_alike(dy, x);
  const int64_t N = x.size(0), C = x.size(1), P = x.size(2) * x.size(3);
  Tensor sums = torch::zeros({4, N, C}, x.options().dtype(at::kFloat));
  const T *in = data<T>(x), *d = data<T>(dy);
  const float *mu = data<float>(mean), *s = data<float>(scale), *t = data<float>(shift);
  float* out = data<float>(sums);
  at::parallel_for(0, N, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      float *o0 = out + n * C, *o1 = o0 + N * C, *o2 = o1 + N * C, *o3 = o2 + N * C;
      for (int64_t p = 0; p < P; ++p) {
        const int64_t at = (n * P + p) * C;
        VECTORISE for (int64_t c = 0; c < C; ++c) {
          const float h = load(in[at + c]), m = h * s[c] + t[c] > 0.f ? 1.f : 0.f, u = m * load(d[at + c]), z = h - mu[c];
          o0[c] += u;
          o1[c] += u * z;
          o2[c] += m;
          o3[c] += m * z;
        }
      }
    }
  });
  return sums;
}

// With v the gradient dy after the ReLU, if there is one: the sums of v and v * (x - mean) per channel, (2, C)
template <typename T>
Tensor bn_sums(const Tensor& dy, const Tensor& x, const Tensor& mean, const Tensor& scale, const Tensor& shift,
               bool relu) {
  check_alike(dy, x);
  const int64_t C = x.size(1), M = num_rows(x);
  const T *in = data<T>(x), *d = data<T>(dy);
  const float *mu = data<float>(mean), *s = data<float>(scale), *t = data<float>(shift);
  auto sums = reduce(M, 2 * C, [&](int64_t row, float* acc) {
    const T *r = in + row * C, *e = d + row * C;
    if (relu)
      VECTORISE for (int64_t c = 0; c < C; ++c) {
        const float h = load(r[c]), u = load(e[c]), v = h * s[c] + t[c] > 0.f ? u : 0.f;
        acc[c] += v;
        acc[C + c] += v * (h - mu[c]);
      }
    else
      VECTORISE for (int64_t c = 0; c < C; ++c) {
        const float u = load(e[c]);
        acc[c] += u;
        acc[C + c] += u * (load(r[c]) - mu[c]);
      }
  });
  return to_tensor(sums.data(), 2 * C).view({2, C});
}

// The gradient of batch norm, dx = scale * (v - mean(v) - xhat * mean(v * xhat)), is scale * v + a + b * x. From the sums
// of v and v * (x - mean): a, b and the gradients of gamma and beta.
std::vector<Tensor> bn_terms(const Tensor& sums, const Tensor& mean, const Tensor& invstd, const Tensor& scale,
                             int64_t rows) {
  const int64_t C = mean.size(0);
  const float *v = data<float>(sums), *mu = data<float>(mean), *is = data<float>(invstd), *s = data<float>(scale);
  Tensor terms = torch::empty({4, C}, torch::kFloat);
  float* o = data<float>(terms);
  for (int64_t c = 0; c < C; ++c) {
    const double dgamma = static_cast<double>(v[C + c]) * is[c], b = -s[c] * is[c] * dgamma / rows;
    o[c] = static_cast<float>(-static_cast<double>(s[c]) * v[c] / rows - b * mu[c]);
    o[C + c] = static_cast<float>(b);
    o[2 * C + c] = static_cast<float>(dgamma);
    o[3 * C + c] = v[c];
  }
  return terms.unbind();
}

// dx = scale * v + a + b * x, with v the gradient dy after the ReLU, if there is one; written over dy if `over`
template <typename T>
Tensor bn_apply(const Tensor& dy, const Tensor& x, const Tensor& scale, const Tensor& shift, const Tensor& a,
                const Tensor& b, bool relu, bool over) {
  check_alike(dy, x);
  const int64_t C = x.size(1), M = num_rows(x);
  Tensor dx = over ? dy : rows_like(x, C);
  const T *in = data<T>(x), *d = data<T>(dy);
  const float *s = data<float>(scale), *t = data<float>(shift), *pa = data<float>(a), *pb = data<float>(b);
  T* out = data<T>(dx);
  each_row(M, [&](int64_t row) {
    const T *r = in + row * C, *e = d + row * C;
    T* o = out + row * C;
    if (relu)
      VECTORISE for (int64_t c = 0; c < C; ++c) {
        const float h = load(r[c]), u = load(e[c]), v = h * s[c] + t[c] > 0.f ? u : 0.f;
        store(o[c], s[c] * v + pa[c] + pb[c] * h);
      }
    else
      VECTORISE for (int64_t c = 0; c < C; ++c) store(o[c], s[c] * load(e[c]) + pa[c] + pb[c] * load(r[c]));
  });
  return dx;
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
    VECTORISE for (int64_t c = 0; c < C; ++c) store_pair(o + 2 * c, a[c], load(b[c]) + load(e[c]) * s[c] + t[c]);
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
      load_pair(r + 2 * c, a[c], e[c]);
      b[c] = e[c];
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

}  // namespace widehrnet

using namespace widehrnet;

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
  KERNEL(gate_sums);
  KERNEL(bn_sums);
  m.def("bn_terms", &bn_terms);
  KERNEL(bn_apply);
  KERNEL(depthwise);
  KERNEL(depthwise_backward);
  KERNEL(depthwise_strided);
  KERNEL(depthwise_strided_backward);
  KERNEL(add_shuffle);
  KERNEL(unshuffle);
  KERNEL(second_half);
  KERNEL(add_second_half);
}
