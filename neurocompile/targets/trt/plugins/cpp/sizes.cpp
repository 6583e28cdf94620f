#include "sizes.h"

#include <limits>

namespace neurocompile {
namespace {

// The quotient rounded towards minus infinity, as in the expressions that the images were made with.
int64_t floor_of(int64_t a, int64_t b) noexcept { return a / b - ((a % b != 0 && (a < 0) != (b < 0)) ? 1 : 0); }

bool combine(Step step, int64_t a, int64_t b, int64_t& value) noexcept {
  bool const divides = step == Step::kFloor || step == Step::kCeiling;
  if (divides && (b == 0 || (b == -1 && a == std::numeric_limits<int64_t>::min()))) return false;
  switch (step) {
    case Step::kAdd: return !__builtin_add_overflow(a, b, &value);
    case Step::kSubtract: return !__builtin_sub_overflow(a, b, &value);
    case Step::kMultiply: return !__builtin_mul_overflow(a, b, &value);
    case Step::kFloor: value = floor_of(a, b); return true;
    case Step::kCeiling: value = floor_of(a, b) + (a % b != 0 ? 1 : 0); return true;
    case Step::kLarger: value = a > b ? a : b; return true;
    case Step::kSmaller: value = a < b ? a : b; return true;
    case Step::kNumber:
    case Step::kLength: break;
  }
  return false;
}

nvinfer1::DimensionOperation operation(Step step) noexcept {
  switch (step) {
    case Step::kAdd: return nvinfer1::DimensionOperation::kSUM;
    case Step::kSubtract: return nvinfer1::DimensionOperation::kSUB;
    case Step::kMultiply: return nvinfer1::DimensionOperation::kPROD;
    case Step::kFloor: return nvinfer1::DimensionOperation::kFLOOR_DIV;
    case Step::kCeiling: return nvinfer1::DimensionOperation::kCEIL_DIV;
    case Step::kLarger: return nvinfer1::DimensionOperation::kMAX;
    default: return nvinfer1::DimensionOperation::kMIN;
  }
}

}  // namespace

bool evaluate(Size const& size, Shapes inputs, int64_t& value) noexcept {
  int64_t stack[kMostDepth] = {};
  int32_t top = 0;
  for (int32_t i = 0; i < size.count; ++i) {
    Term const& term = size.terms[i];
    if (term.step == Step::kNumber) {
      stack[top++] = term.value;
    } else if (term.step == Step::kLength) {
      stack[top++] = inputs[term.input]->d[term.value];
    } else {
      --top;
      if (!combine(term.step, stack[top - 1], stack[top], stack[top - 1])) return false;
    }
  }
  value = stack[0];
  return true;
}

nvinfer1::IDimensionExpr const* express(
    Size const& size, nvinfer1::DimsExprs const* inputs, nvinfer1::IExprBuilder& builder) noexcept {
  nvinfer1::IDimensionExpr const* stack[kMostDepth] = {};
  int32_t top = 0;
  for (int32_t i = 0; i < size.count; ++i) {
    Term const& term = size.terms[i];
    if (term.step == Step::kNumber) {
      stack[top++] = builder.constant(term.value);
    } else if (term.step == Step::kLength) {
      stack[top++] = inputs[term.input].d[term.value];
    } else {
      --top;
      stack[top - 1] = builder.operation(operation(term.step), *stack[top - 1], *stack[top]);
    }
    if (stack[top - 1] == nullptr) return nullptr;
  }
  return stack[0];
}

bool bytes_of(Made const& made, Shapes inputs, std::size_t& bytes) noexcept {
  bytes = static_cast<std::size_t>(made.bytes);
  for (int32_t axis = 0; axis < made.rank; ++axis) {
    int64_t length = 0;
    if (!evaluate(made.shape[axis], inputs, length) || length < 0) return false;
    if (__builtin_mul_overflow(bytes, static_cast<std::size_t>(length), &bytes)) return false;
  }
  return true;
}

bool lay_out(Image const& image, Shapes inputs, std::size_t (&begins)[kMostMade], std::size_t& end) noexcept {
  end = 0;
  for (int32_t i = 0; i < image.scratch_count; ++i) {
    begins[i] = (end + kAlignment - 1) / kAlignment * kAlignment;
    std::size_t bytes = 0;
    if (!bytes_of(image.scratch[i], inputs, bytes) || __builtin_add_overflow(begins[i], bytes, &end)) return false;
  }
  return true;
}

}  // namespace neurocompile
