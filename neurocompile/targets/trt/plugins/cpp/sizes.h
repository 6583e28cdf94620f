// Sizes in the two languages TensorRT wants them in: numbers where shapes are known, expressions where they are not yet.
#pragma once

#include "table.h"

namespace neurocompile {

// Shapes of the inputs, one pointer each.
using Shapes = nvinfer1::Dims const* const*;

// The number. False where there is none: a division by zero, or more than 64 bits.
bool evaluate(Size const& size, Shapes inputs, int64_t& value) noexcept;

// The expression, or null where TensorRT makes none.
nvinfer1::IDimensionExpr const* express(
    Size const& size, nvinfer1::DimsExprs const* inputs, nvinfer1::IExprBuilder& builder) noexcept;

// Bytes of a tensor that is made. False where a length is negative or they are more than 64 bits.
bool bytes_of(Made const& made, Shapes inputs, std::size_t& bytes) noexcept;

// Where in the workspace every scratch tensor begins, each at a multiple of `kAlignment`, and where the last one ends.
bool lay_out(Image const& image, Shapes inputs, std::size_t (&begins)[kMostMade], std::size_t& end) noexcept;

}  // namespace neurocompile
