// The inner loop of the search: one read of a tile that counts and picks candidates.
#pragma once

#include <cstddef>
#include <cstdint>

#include "select_keys.hpp"

namespace secateur::select {

// Keys between which the wanted one is believed to lie, both included. The ends themselves are only
// counted, so a key that half of all numbers share costs no memory.
template <class U>
struct Bracket {
  Lane<U> low;
  Lane<U> high;
};

template <class U>
struct TileCounts {
  std::uint32_t less;  // key < low
  std::uint32_t equal_low;
  std::uint32_t equal_high;  // 0 if low == high
  std::uint32_t kept;        // low < key < high: copied to the output, in order
  Lane<U> max_magnitude;
};

// Numbers per tile: what is picked of one lies on the stack (32 KiB) until its place is known.
template <class U>
inline constexpr std::size_t kTile = (std::size_t{1} << 15) / sizeof(U);

// Kernels store whole registers, so `out` needs room for so many numbers more than there are.
inline constexpr std::size_t kTileSlack = 16;

template <class U>
using TileKernel = TileCounts<U> (*)(const U* data, std::size_t size, Bracket<U> bracket, U* out);

// The kernel for the active instruction set.
template <class U>
TileKernel<U> tile_kernel(Order order);

}  // namespace secateur::select
