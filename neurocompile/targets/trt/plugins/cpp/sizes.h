// Sizes in the two languages that TensorRT wants them in: numbers of known shapes, expressions of others.
#pragma once

#include "table.h"

namespace neurocompile {

// Shapes of the inputs, one pointer each.
using Shapes = nvinfer1::Dims const* const*;

// The numbers that a size has while every length lies between that of `least` and that of `most`: none of them is
// outside of `low` to `high`. False where there may be none: a division by zero, or more than 64 bits.
bool bound(Size const& size, Shapes least, Shapes most, int64_t& low, int64_t& high) noexcept;

// The number. False as above.
bool evaluate(Size const& size, Shapes inputs, int64_t& value) noexcept;

// The expression, or null where TensorRT makes none.
nvinfer1::IDimensionExpr const* express(
    Size const& size, nvinfer1::DimsExprs const* inputs, nvinfer1::IExprBuilder& builder) noexcept;

// Where in the workspace every scratch tensor begins, each at a multiple of `kAlignment`, and where the last one ends,
// for the largest that they can be. False where a length can be negative or the memory is more than 64 bits can say.
bool lay_out(
    Image const& image, Shapes least, Shapes most, std::size_t (&begins)[kMostMade], std::size_t& end) noexcept;

}  // namespace neurocompile
