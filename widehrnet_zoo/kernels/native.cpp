// Kernels of the deployed network on a CPU. Tensors are float32 with rows of channels, one row per pixel.
#include <ATen/Parallel.h>

#include <cmath>
#include <functional>
#include <memory>
#include <utility>

#include "products.h"

using namespace widehrnet;
using torch::Tensor;

namespace {

constexpr int64_t kSmall = 1 << 15;  // numbers that one thread has moved before another one has started

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
                 const float* dw_bias, const Product& project, const Squeeze& se, typename K::T* y) {
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
        const auto* a = inputs<K>(x + r * W * C + start, C, W, expand.k, lda, buffer);
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
        depthwise_row<K>(rows, wide, dw + at, dw_bias + at, ld, y + r * W * ld + at, ld, W, 1, vectors, true,
                      se.w1 ? sums.data() + band * ld + at : nullptr);
      }
    }
  });
  const auto* packed = weights<K>(project);
  static thread_local Scratch<typename K::T> scaled;
  if (se.w1) {
    for (int64_t b = 1; b < bands; ++b)
      for (int64_t c = 0; c < ld; ++c) sums[c] += sums[b * ld + c];
    for (int64_t c = 0; c < ld; ++c) sums[c] /= static_cast<float>(H * W);
    std::vector<float> middle(se.ld1), gate(se.ld2);
    gemv(se.w1, se.b1, sums.data(), middle.data(), expand.n, se.middle, se.ld1);
    for (auto& v : middle) v = std::max(0.f, v);
    gemv(se.w2, se.b2, middle.data(), gate.data(), se.middle, expand.n, se.ld2);
    for (auto& v : gate) v = 1.f / (1.f + std::exp(-v));
    // the gates ride on the weights of the projection, which are fewer than the activations
    auto* to = scaled.get(Panels(project.n).width() * padded<K>(project.k));
    scale<K>(packed, project.k, project.n, gate.data(), to);
    packed = to;
  }
  at::parallel_for(0, H * W, 1 + H * W / (4 * threads), [&](int64_t begin, int64_t end) {
    product<K>(y + begin * ld, ld, packed, project.k, project.bias, x + begin * C + start, C, end - begin, project.n,
               true, false);
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
      using K = decltype(kind);
      static thread_local Scratch<typename K::T> y;
      block_image<K>(x.data_ptr<float>() + b * H * W * C, H, W, C, start, e, dw.data_ptr<float>(),
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
        const auto* a = inputs<K>(x.data_ptr<float>() + i * k, k, m, k, lda, buffer);
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
      static thread_local Scratch<float> scratch;
      static thread_local Scratch<typename K::T> results;
      // rows are copied to have zeros beside them, and channels to whole vectors
      const int64_t row = in_width * wide;
      float* ring = scratch.get(4 * row);
      auto* middle = results.get(w * wide);
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
        depthwise_row<K>(rows, wide, dw.data_ptr<float>(), dw_bias.data_ptr<float>(), wide, middle, wide, w, stride,
                         wide / kLanes, false, nullptr);
        product<K>(middle, wide, weights<K>(p), C, p.bias, out.data_ptr<float>() + unit * w * n, n, w, n, add, positive);
      }
    });
  });
}

// Add channels [start, start + C) of low (B, h, w, L) to x (B, 2h, 2w, C), each pixel four times; in place.
void add_upsampled(Tensor x, const Tensor& low, int64_t start) {
  check(x);
  check(low);
  const int64_t H = x.size(1), W = x.size(2), C = x.size(3), L = low.size(3);
  at::parallel_for(0, x.size(0) * H, ceil_div(kSmall, W * C), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float* to = x.data_ptr<float>() + r * W * C;
      const float* from = low.data_ptr<float>() + (r / H * (H / 2) + r % H / 2) * (W / 2) * L + start;
      for (int64_t j = 0; j < W; ++j)
        for (int64_t c = 0; c < C; ++c) to[j * C + c] += from[j / 2 * L + c];
    }
  });
}

// A row in another order, with ReLU. Permutations of registers are several times faster than gathers from memory.
class Reorder {
 public:
  explicit Reorder(const Tensor& order)
      : chs_(order.numel()), places_(order.data_ptr<int64_t>(), order.data_ptr<int64_t>() + order.numel()) {
    places_.resize(Panels(chs_).width());
  }
  void row(const float* from, float* to) const {
    int64_t c = 0;
#if defined(__AVX512F__)
    const int64_t pairs = ceil_div(chs_, 2 * kLanes);
    for (; c + kLanes <= chs_; c += kLanes) {
      const __m512i at = _mm512_loadu_si512(places_.data() + c);
      const __m512i pair = _mm512_srli_epi32(at, 5);
      __m512 v = _mm512_setzero_ps();
      for (int64_t i = 0; i < pairs; ++i) {
        const float* p = from + i * 2 * kLanes;
        const int64_t left = chs_ - i * 2 * kLanes;
        const __m512 low = _mm512_maskz_loadu_ps(lanes(left), p);
        const __m512 high = _mm512_maskz_loadu_ps(lanes(left - kLanes), p + kLanes);
        const __mmask16 here = _mm512_cmpeq_epi32_mask(pair, _mm512_set1_epi32(static_cast<int>(i)));
        v = _mm512_mask_mov_ps(v, here, _mm512_permutex2var_ps(low, at, high));
      }
      _mm512_storeu_ps(to + c, _mm512_max_ps(v, _mm512_setzero_ps()));
    }
#endif
    for (; c < chs_; ++c) to[c] = std::max(0.f, from[places_[c]]);
  }

 private:
#if defined(__AVX512F__)
  static __mmask16 lanes(int64_t left) {
    return left >= kLanes ? 0xffff : left <= 0 ? 0 : static_cast<__mmask16>((1 << left) - 1);
  }
#endif
  int64_t chs_;
  std::vector<int32_t> places_;
};

// relu(x) with channels in another order
Tensor finish(const Tensor& x, const Reorder& order) {
  check(x);
  const int64_t C = x.size(3), rows = x.numel() / C;
  Tensor out = torch::empty_like(x);
  at::parallel_for(0, rows, ceil_div(kSmall, C), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) order.row(x.data_ptr<float>() + r * C, out.data_ptr<float>() + r * C);
  });
  return out;
}

// The first convolution, 3x3 with stride 2, and the 1x1 convolution after it, each with ReLU, in one pass over the rows
// of images x (B, C, H, W). The 3x3 is a product over rows of patches.
void stem(const Tensor& x, const Tensor& conv, const Tensor& conv_bias, int64_t middle, const Tensor& mix,
          const Tensor& mix_bias, int64_t n, Tensor out, bool bf16) {
  check(x);
  check(out);
  const int64_t C = x.size(1), H = x.size(2), W = x.size(3), h = out.size(1), w = out.size(2), k = 9 * C;
  const Product first = product_of(conv, conv_bias, k, middle), second = product_of(mix, mix_bias, middle, n);
  dispatch(bf16, [&](auto kind) {
    using K = decltype(kind);
    at::parallel_for(0, x.size(0) * h, 1, [&](int64_t begin, int64_t end) {
      static thread_local Scratch<float> scratch, results;
      static thread_local Scratch<typename K::T> buffer;
      float *patches = scratch.get(w * k), *row = results.get(w * middle);
      for (int64_t unit = begin; unit < end; ++unit) {
        const int64_t b = unit / h, r = unit % h;
        for (int64_t c = 0; c < C; ++c)
          for (int64_t i = 0; i < 3; ++i) {
            const int64_t y = 2 * r - 1 + i;
            const float* from = x.data_ptr<float>() + ((b * C + c) * H + y) * W;
            float* to = patches + (c * 3 + i) * 3;
            for (int64_t j = 0; j < w; ++j)
              for (int64_t d = 0; d < 3; ++d) {
                const int64_t at = 2 * j - 1 + d;
                to[j * k + d] = y < 0 || y >= H || at < 0 || at >= W ? 0.f : from[at];
              }
          }
        int64_t lda;
        const auto* a = inputs<K>(patches, k, w, k, lda, buffer);
        product<K>(a, lda, weights<K>(first), k, first.bias, row, middle, w, middle, false, true);
        a = inputs<K>(row, middle, w, middle, lda, buffer);
        product<K>(a, lda, weights<K>(second), middle, second.bias, out.data_ptr<float>() + unit * w * n, n, w, n,
                   false, true);
      }
    });
  });
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
  int64_t stem(int64_t from, Tensor conv, Tensor conv_bias, int64_t middle, Tensor mix, Tensor mix_bias, int64_t n,
               bool bf16) {
    const int64_t to = next();
    add({from, to}, [=](Slots& s) {
      const Tensor x = s[from].contiguous();
      s[to] = at::empty({x.size(0), (x.size(2) - 1) / 2 + 1, (x.size(3) - 1) / 2 + 1, n}, x.options());
      ::stem(x, conv, conv_bias, middle, mix, mix_bias, n, s[to], bf16);
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
  void relu(int64_t to) {
    add({to}, [=](Slots& s) { s[to].relu_(); });
  }
  int64_t finish(int64_t from, Tensor gather) {
    const int64_t to = next();
    const Reorder order(gather);
    add({from, to}, [=](Slots& s) { s[to] = ::finish(s[from], order); });
    return to;
  }
  int64_t gather(int64_t from, Tensor order) {
    const int64_t to = next();
    add({from, to}, [=](Slots& s) { s[to] = s[from].index_select(3, order); });
    return to;
  }
  // Steps recorded between the two calls may run side by side: one list for each branch, begun by `next_branch`.
  void begin_branches() { branches_ = std::make_shared<Branches>(); }
  void next_branch() { branches_->emplace_back(); }
  void end_branches() {
    const auto branches = std::exchange(branches_, nullptr);
    std::vector<int64_t> used;
    for (const auto& branch : *branches)
      for (const auto& step : branch) used.insert(used.end(), step.used.begin(), step.used.end());
    add(used, [=](Slots& s) {
      auto run = [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
          for (const auto& step : (*branches)[i]) step.call(s);
      };
      const int64_t count = branches->size();
      // a thread for each branch waits less than all threads on every branch, if the branches go round
      if (count % at::get_num_threads() == 0)
        at::parallel_for(0, count, 1, run);
      else
        run(0, count);
    });
  }
  Tensor run(const Tensor& x, int64_t result) const {
    torch::NoGradGuard guard;
    Slots slots(slots_);
    slots[0] = x;
    for (size_t i = 0; i < steps_.size(); ++i) {
      steps_[i].call(slots);
      // memory that was just read is what the next result should be written to
      for (int64_t slot : steps_[i].used)
        if (last_use_[slot] == i && slot != result) slots[slot].reset();
    }
    return slots[result].permute({0, 3, 1, 2}).contiguous();
  }

 private:
  int64_t next() {
    last_use_.resize(slots_ + 1);
    return slots_++;
  }
  struct Step {
    std::vector<int64_t> used;
    std::function<void(Slots&)> call;
  };
  using Branches = std::vector<std::vector<Step>>;

  void add(std::vector<int64_t> used, std::function<void(Slots&)> call) {
    if (branches_) {
      branches_->back().push_back({std::move(used), std::move(call)});
      return;
    }
    last_use_.resize(slots_);
    for (int64_t slot : used) last_use_[slot] = steps_.size();
    steps_.push_back({std::move(used), std::move(call)});
  }

  int64_t slots_ = 1;
  std::vector<Step> steps_;
  std::shared_ptr<Branches> branches_;
  std::vector<size_t> last_use_;  // step of each slot
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
      .def("relu", &Program::relu)
      .def("finish", &Program::finish)
      .def("gather", &Program::gather)
      .def("begin_branches", &Program::begin_branches)
      .def("next_branch", &Program::next_branch)
      .def("end_branches", &Program::end_branches)
      .def("run", &Program::run, pybind11::call_guard<pybind11::gil_scoped_release>());
}
