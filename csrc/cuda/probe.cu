// probe on CUDA: [x; ...; x; x + h d], times c_in of the row, which is read on the device.
#include "../probe.h"

#include "device.cuh"

namespace reg_engine {
namespace {

static_assert(int(Probe::kOperands) <= kMaxOperands);

struct Lanes {
  Lane to, x, direction, length;
  int64_t copies, size;
};

template <typename T, int N>
__global__ void __launch_bounds__(kThreads)
    probe_kernel(Walk walk, int64_t count, Lanes lanes, Table<T> table) {
  const T* const row = table.row();
  const T c_in = row ? row[kCIn] : not_a_number<T>();
  const int64_t step = int64_t(gridDim.x) * kThreads;
  int64_t at[kMaxOperands];
  for (int64_t k = int64_t(blockIdx.x) * kThreads + threadIdx.x; k < count; k += step) {
    locate<N>(walk, k, at);
    const Pack<T, N> x = lanes.x.load<T, T, N>(at[Probe::kFrom]);
    const Pack<T, N> h = lanes.length.load<T, T, N>(at[Probe::kBy]);
    const Pack<T, N> d = lanes.direction.load<T, Any, N>(at[Probe::kAlong]);
    Pack<T, N> still, moved;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      still.v[i] = c_in * x.v[i];
      moved.v[i] = c_in * (x.v[i] + h.v[i] * d.v[i]);
    }
    int64_t place = at[Probe::kTo];
    for (int64_t c = 0; c < lanes.copies; ++c, place += lanes.size) {
      lanes.to.store<T, Any, N>(still, place);
    }
    lanes.to.store<T, Any, N>(moved, place);
  }
}

template <typename T, int N>
void launch(const Probe& all, const Walk& walk, const Table<T>& table, cudaStream_t stream) {
  const int64_t count = walk.rows() * (walk.inner() / N);
  const Lanes lanes{{all.views[Probe::kTo], walk, Probe::kTo},
                    {all.views[Probe::kFrom], walk, Probe::kFrom},
                    {all.views[Probe::kAlong], walk, Probe::kAlong},
                    {all.views[Probe::kBy], walk, Probe::kBy},
                    all.copies,
                    all.size};
  probe_kernel<T, N><<<blocks_for(count), kThreads, 0, stream>>>(walk, count, lanes, table);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

template <typename T>
void probe_as(const Probe& all, const Table<T>& table, cudaStream_t stream) {
  constexpr int N = 16 / sizeof(T);
  const Walk walk = all.walk();
  if (packs(all.views, walk, N) && (all.copies == 0 || all.size % N == 0)) {
    launch<T, N>(all, walk, table, stream);
  } else {
    launch<T, 1>(all, walk, table, stream);
  }
}

void probe(const Tensor& x, const Tensor& direction, const Tensor& length, const Tensor& table,
           const Tensor& step, int64_t copies, const Tensor& out) {
  const Probe all(x, direction, length, table, step, copies, out);
  if (out.numel() == 0) return;
  const torch::stable::accelerator::DeviceGuard guard(out.get_device_index());
  if (all.views[Probe::kFrom].dtype == Dtype::kF64) {
    probe_as(all, Table<double>(table, step), stream_of(out));
  } else {
    probe_as(all, Table<float>(table, step), stream_of(out));
  }
}

}  // namespace
}  // namespace reg_engine

STABLE_TORCH_LIBRARY_IMPL(reg_engine_csrc, CUDA, m) {
  m.impl("probe", TORCH_BOX(&reg_engine::probe));
}
