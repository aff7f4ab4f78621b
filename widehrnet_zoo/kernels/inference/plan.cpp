#include "plan.h"

#include <algorithm>
#include <map>
#include <set>

namespace widehrnet {
namespace {

// Buffers are shared by values that are not needed at the same time. Which phase waits for which follows from the
// buffers that they read and write.
class Planner {
 public:
  Planner(const Program& program, Int height, Int width, int threads)
      : program_(program), v_(*program.variant), threads_(threads) {
    plan_.height = height;
    plan_.width = width;
  }

  Plan make() {
    const auto& steps = program_.steps;
    std::vector<size_t> last(program_.slots.size(), 0);
    for (size_t i = 0; i < steps.size(); ++i)
      for (int slot : {steps[i].from, steps[i].to})
        if (slot >= 0) last[slot] = i;
    plan_.slots.resize(program_.slots.size());
    std::vector<bool> known(program_.slots.size(), false);
    for (size_t i = 0; i < steps.size(); ++i) {
      const Step& step = steps[i];
      if (step.to >= 0 && !known[step.to]) {
        plan_.slots[step.to] = take(pixels(step.to) * program_.slots[step.to].channels);
        known[step.to] = true;
      }
      add(step);
      for (int slot : {step.from, step.to})
        if (slot >= 0 && last[slot] == i && known[slot]) {
          give(plan_.slots[slot]);
          known[slot] = false;
        }
    }
    for (size_t i = plan_.phases.size(); i-- > 0;) {
      Phase& phase = plan_.phases[i];
      double most = 0;
      for (int next : phase.next) most = std::max(most, plan_.phases[next].rest);
      phase.rest += most;
    }
    plan_.memory = used_;
    return std::move(plan_);
  }

 private:
  Int height(int slot) const { return plan_.height >> program_.slots[slot].level; }
  Int width(int slot) const { return plan_.width >> program_.slots[slot].level; }
  Int pixels(int slot) const { return height(slot) * width(slot); }

  size_t take(Int floats) {
    const size_t size = (static_cast<size_t>(floats) + kSlack + 15) / 16 * 16;
    // the buffer that fits best, or a new one
    auto found = free_.lower_bound(size);
    if (found != free_.end() && found->first <= size + size / 4) {
      const size_t at = found->second;
      free_.erase(found);
      return at;
    }
    const size_t at = used_;
    used_ += size;
    sizes_[at] = size;
    return at;
  }
  void give(size_t at) { free_.emplace(sizes_[at], at); }

  Phase& phase(Part part, const Step& step, std::set<size_t> reads, std::set<size_t> writes, double work) {
    const int me = static_cast<int>(plan_.phases.size());
    std::set<int> before;
    for (size_t at : reads) {
      if (writer_.count(at)) before.insert(writer_[at]);
      readers_[at].insert(me);
    }
    for (size_t at : writes) {
      if (writer_.count(at)) before.insert(writer_[at]);
      for (int reader : readers_[at])
        if (reader != me) before.insert(reader);
      readers_[at].clear();
      writer_[at] = me;
    }
    Phase made;
    made.part = part;
    made.step = &step;
    made.rest = work;
    made.waits = static_cast<int>(before.size());
    plan_.phases.push_back(made);
    for (int i : before) plan_.phases[i].next.push_back(me);
    return plan_.phases.back();
  }

  void scratch(const Step& step, Int width) {
    plan_.scratch = std::max(plan_.scratch, static_cast<size_t>(v_.scratch(step, larger(width, 1), larger(width, 1))));
  }

  // Runs of rows or pixels: one for each thread, more where the threads would not come out even, none too small
  int parts(Int rows, Int least) const {
    if (threads_ == 1) return 1;
    return static_cast<int>(std::max<Int>(1, std::min<Int>({2 * threads_, kMaxUnits, rows / least})));
  }
  // Panels first, since they need no row twice; then bands of rows, until the threads come out nearly even
  static bool even(Int units, Int threads) { return 5 * units >= 4 * ceil_div(units, threads) * threads; }
  void split(Phase& phase, Int panels, Int most) const {
    phase.panels = static_cast<int>(threads_ == 1 ? 1 : std::min<Int>(panels, kMaxUnits));
    while (threads_ > 1 && phase.bands < most && !even(phase.panels * phase.bands, threads_) &&
           phase.panels * (phase.bands + 1) <= kMaxUnits)
      ++phase.bands;
    phase.units = phase.panels * phase.bands;
  }

  void block(const Step& step) {
    const Int rows = height(step.to), all = pixels(step.to), ld = step.dw.width, n = step.first.n;
    const size_t x = plan_.slots[step.to], y = take(all * ld);
    const double work = static_cast<double>(all) * static_cast<double>(n);
    const bool squeeze = step.squeeze.middle > 0;
    int bands = 0;
    size_t sums = 0, gates = 0, scaled = 0;
    {
      // the panels of an expansion are never put together: each has its own ring
      Phase cut;
      split(cut, v_.panels(n), std::max<Int>(1, rows / 4));
      bands = cut.bands;
    }
    if (squeeze) {
      sums = take(bands * ld);
      gates = take(ld + step.squeeze.width1 + 2 * kSlack);
      if (gates_on_weights(step, all)) scaled = take((v_.packed(step.second.k, step.second.n) + 3) / 4);
    }
    std::set<size_t> made = {y};
    if (squeeze) made.insert(sums);
    Phase* p = &phase(Part::kExpand, step, {x}, made, work * static_cast<double>(step.first.k + 9));
    p->bands = bands;
    p->panels = static_cast<int>(v_.panels(n));
    p->units = static_cast<int>(std::min<Int>(kMaxUnits, Int{p->panels} * bands));
    p->y = y;
    p->sums = squeeze ? sums : 0;
    scratch(step, width(step.to));
    std::set<size_t> read = {y};
    if (squeeze) {
      std::set<size_t> writes = {gates};
      if (gates_on_weights(step, all)) {
        writes.insert(scaled);
        read.insert(scaled);
      } else {
        writes.insert(y);
      }
      p = &phase(Part::kGate, step, {sums, y}, writes, 4.0 * static_cast<double>(n * step.squeeze.middle));
      p->bands = bands;
      p->y = y, p->sums = sums, p->gates = gates, p->scaled = scaled;
    }
    p = &phase(Part::kProject, step, read, {x}, work * static_cast<double>(step.second.n));
    if (all >= 1024 || threads_ == 1) {
      p->units = p->bands = parts(all, 96);
    } else {
      split(*p, v_.panels(step.second.n), std::max<Int>(1, all / 24));
    }
    p->y = y, p->scaled = scaled;
    give(y);
    if (squeeze) {
      give(sums);
      give(gates);
      if (gates_on_weights(step, all)) give(scaled);
    }
  }

  void add(const Step& step) {
    const auto place = [&](int slot) { return plan_.slots[slot]; };
    const double k = static_cast<double>(step.first.k);
    switch (step.op) {
      case Op::kStem: {
        const Int rows = height(step.to);
        phase(Part::kStem, step, {}, {place(step.to)}, static_cast<double>(16 * pixels(step.to) * step.first.n) * k)
            .units = parts(rows, 4);
        scratch(step, plan_.width);
        return;
      }
      case Op::kBlock: return block(step);
      case Op::kSeparable: {
        const double work = static_cast<double>(pixels(step.to)) * k * static_cast<double>(step.first.n + 9);
        phase(Part::kSeparable, step, {place(step.from)}, {place(step.to)}, work).units =
            parts(height(step.to), larger(1, 24 / width(step.to)));
        scratch(step, width(step.to));
        return;
      }
      case Op::kPointwise: {
        const Int all = pixels(step.to);
        Phase& p = phase(Part::kPointwise, step, {place(step.from)}, {place(step.to)},
                         static_cast<double>(all * step.first.n) * k);
        split(p, v_.panels(step.first.n), std::max<Int>(1, all / 48));
        scratch(step, 1);
        return;
      }
      case Op::kHead: {
        const Int all = pixels(step.from);
        phase(Part::kHead, step, {place(step.from)}, {}, static_cast<double>(all * step.first.n) * k).units =
            parts(all, 192);
        scratch(step, 1);
        return;
      }
      case Op::kAddNearest:
      case Op::kAddBilinear: {
        const Int all = pixels(step.to) * program_.slots[step.to].channels;
        const bool nearest = step.op == Op::kAddNearest;
        phase(nearest ? Part::kAddNearest : Part::kAddBilinear, step, {place(step.from)}, {place(step.to)},
              static_cast<double>(all) * 2)
            .units = parts(std::min<Int>(height(step.to), all >> 13), 1);
        return;
      }
      default: {
        const Int all = pixels(step.to);
        phase(Part::kReorder, step, {place(step.from)}, {place(step.to)}, static_cast<double>(all * step.channels) * 2)
            .units = parts(all * step.channels >> 13, 1);
      }
    }
  }

  const Program& program_;
  const Variant& v_;
  const int threads_;
  Plan plan_;
  size_t used_ = 0;
  std::map<size_t, size_t> sizes_;
  std::multimap<size_t, size_t> free_;
  std::map<size_t, int> writer_;
  std::map<size_t, std::set<int>> readers_;
};

Range cut(Int all, int part, int parts) { return {all * part / parts, all * (part + 1) / parts}; }

}  // namespace

Plan make_plan(const Program& program, Int height, Int width, int threads) {
  return Planner(program, height, width, threads).make();
}

double multiply_adds(const Program& program, const Plan& plan, const Phase& phase) {
  const Step& step = *phase.step;
  const int level = program.slots[step.to >= 0 ? step.to : step.from].level;
  const auto of = [](const Product& p) { return static_cast<double>(p.k * p.n); };
  const double pixels = static_cast<double>((plan.height >> level) * (plan.width >> level));
  const double depthwise = 9.0 * static_cast<double>(step.dw.channels);
  switch (phase.part) {
    case Part::kStem: return pixels * (4 * (of(step.first) + of(step.second)) + depthwise + of(step.third));
    case Part::kExpand: return pixels * (of(step.first) + depthwise);
    case Part::kGate: return 2.0 * static_cast<double>(step.squeeze.middle * step.dw.channels);
    case Part::kProject: return pixels * of(step.second);
    case Part::kSeparable: return pixels * (depthwise + of(step.first));
    case Part::kPointwise:
    case Part::kHead: return pixels * of(step.first);
    default: return 0;
  }
}

void run_unit(const Program& program, const Plan& plan, const Phase& phase, int unit, float* memory, float* scratch,
              const float* image, float* heatmaps) {
  const Variant& v = *program.variant;
  const Step& step = *phase.step;
  const auto view = [&](int slot) -> View {
    const Slot& s = program.slots[slot];
    return {memory + plan.slots[slot], plan.height >> s.level, plan.width >> s.level, s.channels};
  };
  const auto rows = [&](const View& x) { return cut(x.height, unit, phase.units); };
  const auto pixels = [&](const View& x) { return cut(x.height * x.width, unit, phase.units); };
  switch (phase.part) {
    case Part::kStem: {
      const View out = view(step.to), in = {nullptr, plan.height, plan.width, program.image_channels};
      return v.stem(step, image, in, out, rows(out), scratch);
    }
    case Part::kExpand: {
      const View x = view(step.to);
      // a unit is a panel of a band, or a run of them where they are more than units
      const Range which = cut(Int{phase.panels} * phase.bands, unit, phase.units);
      for (Int i = which.begin; i < which.end; ++i) {
        const int band = static_cast<int>(i / phase.panels);
        float* sums = step.squeeze.middle ? memory + phase.sums + band * step.dw.width : nullptr;
        v.expand(step, x, memory + phase.y, sums, i % phase.panels, cut(x.height, band, phase.bands), scratch);
      }
      return;
    }
    case Part::kGate:
      return v.gate(step, view(step.to), memory + phase.y, memory + phase.sums, phase.bands, memory + phase.gates,
                    memory + phase.scaled);
    case Part::kProject: {
      const View x = view(step.to);
      const Range panels = cut(v.panels(step.second.n), unit % phase.panels, phase.panels);
      const Range part = cut(x.height * x.width, unit / phase.panels, phase.bands);
      return v.project(step, x, memory + phase.y, memory + phase.scaled, panels, part);
    }
    case Part::kSeparable: {
      const View out = view(step.to);
      return v.separable(step, view(step.from), out, rows(out), scratch);
    }
    case Part::kPointwise: {
      const View out = view(step.to);
      const Range panels = cut(v.panels(step.first.n), unit % phase.panels, phase.panels);
      const Range part = cut(out.height * out.width, unit / phase.panels, phase.bands);
      return v.pointwise(step, view(step.from), out, panels, part, scratch);
    }
    case Part::kAddNearest: {
      const View out = view(step.to);
      return v.add_nearest(step, view(step.from), out, rows(out));
    }
    case Part::kAddBilinear: {
      const View out = view(step.to);
      return v.add_bilinear(step, view(step.from), out, rows(out));
    }
    case Part::kReorder: {
      const View out = view(step.to);
      return v.reorder(step, view(step.from), out, pixels(out));
    }
    case Part::kHead: {
      const View in = view(step.from);
      return v.head(step, in, heatmaps, pixels(in), scratch);
    }
    default: return;
  }
}

}  // namespace widehrnet
