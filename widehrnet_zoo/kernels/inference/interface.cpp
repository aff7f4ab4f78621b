#include "interface.h"

#include <string.h>

#include <algorithm>
#include <chrono>

#include "run.h"

#if defined(__x86_64__)
#define WIDEHRNET_X86 1
#include <cpuid.h>
#endif

// what every processor of the kind runs
#if defined(__aarch64__)
#define WIDEHRNET_BASE neon
#else
#define WIDEHRNET_BASE generic
#endif

namespace widehrnet {
namespace WIDEHRNET_BASE {
extern const Variant variant;
}
#if defined(WIDEHRNET_X86)
namespace avx2 {
extern const Variant variant;
}
namespace avx512 {
extern const Variant variant;
}
#if defined(WIDEHRNET_BF16)
namespace avx512_bf16 {
extern const Variant variant;
}
#endif
#if defined(WIDEHRNET_VNNI)
namespace avx512_vnni {
extern const Variant variant;
}
#endif
#endif

namespace {

#if defined(WIDEHRNET_X86)
struct Registers {
  uint32_t a, b, c, d;
};

Registers cpuid(uint32_t leaf, uint32_t sub) {
  Registers r = {0, 0, 0, 0};
  __get_cpuid_count(leaf, sub, &r.a, &r.b, &r.c, &r.d);
  return r;
}

// Registers that the operating system saves; vectors that it does not save cannot be used.
uint64_t saved_registers() {
  if (!(cpuid(1, 0).c >> 27 & 1)) return 0;
  uint32_t low, high;
  __asm__ __volatile__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

bool has_avx2() { return (saved_registers() & 0x6) == 0x6 && (cpuid(1, 0).c >> 12 & 1) && (cpuid(7, 0).b >> 5 & 1); }

bool has_avx512() {
  const uint32_t b = cpuid(7, 0).b;  // F, DQ, BW, VL
  return has_avx2() && (saved_registers() & 0xe6) == 0xe6 && (b >> 16 & 1) && (b >> 17 & 1) && (b >> 30 & 1) && b >> 31;
}

#if defined(WIDEHRNET_BF16)
bool has_avx512_bf16() { return has_avx512() && (cpuid(7, 1).a >> 5 & 1); }
#endif
#if defined(WIDEHRNET_VNNI)
bool has_avx512_vnni() { return has_avx512() && (cpuid(7, 0).c >> 11 & 1); }
#endif
#endif

}  // namespace

const std::vector<const Variant*>& variants() {
  static const auto* all = new std::vector<const Variant*>{
      &WIDEHRNET_BASE::variant,
#if defined(WIDEHRNET_X86)
      &avx2::variant,
      &avx512::variant,
#if defined(WIDEHRNET_BF16)
      &avx512_bf16::variant,
#endif
#if defined(WIDEHRNET_VNNI)
      &avx512_vnni::variant,
#endif
#endif
  };
  return *all;
}

bool runs_here(const Variant& variant) {
#if defined(WIDEHRNET_X86)
  if (&variant == &avx2::variant) return has_avx2();
  if (&variant == &avx512::variant) return has_avx512();
#if defined(WIDEHRNET_BF16)
  if (&variant == &avx512_bf16::variant) return has_avx512_bf16();
#endif
#if defined(WIDEHRNET_VNNI)
  if (&variant == &avx512_vnni::variant) return has_avx512_vnni();
#endif
#endif
  return &variant == &WIDEHRNET_BASE::variant;
}

}  // namespace widehrnet

using widehrnet::Network;
using widehrnet::variants;

namespace {
bool known(int variant) { return variant >= 0 && variant < static_cast<int>(variants().size()); }
}  // namespace

int widehrnet_interface(void) { return 1; }
int widehrnet_variants(void) { return static_cast<int>(variants().size()); }
const char* widehrnet_variant_name(int variant) { return known(variant) ? variants()[variant]->name : ""; }
int widehrnet_variant_runs(int variant) { return known(variant) && widehrnet::runs_here(*variants()[variant]); }
int widehrnet_variant_bf16(int variant) {
  return known(variant) && variants()[variant]->precision == widehrnet::Precision::kBF16;
}
int widehrnet_variant_int8(int variant) {
  return known(variant) && variants()[variant]->precision == widehrnet::Precision::kInt8;
}

void* widehrnet_open(int variant, const int64_t* steps, int64_t count, const float* numbers, int64_t size, char* error,
                     int64_t room) {
  const auto say = [&](const char* what) {
    if (room > 0) {
      strncpy(error, what, static_cast<size_t>(room - 1));
      error[room - 1] = 0;
    }
    return nullptr;
  };
  if (!widehrnet_variant_runs(variant)) return say("this processor does not run these kernels");
  if (count < 1 || size < 0) return say("the program is empty");
  try {
    return new Network(widehrnet::read_program(*variants()[variant], steps, count, numbers, size));
  } catch (const std::exception& problem) {
    return say(problem.what());
  } catch (...) {
    return say("unknown error");
  }
}

void widehrnet_close(void* network) { delete static_cast<Network*>(network); }

namespace {

bool fits(const Network& network, int64_t height, int64_t width) {
  if (height < 32 || width < 32 || height % 32 || width % 32 || height > 1 << 15 || width > 1 << 15) return false;
  const int64_t deepest = int64_t{1} << network.program().deepest;
  return height % deepest == 0 && width % deepest == 0;
}

}  // namespace

int widehrnet_run(void* network, const float* images, int64_t batch, int64_t height, int64_t width, float* heatmaps,
                  int threads) {
  if (!network || batch < 0 || threads < 1) return 2;
  Network& ready = *static_cast<Network*>(network);
  if (!fits(ready, height, width)) return 2;
  try {
    if (batch) ready.run(images, batch, height, width, heatmaps, std::min(threads, 256));
    return 0;
  } catch (...) {
    return 1;
  }
}

int widehrnet_profile(void* network, const float* image, int64_t height, int64_t width, float* heatmaps, double* seconds,
                      double* work) {
  if (!network || !fits(*static_cast<Network*>(network), height, width)) return 2;
  std::fill_n(seconds, static_cast<int>(widehrnet::Part::kParts), 0.0);
  std::fill_n(work, static_cast<int>(widehrnet::Part::kParts), 0.0);
  try {
    static_cast<Network*>(network)->profile(image, height, width, heatmaps, seconds, work);
    return 0;
  } catch (...) {
    return 1;
  }
}

double widehrnet_peak(int variant) {
  if (!widehrnet_variant_runs(variant)) return 0;
  float sums[64];
  double best = 0;
  for (int i = 0; i < 20; ++i) {  // the fastest of a few milliseconds: others may be at work here
    const auto start = std::chrono::steady_clock::now();
    const auto done = static_cast<double>(variants()[variant]->registers_only(50000, sums));
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    best = std::max(best, done / passed.count());
  }
  return best;
}
