// An image of a plugin as constants. `images.cpp` is generated from the images and defines `kImages`; nothing else is.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>

namespace neurocompile {

// The generator refuses images that need more; so nothing is allocated where a kernel is launched.
constexpr int32_t kMostInputs = 16;
constexpr int32_t kMostMade = 16;
constexpr int32_t kMostArguments = 32;
constexpr int32_t kMostLaunches = 8;
constexpr int32_t kMostDepth = 16;
constexpr int32_t kMostAxes = 8;
static_assert(kMostAxes == nvinfer1::Dims::MAX_DIMS);

constexpr int64_t kAnyLength = -1;
constexpr int32_t kNotAliased = -1;
constexpr std::size_t kAlignment = 256;

enum class Step : int32_t { kNumber, kLength, kAdd, kSubtract, kMultiply, kFloor, kCeiling, kLarger, kSmaller };

// One step of a size in postfix order: push `value`, push the length of `input` along axis `value`, or combine the two
// sizes on top. No size stacks more than `kMostDepth`.
struct Term {
  Step step;
  int32_t input;
  int64_t value;
};

struct Size {
  Term const* terms;
  int32_t count;
};

struct Input {
  char const* name;
  nvinfer1::DataType type;
  int32_t rank;
  int64_t const* shape;  // per axis the one length the kernels are for, or `kAnyLength`
};

// An output, or memory that one launch hands to a later one.
struct Made {
  char const* name;
  nvinfer1::DataType type;
  int32_t bytes;  // of an element
  int32_t rank;
  Size const* shape;
  int32_t aliased;  // the input whose memory an output may share, or `kNotAliased`
};

enum class Kind : int32_t { kInput, kOutput, kScratch, kInteger };

struct Argument {
  Kind kind;
  int32_t index;  // of the tensor
  Size value;     // of an integer
};

struct Launch {
  char const* entry;
  char const* ptx;
  Argument const* arguments;
  int32_t count;
  Size grid[3];
  uint32_t threads;
  uint32_t shared;
};

struct Image {
  char const* name;
  char const* version;
  char const* space;
  int32_t capability;
  Input const* inputs;
  int32_t input_count;
  Made const* outputs;
  int32_t output_count;
  Made const* scratch;
  int32_t scratch_count;
  Launch const* launches;
  int32_t launch_count;
};

extern Image const kImages[];
extern int32_t const kImageCount;

}  // namespace neurocompile
