// The arguments of probe, checked, as views.
#pragma once

#include "arguments.h"

namespace reg_engine {

struct Probe {
  enum { kTo, kFrom, kAlong, kBy, kOperands };  // out, x, direction, length

  View views[kOperands];
  int64_t length_strides[kTensorDims] = {};  // length, broadcast to the shape of the samples
  const Tensor& like;
  int64_t copies, size;  // copies of x in out, elements of each

  Probe(const Tensor& x, const Tensor& direction, const Tensor& length, const Tensor& table,
        const Tensor& step, int64_t copies_of_x, const Tensor& out)
      : like(x), copies(copies_of_x), size(x.numel()) {
    check_state(x);
    check_like("direction", direction, x);
    check_per_sample("length", length, x);
    check_table(table, step, x);
    bool fits = is_floating(out.scalar_type()) && out.dim() == x.dim() && same_device(out, x) &&
                out.is_contiguous() && copies >= 0 && out.size(0) == (copies + 1) * x.size(0);
    for (int64_t d = 1; fits && d < x.dim(); ++d) fits = out.size(d) == x.size(d);
    STD_TORCH_CHECK(fits, "out is ", shown(out), " for ", copies, " copies of x ", shown(x),
                    "; a contiguous ((copies + 1) B, ...) is needed");
    length_strides[0] = length.stride(0);
    views[kTo] = writable(out);
    views[kFrom] = readable(x);
    views[kAlong] = readable(direction);
    views[kBy] = {readable(length).data, views[kFrom].dtype, length_strides};
  }
  Probe(const Probe&) = delete;

  Walk walk() const {
    const int64_t* strides[kOperands];
    for (int o = 0; o < kOperands; ++o) strides[o] = views[o].strides;
    return make_walk(like.sizes().data(), static_cast<int>(like.dim()), strides, kOperands);
  }
};

}  // namespace reg_engine
