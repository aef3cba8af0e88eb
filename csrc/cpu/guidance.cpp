// combine and guided_step on the CPU: see reg_engine/ops/formulas.py for what they compute.
//
// A tile of each input is brought into the innermost cache once, in the dtype of the arithmetic;
// short vector loops over the tile do the rest. What a coefficient of 0 excludes is not read.
#include "../guidance.h"

#include <torch/csrc/stable/library.h>

#include <cmath>
#include <limits>

#include "combine_half.h"
#include "convert.h"
#include "loops.h"
#include "tiles.h"

namespace reg_engine {
namespace {

constexpr int kMaxLags = 64;

template <typename T>
struct alignas(64) Tile {
  T values[kTile];
};

template <typename T>
struct Guided {
  Lane cond, ref, term, weight;
  T w;  // where there is no weight of each sample

  Guided(const View* views, const Walk& walk, T of_row)
      : cond(views[kCond], walk, kCond),
        ref(views[kRef], walk, kRef),
        term(views[kTerm], walk, kTerm),
        weight(views[kWeight], walk, kWeight),
        w(of_row) {}

  bool plain() const { return !ref && !term; }

  // cond + w T of one tile: where cond lies if there is no T, else in `buffer`.
  const T* operator()(const int64_t* at, int64_t n, T* buffer) const {
    if (plain()) return load(cond, at[kCond], n, buffer);
    Tile<T> c, r, t;
    const T* from = load(cond, at[kCond], n, c.values);
    const T* other = ref ? load(ref, at[kRef], n, r.values) : nullptr;
    const T* factor = term ? load(term, at[kTerm], n, t.values) : nullptr;
    if (weight) {
      Tile<T> direction, each;
      const T* towards = factor;
      if (ref) {
        subtract(direction.values, from, other, n);
        if (term) multiply(direction.values, factor, direction.values, n);
        towards = direction.values;
      }
      weigh(buffer, from, towards, load(weight, at[kWeight], n, each.values), n);
    } else if (!ref) {
      add(buffer, from, factor, w, n);
    } else if (!term) {
      guide(buffer, from, other, w, n);
    } else {
      rectify(buffer, from, other, factor, w, n);
    }
    return buffer;
  }
};

template <typename T>
struct Step {
  Guided<T> guided;
  Lane x_s, x, gain, noise, slot, nonfinite;  // slot: of the history, where d goes
  const T* row;
  Lane past[kMaxLags];
  T b[kMaxLags];
  int lags = 0;

  Step(const View* views, const Walk& walk, const T* numbers)
      : guided(views, walk, numbers[kW]),
        x_s(views[kTo], walk, kTo),
        x(views[kState], walk, kState),
        gain(views[kGain], walk, kGain),
        noise(views[kNoise], walk, kNoise),
        slot(views[kHistory], walk, kHistory),
        nonfinite(views[kNonfinite], walk, kNonfinite),
        row(numbers) {}

  // Take slots of the ring: `now` to write, the earlier ones with a coefficient to read.
  void remember(int64_t now, int64_t ring, int64_t slot_size, int64_t columns) {
    char* const first = slot.data;
    for (int64_t j = 1; j < columns - kFirstB; ++j) {
      if (row[kFirstB + j] == 0) continue;
      past[lags] = slot;
      past[lags].data = first + (now + ring - j) % ring * slot_size * sizeof(T);
      b[lags++] = row[kFirstB + j];
    }
    slot.data = first + now * slot_size * sizeof(T);
  }

  void operator()(const int64_t* at, int64_t n) const {
    Tile<T> guided_tile, x_tile, d_tile, next_tile, more;
    const T* g = guided(at, n, guided_tile.values);
    if (gain) {
      multiply(guided_tile.values, g, load(gain, at[kGain], n, more.values), n);
      g = guided_tile.values;
    }
    T* d = slot ? target(slot, at[kHistory], d_tile.values) : d_tile.values;
    T* next = target(x_s, at[kTo], next_tile.values);
    const T* state = load(x, at[kState], n, x_tile.values);
    if (row[kLimit] == std::numeric_limits<T>::infinity()) {
      update(next, d, state, g, row, n);
    } else {
      update_clipped(next, d, state, g, row, n);
    }
    if (slot) store(d, slot, at[kHistory], n);
    for (int j = 0; j < lags; ++j) {
      add(next, next, load(past[j], at[kHistory], n, more.values), b[j], n);
    }
    if (noise) add(next, next, load(noise, at[kNoise], n, more.values), row[kC], n);
    if (nonfinite && any_nonfinite(next, n)) mark(next, at[kNonfinite], n);
    store(next, x_s, at[kTo], n);
  }

  // Several threads may mark one sample, all with the same value.
  void mark(const T* values, int64_t at, int64_t n) const {
    T* const first = reinterpret_cast<T*>(nonfinite.at(at));
    for (int64_t i = 0; i < n; ++i) {
      if (!std::isfinite(values[i])) first[i * nonfinite.stride] = 1;
    }
  }
};

bool dense_halves(const Guided<float>& from, const Lane& to) {
  const auto fits = [&](const Lane& lane) { return lane.dtype == to.dtype && lane.stride == 1; };
  return (to.dtype == Dtype::kF16 || to.dtype == Dtype::kBF16) && fits(to) && fits(from.cond) &&
         (!from.ref || fits(from.ref)) && (!from.term || fits(from.term));
}

uint16_t* at_half(const Lane& lane, int64_t offset) {
  return lane ? reinterpret_cast<uint16_t*>(lane.at(offset)) : nullptr;
}

template <typename T>
void combine_as(const Guidance& all, T w) {
  for (int k = 0; k < all.count; ++k) {
    View views[kOperands];
    const Walk walk = all.walk(all.parts[k], views);
    const Guided<T> guided(views, walk, w);
    const Lane to(views[kTo], walk, kTo);
    bool fused = false;
    if constexpr (sizeof(T) == sizeof(float)) fused = dense_halves(guided, to);
    each_tile(walk, [&](const int64_t* at, int64_t n) {
      if (guided.plain()) return copy(guided.cond, at[kCond], to, at[kTo], n);
      if constexpr (sizeof(T) == sizeof(float)) {
        if (fused) {
          const Halves halves{at_half(to, at[kTo]), at_half(guided.cond, at[kCond]),
                              at_half(guided.ref, at[kRef]), at_half(guided.term, at[kTerm])};
          return to.dtype == Dtype::kF16 ? combine_halves<F16>(halves, w, n)
                                         : combine_halves<BF16>(halves, w, n);
        }
      }
      Tile<T> buffer;
      T* values = target(to, at[kTo], buffer.values);
      guided(at, n, values);
      store<T>(values, to, at[kTo], n);
    });
  }
}

void combine(const Tensor& cond, const Maybe& ref, const Maybe& term, double w, int64_t channels,
             const Tensor& out) {
  Guidance all;
  take_combine(all, cond, ref, term, w, channels, out);
  if (out.numel() == 0) return;
  if (all.views[kCond].dtype == Dtype::kF64) {
    combine_as<double>(all, w);
  } else {
    combine_as<float>(all, static_cast<float>(w));
  }
}

template <typename T>
void step_as(Guidance& all, const T* row, int64_t columns, int64_t step, int64_t ring,
             int64_t channels) {
  if (row[kW] == 0 && !all.views[kWeight]) all.views[kRef] = all.views[kTerm] = View{};
  if (all.views[kNonfinite]) {
    all.views[kNonfinite] = all.views[kNonfinite].from(0, step * all.like->size(0));
  }
  if (row[kC] == 0) all.views[kNoise] = View{};
  all.split(channels);
  for (int k = 0; k < all.count; ++k) {
    View views[kOperands];
    const Walk walk = all.walk(all.parts[k], views);
    Step<T> kernel(views, walk, row);
    if (ring) kernel.remember(step % ring, ring, all.like->numel(), columns);
    each_tile(walk, kernel);
  }
}

void guided_step(const Tensor& x, const Tensor& cond, const Tensor& table, const Tensor& step,
                 const Maybe& ref, const Maybe& term, const Maybe& weight, const Maybe& gain,
                 const Maybe& noise, const Maybe& history, const Maybe& nonfinite,
                 int64_t channels, const Tensor& out) {
  Guidance all;
  take_step(all, x, cond, table, step, ref, term, weight, gain, noise, history, nonfinite, out);
  const int64_t now = *static_cast<const int64_t*>(step.const_data_ptr());
  const int64_t columns = table.size(1), ring = history ? history->size(0) : 0;
  STD_TORCH_CHECK(now >= 0 && now < table.size(0), "step is ", now, ", table is ", shown(table));
  STD_TORCH_CHECK(columns - kFirstB <= kMaxLags, "table is ", shown(table), "; ", kMaxLags,
                  " values of d at most are read");
  if (out.numel() == 0) return;
  const char* row = readable(table).data + now * table.stride(0) * width(dtype_of(table));
  if (all.views[kTo].dtype == Dtype::kF64) {
    step_as(all, reinterpret_cast<const double*>(row), columns, now, ring, channels);
  } else {
    step_as(all, reinterpret_cast<const float*>(row), columns, now, ring, channels);
  }
}

}  // namespace
}  // namespace reg_engine

STABLE_TORCH_LIBRARY_IMPL(reg_engine_csrc, CPU, m) {
  m.impl("combine", TORCH_BOX(&reg_engine::combine));
  m.impl("guided_step", TORCH_BOX(&reg_engine::guided_step));
}
