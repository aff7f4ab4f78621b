// What the page in the browser does around the network: pixels to its input, and its maps to keypoints and boxes.
// The arithmetic is that of the Python package, whose modules say where it comes from.
#pragma once
#include <vector>

#include "step.h"

namespace widehrnet {

// Linear interpolation along one side: new pixel i of `count` lies at step * i + start, and takes the old ones of
// `limit` that are nearer than `reach`. With a reach above 1 it is their mean, as Pillow makes it; with 1 what lies
// outside the picture is black.
struct Axis {
  Int count, limit;
  double step, start, reach;
};

struct Picture {
  const uint8_t* rgba;
  Int width, height;
};

// A picture in another size. `out`: RGB as whole numbers, in three planes of `plane` floats with rows of `ld`.
void resample(const Picture& picture, const Axis& x, const Axis& y, float* out, Int ld, Int plane);

// A whole picture in the middle of an input of rows x columns, on black
void letterbox(const Picture& picture, Int rows, Int columns, float* out);

// `decode_heatmaps` with 'dark' of one heatmap: x, y in its pixels, and the height of the maximum
void keypoint(const float* map, Int height, Int width, float* out);

struct Box {
  float side[4], score;
};

// `find_boxes` of the maps of one photo, the highest score first
std::vector<Box> find_boxes(const float* maps, Int height, Int width, float min_score);

// A box in the input as one in the picture; false if it is smaller than a pixel there
bool from_letterbox(Box& box, Int width, Int height, Int rows, Int columns);

}  // namespace widehrnet
