// How neurons at consecutive places divide into channels.
#pragma once

#include <algorithm>
#include <cstdint>

#include "pconv/portable.h"

namespace pconv::cpu {

/// Walks the stretches [begin, end) of one channel each in `size` neurons from neuron `first` on.
struct Stretch {
  const int64_t channels;
  const int64_t inner;
  const int64_t size;
  int64_t begin = 0;
  int64_t end;
  int64_t channel;

  template <class Layout>
  PCONV_INLINE Stretch(const Layout& layout, int64_t first, int64_t size)
      : channels(layout.channels), inner(layout.inner), size(size) {
    channel = first / inner % channels;
    end = channels == 1 ? size : std::min(size, inner - first % inner);
  }
  PCONV_INLINE bool more() const { return begin < size; }
  PCONV_INLINE void next() {
    begin = end;
    end = std::min(size, end + inner);
    if (++channel == channels) channel = 0;
  }
};

}  // namespace pconv::cpu
