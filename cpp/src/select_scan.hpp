// Passes over the data that only read it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "secateur/dtype.hpp"

namespace secateur::select {

// The first segment with a number whose magnitude exceeds `largest`.
std::optional<std::size_t> find_above(std::span<const Segment> segments, DType dtype,
                                      std::int64_t largest);

}  // namespace secateur::select
