// Runs the kernels without Python, to check builds for other processors: reads a program, images and the heatmaps that
// PyTorch gives for them, and prints for each set of kernels and number of threads how far its heatmaps are away.
//
//   kernels_check LIBRARY steps.bin numbers.bin images.bin heatmaps.bin BATCH HEIGHT WIDTH
#include <stdio.h>
#include <stdlib.h>

#include <cmath>
#include <vector>

#include "interface.h"

#if defined(_WIN32)
#include <windows.h>
static void* open_library(const char* path) { return reinterpret_cast<void*>(LoadLibraryA(path)); }
static void* find(void* library, const char* name) {
  return reinterpret_cast<void*>(GetProcAddress(static_cast<HMODULE>(library), name));
}
#else
#include <dlfcn.h>
static void* open_library(const char* path) { return dlopen(path, RTLD_NOW); }
static void* find(void* library, const char* name) { return dlsym(library, name); }
#endif

template <typename T>
static std::vector<T> read(const char* path) {
  FILE* file = fopen(path, "rb");
  if (!file) exit(2);
  std::vector<T> values;
  T value;
  while (fread(&value, sizeof value, 1, file) == 1) values.push_back(value);
  fclose(file);
  return values;
}

int main(int, char** given) {
  void* library = open_library(given[1]);
  if (!library) return printf("%s cannot be loaded\n", given[1]), 2;
#define FIND(name) const auto name = reinterpret_cast<decltype(&widehrnet_##name)>(find(library, "widehrnet_" #name))
  FIND(variants);
  FIND(variant_name);
  FIND(variant_runs);
  FIND(open);
  FIND(run);
  FIND(close);
  const auto steps = read<int64_t>(given[2]);
  const auto numbers = read<float>(given[3]), images = read<float>(given[4]), expected = read<float>(given[5]);
  const long batch = atol(given[6]), height = atol(given[7]), width = atol(given[8]);
  float most = 0;
  for (float v : expected) most = std::fmax(most, std::fabs(v));
  for (int i = 0; i < variants(); ++i) {
    if (!variant_runs(i)) continue;
    char error[200] = "";
    void* network = open(i, steps.data(), static_cast<int64_t>(steps.size()) / 20, numbers.data(),
                         static_cast<int64_t>(numbers.size()), error, sizeof error);
    if (!network) return printf("%s\n", error), 1;
    for (int threads = 1; threads <= 3; ++threads) {
      std::vector<float> found(expected.size());
      const int code = run(network, images.data(), batch, height, width, found.data(), threads);
      float apart = code ? INFINITY : 0;
      for (size_t j = 0; j < found.size(); ++j) apart = std::fmax(apart, std::fabs(found[j] - expected[j]));
      printf("%s %d %g\n", variant_name(i), threads, static_cast<double>(apart / most));
    }
    close(network);
  }
  return 0;
}
