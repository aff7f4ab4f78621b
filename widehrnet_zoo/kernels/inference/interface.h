/* The C interface of the kernels. Nothing here throws, allocates for the caller or keeps a pointer of the caller. */
#pragma once
#include <stdint.h>

#if defined(_WIN32)
#define WIDEHRNET_API __declspec(dllexport)
#else
#define WIDEHRNET_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Changes when anything below changes; functions may be added. */
WIDEHRNET_API int widehrnet_interface(void);

/* The sets of kernels in this build, the best last: their number, names, whether this processor runs them, and whether
   their products are of bfloat16 numbers or of 8-bit integers. */
WIDEHRNET_API int widehrnet_variants(void);
WIDEHRNET_API const char* widehrnet_variant_name(int variant);
WIDEHRNET_API int widehrnet_variant_runs(int variant);
WIDEHRNET_API int widehrnet_variant_bf16(int variant);
WIDEHRNET_API int widehrnet_variant_int8(int variant);

/* A network from `count` steps of 20 numbers (see step.h and program.cpp) that name places among `size` floats. Null if
   they are wrong or there is no memory: `error` then says why. */
WIDEHRNET_API void* widehrnet_open(int variant, const int64_t* steps, int64_t count, const float* numbers, int64_t size,
                                   char* error, int64_t room);
WIDEHRNET_API void widehrnet_close(void* network);

/* images (batch, channels, height, width) to heatmaps (batch, outputs, height / 4, width / 4), on at most `threads`
   threads. 0; 1 if there is no memory; 2 if the arguments cannot be: height and width are multiples of 32. */
WIDEHRNET_API int widehrnet_run(void* network, const float* images, int64_t batch, int64_t height, int64_t width,
                                float* heatmaps, int threads);

/* One image on one thread: seconds and multiply-adds of the parts of its steps, 10 numbers each, by kind: stem, expand,
   gate, project, separable, pointwise, add_nearest, add_bilinear, reorder, head. Returns as widehrnet_run. */
WIDEHRNET_API int widehrnet_profile(void* network, const float* image, int64_t height, int64_t width, float* heatmaps,
                                    double* seconds, double* work);

/* Multiply-adds per second of one thread on registers alone, which the products can at most reach; 0 if the processor
   does not run the variant. */
WIDEHRNET_API double widehrnet_peak(int variant);

#ifdef __cplusplus
}
#endif
