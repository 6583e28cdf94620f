#include "sizes.h"

#include <limits>

namespace neurocompile {
namespace {

constexpr std::size_t kMostBytes = std::size_t{1} << 62;

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

struct Range {
  int64_t low;
  int64_t high;
};

// Every operation rises or falls all the way in either operand while the other stays, as long as no divisor passes 0:
// the extremes are where both are at an end.
bool combine(Step step, Range const& a, Range const& b, Range& range) noexcept {
  bool const divides = step == Step::kFloor || step == Step::kCeiling;
  if (divides && b.low <= 0 && b.high >= 0) return false;
  int64_t first = 0;
  if (!combine(step, a.low, b.low, first)) return false;
  Range found{first, first};
  if (a.low != a.high || b.low != b.high) {
    int64_t const ends[3][2] = {{a.low, b.high}, {a.high, b.low}, {a.high, b.high}};
    for (auto const& pair : ends) {
      int64_t value = 0;
      if (!combine(step, pair[0], pair[1], value)) return false;
      found = {value < found.low ? value : found.low, value > found.high ? value : found.high};
    }
  }
  range = found;
  return true;
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

bool bound(Size const& size, Shapes least, Shapes most, int64_t& low, int64_t& high) noexcept {
  Range stack[kMostDepth] = {};
  int32_t top = 0;
  for (int32_t i = 0; i < size.count; ++i) {
    Term const& term = size.terms[i];
    if (term.step == Step::kNumber) {
      stack[top++] = {term.value, term.value};
    } else if (term.step == Step::kLength) {
      stack[top++] = {least[term.input]->d[term.value], most[term.input]->d[term.value]};
    } else {
      --top;
      if (!combine(term.step, stack[top - 1], stack[top], stack[top - 1])) return false;
    }
  }
  low = stack[0].low;
  high = stack[0].high;
  return true;
}

bool evaluate(Size const& size, Shapes inputs, int64_t& value) noexcept {
  int64_t low = 0;
  return bound(size, inputs, inputs, low, value);
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

bool lay_out(
    Image const& image, Shapes least, Shapes most, std::size_t (&begins)[kMostMade], std::size_t& end) noexcept {
  end = 0;
  for (int32_t i = 0; i < image.scratch_count; ++i) {
    Made const& made = image.scratch[i];
    begins[i] = (end + kAlignment - 1) / kAlignment * kAlignment;
    auto bytes = static_cast<std::size_t>(made.bytes);
    for (int32_t axis = 0; axis < made.rank; ++axis) {
      int64_t low = 0;
      int64_t high = 0;
      if (!bound(made.shape[axis], least, most, low, high) || high < 0) return false;
      if (__builtin_mul_overflow(bytes, static_cast<std::size_t>(high), &bytes)) return false;
    }
    if (__builtin_add_overflow(begins[i], bytes, &end) || end > kMostBytes) return false;
  }
  return true;
}

}  // namespace neurocompile
