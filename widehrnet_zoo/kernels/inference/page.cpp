#include "page.h"

#include <math.h>

#include <algorithm>

namespace widehrnet {
namespace {

struct Taps {
  Int first;
  std::vector<double> weights;
};

std::vector<Taps> taps_of(const Axis& axis) {
  std::vector<Taps> taps(axis.count);
  for (Int i = 0; i < axis.count; ++i) {
    const double place = axis.step * i + axis.start;
    const Int first = static_cast<Int>(std::max(0.0, std::min(floor(place - axis.reach) + 1, 1e9)));
    const Int end = static_cast<Int>(std::min<double>(axis.limit, std::max(ceil(place + axis.reach), -1e9)));
    std::vector<double>& weights = taps[i].weights;
    double sum = 0;
    for (Int j = first; j < end; ++j) {
      weights.push_back(1 - fabs(j - place) / axis.reach);
      sum += weights.back();
    }
    if (axis.reach > 1)
      for (double& w : weights) w = floor(w / sum * (1 << 22) + 0.5) / (1 << 22);  // as many bits as in Pillow
    taps[i].first = std::min(first, axis.limit - 1);
  }
  return taps;
}

}  // namespace

void resample(const Picture& picture, const Axis& x, const Axis& y, float* out, Int ld, Int plane) {
  const auto columns = taps_of(x), rows = taps_of(y);
  Int top = picture.height, end = 0;
  for (const Taps& taps : rows) {
    top = std::min(top, taps.first);
    end = std::max(end, taps.first + static_cast<Int>(taps.weights.size()));
  }
  const Int line = 3 * x.count;
  std::vector<float> between(static_cast<size_t>(line) * static_cast<size_t>(std::max<Int>(0, end - top)));
  float* to = between.data();
  for (Int r = top; r < end; ++r)
    for (const Taps& taps : columns) {
      const uint8_t* from = picture.rgba + 4 * (r * picture.width + taps.first);
      double sum[3] = {};
      for (double w : taps.weights) {
        for (int c = 0; c < 3; ++c) sum[c] += w * from[c];
        from += 4;
      }
      for (double s : sum) *to++ = static_cast<float>(x.reach > 1 ? floor(s + 0.5) : s);  // Pillow rounds here, too
    }
  for (Int r = 0; r < y.count; ++r)
    for (Int i = 0; i < line; ++i) {
      const float* from = between.data() + (rows[r].first - top) * line + i;
      double sum = 0.5;
      for (double w : rows[r].weights) {
        sum += w * *from;
        from += line;
      }
      out[i % 3 * plane + r * ld + i / 3] = static_cast<float>(floor(sum));
    }
}

namespace {

struct Placed {
  double scale;
  Int width, height, left, top;
};

Placed place(Int width, Int height, Int rows, Int columns) {
  const double scale = std::min(static_cast<double>(rows) / height, static_cast<double>(columns) / width);
  const auto side = [&](Int of) { return std::max<Int>(1, static_cast<Int>(nearbyint(of * scale))); };
  return {scale, side(width), side(height), (columns - side(width)) / 2, (rows - side(height)) / 2};
}

}  // namespace

void letterbox(const Picture& picture, Int rows, Int columns, float* out) {
  const Placed at = place(picture.width, picture.height, rows, columns);
  const auto axis = [](Int count, Int limit) -> Axis {
    const double step = static_cast<double>(limit) / count;
    return {count, limit, step, (step - 1) / 2, std::max(step, 1 + 1e-9)};
  };
  std::fill(out, out + 3 * rows * columns, 0.f);
  const Axis x = axis(at.width, picture.width), y = axis(at.height, picture.height);
  resample(picture, x, y, out + at.top * columns + at.left, columns, rows * columns);
}

bool from_letterbox(Box& box, Int width, Int height, Int rows, Int columns) {
  const Placed at = place(width, height, rows, columns);
  for (int i = 0; i < 4; ++i) {
    const double moved = (box.side[i] - (i % 2 ? at.top : at.left)) / at.scale;
    box.side[i] = static_cast<float>(std::max(0.0, std::min<double>(moved, i % 2 ? height : width)));
  }
  return box.side[2] - box.side[0] >= 1 && box.side[3] - box.side[1] >= 1;
}

namespace {

constexpr int kReach = 2;  // pixels around the maximum that are looked at, and the furthest that a keypoint moves

struct Offset {
  double x = 0, y = 0;
};

// Where a quadratic with these second derivatives and slopes has its maximum; the middle if it has none near
Offset maximum(double xx, double yy, double xy, double gx, double gy, double least) {
  const double det = xx * yy - xy * xy;
  if (!(det > least && xx < 0)) return {};
  const Offset offset = {(xy * gy - yy * gx) / det, (xy * gx - xx * gy) / det};
  return fabs(offset.x) <= kReach && fabs(offset.y) <= kReach ? offset : Offset{};
}

// A heatmap with zeros around it, seen from its maximum
struct Around {
  const float* map;
  Int height, width, x, y;
  double operator()(Int dx, Int dy) const {
    const Int column = x + dx, row = y + dy;
    return column < 0 || row < 0 || column >= width || row >= height ? 0 : map[row * width + column];
  }
};

// By the Taylor expansion of the logarithm of the smoothed heatmap
Offset expand_log(const Around& at, Int radius) {
  constexpr int kSize = 2 * kReach + 1;
  const double sigma = 0.3 * static_cast<double>(radius - 1) + 0.8;
  const Int margin = radius + kReach;
  std::vector<double> kernel;
  double total = 0;
  for (Int i = -radius; i <= radius; ++i) {
    kernel.push_back(exp(-static_cast<double>(i * i) / (2 * sigma * sigma)));
    total += kernel.back();
  }
  double log_[kSize][kSize];
  for (int i = 0; i < kSize; ++i) {
    std::vector<double> row;
    for (Int dx = -margin; dx <= margin; ++dx) {
      double sum = 0;
      for (Int j = -radius; j <= radius; ++j) sum += kernel[j + radius] * at(dx, i - kReach + j);
      row.push_back(sum / total);
    }
    for (int j = 0; j < kSize; ++j) {
      double sum = 0;
      for (Int k = 0; k <= 2 * radius; ++k) sum += kernel[k] * row[j + k];
      log_[i][j] = log(std::max(sum / total, 1e-10));
    }
  }
  const auto l = [&](int dx, int dy) { return log_[kReach + dy][kReach + dx]; };
  const double gx = (l(1, 0) - l(-1, 0)) / 2, gy = (l(0, 1) - l(0, -1)) / 2;
  const double xx = (l(2, 0) - 2 * l(0, 0) + l(-2, 0)) / 4, yy = (l(0, 2) - 2 * l(0, 0) + l(0, -2)) / 4;
  const double xy = (l(1, 1) - l(-1, 1) - l(1, -1) + l(-1, -1)) / 4;
  return maximum(xx, yy, xy, gx, gy, 0);
}

// By the Gaussian that fits best, of what is inside the border
Offset fit_gaussian(const Around& at, Int radius) {
  const Int reach = std::max<Int>(2, static_cast<Int>(nearbyint(static_cast<double>(radius) * 0.6)));
  double m[6][7] = {}, most = 1e-30;
  for (Int dy = -reach; dy <= reach; ++dy)
    for (Int dx = -reach; dx <= reach; ++dx) most = std::max(most, at(dx, dy));
  for (Int dy = -reach; dy <= reach; ++dy)
    for (Int dx = -reach; dx <= reach; ++dx) {
      const double value = at(dx, dy) / most, x = static_cast<double>(dx), y = static_cast<double>(dy);
      if (value <= 1e-3) continue;
      const double terms[7] = {1, x, y, x * x, x * y, y * y, log(value)};
      for (int i = 0; i < 6; ++i)
        for (int j = 0; j < 7; ++j) m[i][j] += value * value * terms[i] * terms[j];
    }
  for (int i = 0; i < 6; ++i) m[i][i] += 1e-9;
  // Gauss and Jordan; the matrix is positive definite, so that no rows change places
  for (int i = 0; i < 6; ++i)
    for (int r = 0; r < 6; ++r) {
      const double factor = m[r][i] / m[i][i];
      if (r != i)
        for (int j = i; j < 7; ++j) m[r][j] -= factor * m[i][j];
    }
  const auto solution = [&](int i) { return m[i][6] / m[i][i]; };
  const Offset offset = maximum(2 * solution(3), 2 * solution(5), solution(4), solution(1), solution(2), 1e-9);
  const auto inside = [](double place, Int side) {
    return std::max(-0.5, std::min(place, static_cast<double>(side) - 0.5));
  };
  return {inside(at.x + offset.x, at.width) - at.x, inside(at.y + offset.y, at.height) - at.y};
}

}  // namespace

void keypoint(const float* map, Int height, Int width, float* out) {
  const Int index = static_cast<Int>(std::max_element(map, map + height * width) - map);
  const Around at = {map, height, width, index % width, index / width};
  const Int radius = std::max<Int>(1, static_cast<Int>(nearbyint(static_cast<double>(height) * 11 / 128 - 0.5)));
  // smoothing reads zeros beyond the border, which pull the maximum inwards
  const Int margin = radius + kReach;
  const bool near = at.x < margin || at.y < margin || at.x >= width - margin || at.y >= height - margin;
  const Offset offset = near ? fit_gaussian(at, radius) : expand_log(at, radius);
  out[0] = static_cast<float>(at.x + offset.x);
  out[1] = static_cast<float>(at.y + offset.y);
  out[2] = map[index];
}

namespace {

constexpr int kBins = 16, kMost = 1000;  // positions that are looked at
constexpr float kNear = 4, kFar = 512, kOverlap = 0.45f, kAlike = 0.65f;

float area(const Box& b) { return (b.side[2] - b.side[0]) * (b.side[3] - b.side[1]); }

float common(const Box& a, const Box& b) {
  const auto shared = [&](int i) {
    return std::max(0.f, std::min(a.side[i + 2], b.side[i + 2]) - std::max(a.side[i], b.side[i]));
  };
  return shared(0) * shared(1);
}

Box decode(const float* maps, Int at, Int all, Int width, float score) {
  const float step = log1pf(kFar / kNear) / (kBins - 1);
  Box box;
  box.score = score;
  for (int i = 0; i < 4; ++i) {
    const float* bins = maps + (1 + i * kBins) * all + at;
    float most = bins[0], sum = 0, mean = 0;
    for (int j = 1; j < kBins; ++j) most = std::max(most, bins[j * all]);
    for (int j = 0; j < kBins; ++j) {
      const float weight = expf(bins[j * all] - most);
      sum += weight;
      mean += weight * static_cast<float>(j);
    }
    const float distance = expm1f(mean / sum * step) * kNear;
    const float place = (static_cast<float>(i % 2 ? at / width : at % width) + 0.5f) * 4;
    box.side[i] = i < 2 ? place - distance : place + distance;
  }
  return box;
}

// The mean of the boxes like one, weighted by IoU times score
Box average(const Box& mine, const std::vector<Box>& boxes) {
  Box mean = {{}, mine.score};
  float total = 0;
  for (const Box& box : boxes) {
    const float shared = common(mine, box), overlap = shared / std::max(area(mine) + area(box) - shared, 1e-9f);
    if (overlap < kAlike || 2 * box.score < mine.score) continue;
    for (int i = 0; i < 4; ++i) mean.side[i] += overlap * box.score * box.side[i];
    total += overlap * box.score;
  }
  for (float& side : mean.side) side /= total;
  return total > 0 ? mean : mine;  // a box without an area is like none, itself neither
}

}  // namespace

std::vector<Box> find_boxes(const float* maps, Int height, Int width, float min_score) {
  const Int all = height * width;
  const auto score = [&](Int i) { return 1 / (1 + expf(-maps[i])); };
  std::vector<Int> places;
  for (Int i = 0; i < all; ++i)
    if (score(i) >= min_score / 2) places.push_back(i);
  std::stable_sort(places.begin(), places.end(), [&](Int a, Int b) { return maps[a] > maps[b]; });
  if (places.size() > kMost) places.resize(kMost);
  std::vector<Box> boxes, kept, means;
  for (Int i : places) boxes.push_back(decode(maps, i, all, width, score(i)));
  for (const Box& box : boxes)
    if (std::none_of(kept.begin(), kept.end(), [&](const Box& other) {
          const float shared = common(box, other);
          return shared > kOverlap * (area(box) + area(other) - shared);
        }))
      kept.push_back(box);
  for (const Box& box : kept)
    if (box.score >= min_score) means.push_back(average(box, boxes));
  return means;
}

}  // namespace widehrnet
