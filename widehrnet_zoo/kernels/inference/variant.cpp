// The parts of the steps, compiled once for each kind of processor with WIDEHRNET_VARIANT as its name.
#include <math.h>

#include "depthwise.h"

namespace widehrnet {
namespace WIDEHRNET_VARIANT {

constexpr Int kPixels = 48;  // pixels of a product that is made at once, to stay in the cache

static Int width(Int n) { return round_up(n); }
static Int panels(Int n) { return Panels(n).count; }

// What a depthwise convolution without ReLU gives, until a product takes it: of integers the scales are not known yet.
#if defined(__AVX512VNNI__)
typedef F32 Signed;
#else
typedef Kind Signed;
#endif

// Rows that are expanded at once, and the rows of the ring in which they wait for the depthwise convolution
static Int group(Int width) { return larger(1, kPixels / width); }
static Int ring_rows(Int group) { return group == 1 ? 3 : 2 * group; }

static void stem(const Step& step, const float* image, View in, View out, Range rows, float* scratch) {
  const Int w = out.width * 2, h = out.height * 2, k = step.first.k, keep = step.keep;
  const Int wide = step.first.n, mixed = keep + step.second.n;
  float* patches = scratch;
  float* row = patches + w * k + kSlack;
  float* ring = row + w * wide + kSlack;
  Signed::T* middle = reinterpret_cast<Signed::T*>(ring + 3 * w * mixed + kSlack);
  float* buffer = reinterpret_cast<float*>(middle) + out.width * step.dw.width + kSlack;
  const Int bottom = smaller(h, rows.end * 2);
  Int filled = larger(0, rows.begin * 2 - 1);
  for (Int r = rows.begin; r < rows.end; ++r) {
    for (; filled < smaller(bottom, 2 * r + 2); ++filled) {
      for (Int c = 0; c < in.channels; ++c)
        for (Int i = 0; i < 3; ++i) {
          const Int y = 2 * filled - 1 + i;
          const float* from = image + (c * in.height + y) * in.width;
          float* to = patches + (c * 3 + i) * 3;
          if (y < 0 || y >= in.height) {
            for (Int j = 0; j < w; ++j) to[j * k] = to[j * k + 1] = to[j * k + 2] = 0;
            continue;
          }
          to[0] = 0;
          to[1] = from[0];
          to[2] = from[1];
          for (Int j = 1; j < w; ++j) memcpy(to + j * k, from + 2 * j - 1, 3 * sizeof(float));
        }
      multiply(step.first, {inputs(patches, k, w, k, buffer), row, wide, false, true}, w);
      float* to = ring + filled % 3 * w * mixed;
      for (Int j = 0; j < w; ++j) memcpy(to + j * mixed, row + j * wide, keep * sizeof(float));
      multiply(step.second, {inputs(row + keep, wide, w, step.second.k, buffer), to + keep, mixed, false, true}, w);
    }
    const Neighbours near = neighbours(r, 2, h, w, mixed, [&](Int i) { return ring + i % 3 * w * mixed; });
    const Outputs<Signed> row_out = {middle, step.dw.width, out.width, false, nullptr};
    depthwise(near, step.dw, 2, 0, step.dw.width / kLanes, row_out);
    const Inputs seen = inputs(middle, step.dw.width, out.width, step.third.k, buffer);
    multiply(step.third, {seen, out.data + r * out.width * out.channels, out.channels, false, step.relu}, out.width);
  }
}

// Expansion and depthwise convolution of one panel of channels: the expanded rows live in a ring in the cache
static void expand(const Step& step, View x, void* y_, float* sums, Int p, Range rows, float* scratch) {
  const Panels all(step.first.n);
  const Int channel = all.first(p) * kLanes, vectors = all.first(p + 1) - all.first(p), wide = vectors * kLanes;
  const Int ld = step.dw.width, q = group(x.width), size = x.width * wide, turns = ring_rows(q);
  T* y = static_cast<T*>(y_);
  float* ring = scratch;
  float* buffer = ring + turns * size;
  const Int base = larger(0, rows.begin - 1), last = smaller(x.height, rows.end + 1);
  Int filled = base;
  if (sums) memset(sums + channel, 0, wide * sizeof(float));
  for (Int r = rows.begin; r < rows.end; ++r) {
    while (filled < smaller(last, r + 2)) {
      const Int m = smaller(q, last - filled) * x.width;
      const float* from = x.data + filled * x.width * x.channels + step.start;
      const Inputs seen = inputs(from, x.channels, m, step.first.k, buffer);
      const Rows to = {seen, ring + (filled - base) % turns * size, wide, false, true};
      panel(step.first, step.first.weight, all, p, to, m, wide);
      filled += m / x.width;
    }
    const Neighbours near =
        neighbours(r, 1, x.height, x.width, wide, [&](Int i) { return ring + (i - base) % turns * size; });
    const Outputs<Kind> out = {y + r * x.width * ld + channel, ld, x.width, true, sums ? sums + channel : nullptr};
    depthwise(near, step.dw, 1, channel, vectors, out);
  }
}

// y = W x + b, n padded to whole vectors
static void dense(const float* weight, const float* bias, const float* x, float* y, Int k, Int ld) {
  memcpy(y, bias, ld * sizeof(float));
  Int i = 0;
  for (; i + 4 <= k; i += 4) {
    const float* w = weight + i * ld;
    const Vec a = spread(x[i]), b = spread(x[i + 1]), c = spread(x[i + 2]), d = spread(x[i + 3]);
    for (Int v = 0; v < ld; v += kLanes) {
      Vec s = load(y + v) + a * load(w + v);
      s += b * load(w + ld + v);
      s += c * load(w + 2 * ld + v);
      store(y + v, s + d * load(w + 3 * ld + v));
    }
  }
  for (; i < k; ++i) {
    const Vec a = spread(x[i]);
    for (Int v = 0; v < ld; v += kLanes) store(y + v, load(y + v) + a * load(weight + i * ld + v));
  }
}

static void gate(const Step& step, View x, void* y, float* sums, Int bands, float* gates, void* scaled) {
  const Squeeze& se = step.squeeze;
  const Int ld = step.dw.width, n = step.first.n, pixels = x.height * x.width;
  for (Int c = 0; c < ld; ++c) {
    float s = 0;
    for (Int b = 0; b < bands; ++b) s += sums[b * ld + c];
    sums[c] = s / static_cast<float>(pixels);
  }
  float* middle = gates + ld;
  dense(se.weight1, se.bias1, sums, middle, n, se.width1);
  for (Int v = 0; v < se.width1; v += kLanes) store(middle + v, relu(load(middle + v)));
  dense(se.weight2, se.bias2, middle, gates, se.middle, se.width2);
  for (Int c = 0; c < ld; ++c) gates[c] = 1.f / (1.f + expf(-gates[c]));
  if (gates_on_weights(step, pixels)) {
    scale_weights(step.second, gates, scaled);
  } else {
    T* row = static_cast<T*>(y);
    for (Int i = 0; i < pixels; ++i, row += ld)
      for (Int c = 0; c < ld; c += kLanes) Kind::scale(row + c, gates + c);
  }
}

static void project(const Step& step, View x, const void* y, const void* scaled, Range which, Range pixels) {
  const Int ld = step.dw.width;
  float* to = x.data + pixels.begin * x.channels + step.start;
  const void* weight = gates_on_weights(step, x.height * x.width) ? scaled : step.second.weight;
  const Rows rows = {{static_cast<const T*>(y) + pixels.begin * ld, ld, nullptr}, to, x.channels, true, false};
  multiply(step.second, weight, rows, pixels.end - pixels.begin, which);
}

static void separable(const Step& step, View in, View out, Range rows, float* scratch) {
  Signed::T* middle = reinterpret_cast<Signed::T*>(scratch);
  const Int ld = step.dw.width;
  float* buffer = scratch + out.width * ld + kSlack;
  for (Int r = rows.begin; r < rows.end; ++r) {
    const Neighbours near = neighbours(r, step.stride, in.height, in.width, in.channels,
                                       [&](Int i) { return in.data + i * in.width * in.channels; });
    const Outputs<Signed> row = {middle, ld, out.width, false, nullptr};
    depthwise(near, step.dw, step.stride, 0, ld / kLanes, row);
    const Inputs seen = inputs(middle, ld, out.width, step.first.k, buffer);
    multiply(step.first, {seen, out.data + r * out.width * out.channels, out.channels, step.add, step.relu}, out.width);
  }
}

static void pointwise(const Step& step, View in, View out, Range which, Range pixels, float* scratch) {
  for (Int i = pixels.begin; i < pixels.end; i += kPixels) {
    const Int m = smaller(kPixels, pixels.end - i);
    const Inputs seen = inputs(in.data + i * in.channels, in.channels, m, step.first.k, scratch);
    const Rows rows = {seen, out.data + i * out.channels, out.channels, step.add, step.relu};
    multiply(step.first, step.first.weight, rows, m, which);
  }
}

// Each pixel of `low`, from channel `start` on, is added four times.
static void add_nearest(const Step& step, View low, View out, Range rows) {
  const Int C = out.channels;
  for (Int r = rows.begin; r < rows.end; ++r) {
    float* to = out.data + r * out.width * C;
    const float* from = low.data + r / 2 * low.width * low.channels + step.start;
    for (Int j = 0; j < low.width; ++j, from += low.channels, to += 2 * C) {
      Int c = 0;
      for (; c + kLanes <= C; c += kLanes) {
        const Vec v = load(from + c);
        store(to + c, load(to + c) + v);
        store(to + C + c, load(to + C + c) + v);
      }
      for (; c < C; ++c) {
        to[c] += from[c];
        to[C + c] += from[c];
      }
    }
  }
}

// Bilinear upsampling by two with the corners aligned, added.
static void add_bilinear(const Step&, View low, View out, Range rows) {
  const Int C = out.channels;
  const float up = out.height > 1 ? static_cast<float>(low.height - 1) / static_cast<float>(out.height - 1) : 0.f;
  const float side = out.width > 1 ? static_cast<float>(low.width - 1) / static_cast<float>(out.width - 1) : 0.f;
  for (Int r = rows.begin; r < rows.end; ++r) {
    const float y = up * static_cast<float>(r);
    const Int top = static_cast<Int>(y), below = smaller(top + 1, low.height - 1);
    const float dy = y - static_cast<float>(top);
    for (Int j = 0; j < out.width; ++j) {
      const float x = side * static_cast<float>(j);
      const Int left = static_cast<Int>(x), right = smaller(left + 1, low.width - 1);
      const float dx = x - static_cast<float>(left);
      const float a = (1 - dy) * (1 - dx), b = (1 - dy) * dx, c = dy * (1 - dx), d = dy * dx;
      const float *p = low.data + (top * low.width + left) * C, *q = low.data + (top * low.width + right) * C;
      const float *s = low.data + (below * low.width + left) * C, *t = low.data + (below * low.width + right) * C;
      float* to = out.data + (r * out.width + j) * C;
      Int i = 0;
      for (; i + kLanes <= C; i += kLanes)
        store(to + i, load(to + i) + a * load(p + i) + b * load(q + i) + c * load(s + i) + d * load(t + i));
      for (; i < C; ++i) to[i] += a * p[i] + b * q[i] + c * s[i] + d * t[i];
    }
  }
}

// Channels in another order, with or without ReLU.
static void reorder(const Step& step, View in, View out, Range pixels) {
  const Int C = in.channels;
  const int32_t* order = step.order;
  for (Int r = pixels.begin; r < pixels.end; ++r) {
    const float* from = in.data + r * C;
    float* to = out.data + r * C;
    Int c = 0;
#if defined(__AVX512F__)
    // permutations of registers are several times faster than gathers from memory
    const Int pairs = ceil_div(C, 2 * kLanes);
    const __m512 least = _mm512_set1_ps(step.relu ? 0.f : -INFINITY);
    for (; c < C; c += kLanes) {
      const __m512i at = _mm512_loadu_si512(order + c);
      const __m512i pair = _mm512_srli_epi32(at, 5);
      __m512 v = _mm512_setzero_ps();
      for (Int i = 0; i < pairs; ++i) {
        const float* p = from + i * 2 * kLanes;
        const __mmask16 here = _mm512_cmpeq_epi32_mask(pair, _mm512_set1_epi32(static_cast<int>(i)));
        // what is read behind the row is not taken
        const __m512 high = i * 2 * kLanes + kLanes < C ? _mm512_loadu_ps(p + kLanes) : v;
        v = _mm512_mask_mov_ps(v, here, _mm512_permutex2var_ps(_mm512_loadu_ps(p), at, high));
      }
      store_part(to + c, (Vec)_mm512_max_ps(least, v), C - c);
    }
#endif
    // first all, then the ReLU of whole vectors: compilers make branches of the choice for single numbers
    const Int rest = c;
    for (; c < C; ++c) to[c] = from[order[c]];
    if (step.relu)
      for (c = rest; c < C; c += kLanes) finish(load(to + c), to + c, C - c, false, true);
  }
}

// The last product, to maps (n, H, W)
static void head(const Step& step, View in, float* heatmaps, Range pixels, float* scratch) {
  const Int n = step.first.n, all = in.height * in.width;
  float* buffer = scratch + kPixels * n + kSlack;
  for (Int i = pixels.begin; i < pixels.end; i += kPixels) {
    const Int m = smaller(kPixels, pixels.end - i);
    const Inputs seen = inputs(in.data + i * in.channels, in.channels, m, step.first.k, buffer);
    multiply(step.first, {seen, scratch, n, false, step.relu}, m);
    for (Int c = 0; c < n; ++c)
      for (Int j = 0; j < m; ++j) heatmaps[c * all + i + j] = scratch[j * n + c];
  }
}

static Int scratch(const Step& step, Int, Int width) {
  switch (step.op) {
    case Op::kStem: {
      // `width` is that of the image
      const Int w = width / 2;
      return w * (step.first.k + step.first.n) + 3 * w * (step.keep + step.second.n) + w * step.dw.width +
             larger(larger(room(w, step.first.k), room(w, step.second.k)), room(w / 2, step.third.k)) + 6 * kSlack;
    }
    case Op::kBlock: {
      const Int q = group(width), wide = kPanel * kLanes;
      return ring_rows(q) * width * wide + room(q * width, step.first.k) + kSlack;
    }
    case Op::kSeparable: return width * step.dw.width + kSlack + room(width, step.first.k);
    case Op::kPointwise: return room(kPixels, step.first.k);
    case Op::kHead: return kPixels * step.first.n + kSlack + room(kPixels, step.first.k);
    default: return 0;
  }
}

// As many sums at a time as hide the latency, and 16 registers hold with what is multiplied
static Int registers_only(Int rounds, float* sums) {
  constexpr int kSums = 12;
  Vec sum[kSums];
#pragma GCC unroll 16
  for (int i = 0; i < kSums; ++i) sum[i] = spread(static_cast<float>(i));
  const Vec a = spread(0.999f), b = spread(0.001f);
  for (Int r = 0; r < rounds; ++r) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i)
#if defined(__AVX512VNNI__)
      sum[i] = (Vec)_mm512_dpbusd_epi32((__m512i)sum[i], (__m512i)a, (__m512i)b);
#elif defined(__AVX512BF16__)
      sum[i] = (Vec)_mm512_dpbf16_ps((__m512)sum[i], (__m512bh)(__m512)a, (__m512bh)(__m512)b);
#else
      sum[i] = sum[i] * a + b;
#endif
  }
  for (int i = 1; i < kSums; ++i) sum[0] += sum[i];
  store(sums, sum[0]);
  return rounds * kSums * kLanes * Kind::kStep;
}

#define WIDEHRNET_TEXT(x) #x
#define WIDEHRNET_NAME(x) WIDEHRNET_TEXT(x)

extern const Variant variant;
const Variant variant = {
    WIDEHRNET_NAME(WIDEHRNET_VARIANT),
    static_cast<Precision>(Kind::kStep),
    width,
    panels,
    packed,
    pack,
    scratch,
    stem,
    expand,
    gate,
    project,
    separable,
    pointwise,
    add_nearest,
    add_bilinear,
    reorder,
    head,
    registers_only,
};

}  // namespace WIDEHRNET_VARIANT
}  // namespace widehrnet
