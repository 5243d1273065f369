// Hints for tensors that the cache does not hold: stores that go past it, and loads that are asked for early.
#pragma once

#include <algorithm>
#include <cstdint>

#include "pconv/neuron.h"

#if defined(__SSE2__) || defined(_M_X64)
#include <emmintrin.h>
#define PCONV_SSE2 1
#endif

namespace pconv::cpu {

#ifdef PCONV_SSE2

/// Copies without reading the destination into the cache. Call `end_streaming` before another thread may read it.
template <class T>
PCONV_INLINE void stream(const T* from, int64_t size, T* to) {
  constexpr int64_t kWord = sizeof(__m128i) / sizeof(T);
  int64_t i = 0;
  for (; i < size && reinterpret_cast<uintptr_t>(to + i) % sizeof(__m128i) != 0; ++i) to[i] = from[i];
  for (; i + kWord <= size; i += kWord) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + i), _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
  }
  for (; i < size; ++i) to[i] = from[i];
}

PCONV_INLINE void end_streaming() { _mm_sfence(); }

/// Begins to load values that are needed soon.
template <class T>
PCONV_INLINE void prefetch(const T* from, int64_t size) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t i = 0; i < size; i += kLine) _mm_prefetch(reinterpret_cast<const char*>(from + i), _MM_HINT_T1);
}

#else

template <class T>
PCONV_INLINE void stream(const T* from, int64_t size, T* to) {
  std::copy(from, from + size, to);
}

PCONV_INLINE void end_streaming() {}

template <class T>
PCONV_INLINE void prefetch(const T*, int64_t) {}

#endif

}  // namespace pconv::cpu
