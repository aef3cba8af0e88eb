// combine and guided_step on CUDA: see reg_engine/ops/formulas.py for what they compute. The row of
// the table is read on the device; what a coefficient of 0 excludes is not read.
#include "../guidance.h"

#include "device.cuh"

namespace reg_engine {
namespace {

static_assert(int(kOperands) <= kMaxOperands);

// cond + w T; cond where w is 0, or where there is nothing to guide by.
template <typename T, int N>
struct Guide {
  Pack<T, N> cond, ref, term, w;

  __device__ Pack<T, N> result(bool by_ref, bool by_term) const {
    if (!by_ref && !by_term) return cond;
    Pack<T, N> guided;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const T delta = cond.v[i] - ref.v[i];
      const T direction = !by_ref ? term.v[i] : by_term ? term.v[i] * delta : delta;
      guided.v[i] = w.v[i] != 0 ? cond.v[i] + w.v[i] * direction : cond.v[i];
    }
    return guided;
  }
};

template <typename T, int N>
__device__ Pack<T, N> filled(T value) {
  Pack<T, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) pack.v[i] = value;
  return pack;
}

template <typename T, int N>
__device__ void add(Pack<T, N>& to, const Pack<T, N>& value, T factor) {
#pragma unroll
  for (int i = 0; i < N; ++i) to.v[i] += factor * value.v[i];
}

// S: the dtype of to, cond, ref and term.
template <typename T, typename S, int N>
__global__ void __launch_bounds__(kThreads)
    combine_kernel(Walk walk, int64_t count, Lane to, Lane cond, Lane ref, Lane term, T w) {
  const int64_t step = int64_t(gridDim.x) * kThreads;
  int64_t at[kMaxOperands];
  for (int64_t k = int64_t(blockIdx.x) * kThreads + threadIdx.x; k < count; k += step) {
    locate<N>(walk, k, at);
    Guide<T, N> guide{cond.load<T, S, N>(at[kCond]), {}, {}, filled<T, N>(w)};
    if (ref.data) guide.ref = ref.load<T, S, N>(at[kRef]);
    if (term.data) guide.term = term.load<T, S, N>(at[kTerm]);
    to.store<T, S, N>(guide.result(ref.data, term.data), at[kTo]);
  }
}

// The bits of cond where nothing is guided; S is as wide as its elements.
template <typename S, int N>
__global__ void __launch_bounds__(kThreads)
    copy_kernel(Walk walk, int64_t count, Lane to, Lane cond) {
  const int64_t step = int64_t(gridDim.x) * kThreads;
  int64_t at[kMaxOperands];
  for (int64_t k = int64_t(blockIdx.x) * kThreads + threadIdx.x; k < count; k += step) {
    locate<N>(walk, k, at);
    store_as<S, S, N>(load_as<S, S, N>(cond.data, at[kCond], cond.stride), to.data, at[kTo]);
  }
}

// Lanes of a step. A ring of length 0: there is no history.
struct Lanes {
  Lane to, x, cond, ref, term, weight, gain, noise, history, nonfinite;
  int64_t ring, slot_size, samples;
};

template <typename T>
struct Row {
  T w, skip, out, p, q, a, c, b, limit, keep;

  __device__ explicit Row(const T* row) {
    const T bad = not_a_number<T>();  // a step beyond the table shows in every number
    w = row ? row[kW] : bad, skip = row ? row[kSkip] : bad, out = row ? row[kOut] : bad;
    p = row ? row[kP] : bad, q = row ? row[kQ] : bad, a = row ? row[kA] : bad;
    c = row ? row[kC] : bad, b = row ? row[kFirstB] : bad;
    limit = row ? row[kLimit] : bad, keep = row ? row[kKeep] : bad;
  }
};

template <typename T, int N>
__device__ void mark(const Pack<T, N>& values, const Lanes& lanes, int64_t step, int64_t at) {
  T* const first = reinterpret_cast<T*>(lanes.nonfinite.data) + step * lanes.samples + at;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if (!isfinite(values.v[i])) first[i * lanes.nonfinite.stride] = 1;
  }
}

// S: the dtype of cond and ref. Everything that is read comes before what waits for it.
template <typename T, typename S, int N>
__global__ void __launch_bounds__(kThreads)
    step_kernel(Walk walk, int64_t count, Lanes lanes, Table<T> table) {
  const T* const numbers = table.row();
  const Row<T> r(numbers);
  const int64_t now = lanes.ring && numbers ? *table.step % lanes.ring : 0;
  const bool clips = !isinf(r.limit), each = lanes.weight.data, guides = each || r.w != 0;
  const bool by_ref = guides && lanes.ref.data, by_term = guides && lanes.term.data;
  const bool noisy = lanes.noise.data && r.c != 0;
  const int lags = numbers ? static_cast<int>(table.columns) - kFirstB : 1;
  const int64_t step = int64_t(gridDim.x) * kThreads;
  int64_t at[kMaxOperands];
  for (int64_t k = int64_t(blockIdx.x) * kThreads + threadIdx.x; k < count; k += step) {
    locate<N>(walk, k, at);
    const auto past = [&](int j) {
      const int64_t slot = now >= j ? now - j : now - j + lanes.ring;
      return lanes.history.load<T, T, N>(slot * lanes.slot_size + at[kHistory]);
    };
    const Pack<T, N> x = lanes.x.load<T, T, N>(at[kState]);
    Guide<T, N> guide{lanes.cond.load<T, S, N>(at[kCond]), {}, {}, filled<T, N>(r.w)};
    Pack<T, N> noise = {}, before = {}, gain = filled<T, N>(1);
    const T lagged = lags > 1 ? numbers[kFirstB + 1] : 0;
    if (by_ref) guide.ref = lanes.ref.load<T, S, N>(at[kRef]);
    if (noisy) noise = lanes.noise.load<T, T, N>(at[kNoise]);
    if (lagged != 0) before = past(1);
    if (each) guide.w = lanes.weight.load<T, T, N>(at[kWeight]);
    if (lanes.gain.data) gain = lanes.gain.load<T, T, N>(at[kGain]);
    if (by_term) guide.term = lanes.term.load<T, Any, N>(at[kTerm]);
    const Pack<T, N> g = guide.result(by_ref, by_term);
    Pack<T, N> d, next;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      T denoised = r.skip * x.v[i] + r.out * (g.v[i] * gain.v[i]);
      if (clips) {
        const T beyond = denoised > r.limit ? r.limit : denoised;
        const T within = denoised < -r.limit ? -r.limit : beyond;
        denoised = within + r.keep * (within - denoised);
      }
      d.v[i] = r.p * x.v[i] + r.q * denoised;
      next.v[i] = r.a * x.v[i] + r.b * d.v[i];
    }
    if (lagged != 0) add(next, before, lagged);
    for (int j = 2; j < lags; ++j) {
      if (numbers[kFirstB + j] != 0) add(next, past(j), numbers[kFirstB + j]);
    }
    if (noisy) add(next, noise, r.c);
    if (lanes.history.data && numbers) {
      lanes.history.store<T, T, N>(d, now * lanes.slot_size + at[kHistory]);
    }
    if (lanes.nonfinite.data && numbers) mark(next, lanes, *table.step, at[kNonfinite]);
    lanes.to.store<T, T, N>(next, at[kTo]);
  }
}

// S: as wide as an element.
template <typename T, typename S, int N>
void launch_combine(const Walk& walk, const View* views, T w, cudaStream_t stream) {
  const int64_t count = walk.rows() * (walk.inner() / N);
  const Lane to(views[kTo], walk, kTo), cond(views[kCond], walk, kCond);
  const Lane ref(views[kRef], walk, kRef), term(views[kTerm], walk, kTerm);
  const int blocks = blocks_for(count);
  if (ref.data || term.data) {
    with_dtype<T, N>(views, kTo, kTerm, [&](auto dtype) {
      combine_kernel<T, typename decltype(dtype)::type, N>
          <<<blocks, kThreads, 0, stream>>>(walk, count, to, cond, ref, term, w);
    });
  } else {
    copy_kernel<S, N><<<blocks, kThreads, 0, stream>>>(walk, count, to, cond);
  }
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

// S: as wide as an element of `out`. N: elements that make 16 bytes of it.
template <typename T, typename S>
void combine_as(const Guidance& all, T w, cudaStream_t stream) {
  constexpr int N = 16 / sizeof(S);
  for (int k = 0; k < all.count; ++k) {
    View views[kOperands];
    const Walk walk = all.walk(all.parts[k], views);
    if (packs(views, walk, N)) {
      launch_combine<T, S, N>(walk, views, w, stream);
    } else {
      launch_combine<T, S, 1>(walk, views, w, stream);
    }
  }
}

void combine(const Tensor& cond, const Maybe& ref, const Maybe& term, double w, int64_t channels,
             const Tensor& out) {
  Guidance all;
  take_combine(all, cond, ref, term, w, channels, out);
  if (out.numel() == 0) return;
  const torch::stable::accelerator::DeviceGuard guard(out.get_device_index());
  const cudaStream_t stream = stream_of(out);
  switch (all.views[kTo].dtype) {
    case Dtype::kF64: return combine_as<double, double>(all, w, stream);
    case Dtype::kF32: return combine_as<float, float>(all, static_cast<float>(w), stream);
    default: return combine_as<float, uint16_t>(all, static_cast<float>(w), stream);
  }
}

template <typename T, typename S, int N>
void launch_step(const Walk& walk, const Lanes& lanes, const Table<T>& table, cudaStream_t stream) {
  const int64_t count = walk.rows() * (walk.inner() / N);
  step_kernel<T, S, N><<<blocks_for(count), kThreads, 0, stream>>>(walk, count, lanes, table);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

template <typename T>
void step_as(const Guidance& all, const Table<T>& table, int64_t ring, cudaStream_t stream) {
  constexpr int N = 16 / sizeof(T);
  for (int k = 0; k < all.count; ++k) {
    View v[kOperands];
    const Walk walk = all.walk(all.parts[k], v);
    const int64_t size = all.like->numel();
    const Lanes lanes{{v[kTo], walk, kTo},
                      {v[kState], walk, kState},
                      {v[kCond], walk, kCond},
                      {v[kRef], walk, kRef},
                      {v[kTerm], walk, kTerm},
                      {v[kWeight], walk, kWeight},
                      {v[kGain], walk, kGain},
                      {v[kNoise], walk, kNoise},
                      {v[kHistory], walk, kHistory},
                      {v[kNonfinite], walk, kNonfinite},
                      ring,
                      size,
                      all.like->size(0)};
    if (packs(v, walk, N) && (ring < 2 || size % N == 0)) {
      with_dtype<T, N>(v, kCond, kRef, [&](auto dtype) {
        launch_step<T, typename decltype(dtype)::type, N>(walk, lanes, table, stream);
      });
    } else {
      launch_step<T, Any, 1>(walk, lanes, table, stream);
    }
  }
}

void guided_step(const Tensor& x, const Tensor& cond, const Tensor& table, const Tensor& step,
                 const Maybe& ref, const Maybe& term, const Maybe& weight, const Maybe& gain,
                 const Maybe& noise, const Maybe& history, const Maybe& nonfinite,
                 int64_t channels, const Tensor& out) {
  Guidance all;
  take_step(all, x, cond, table, step, ref, term, weight, gain, noise, history, nonfinite, out);
  all.split(channels);
  if (out.numel() == 0) return;
  const int64_t ring = history ? history->size(0) : 0;
  const torch::stable::accelerator::DeviceGuard guard(out.get_device_index());
  const cudaStream_t stream = stream_of(out);
  if (all.views[kTo].dtype == Dtype::kF64) {
    step_as(all, Table<double>(table, step), ring, stream);
  } else {
    step_as(all, Table<float>(table, step), ring, stream);
  }
}

}  // namespace
}  // namespace reg_engine

STABLE_TORCH_LIBRARY_IMPL(reg_engine_csrc, CUDA, m) {
  m.impl("combine", TORCH_BOX(&reg_engine::combine));
  m.impl("guided_step", TORCH_BOX(&reg_engine::guided_step));
}
