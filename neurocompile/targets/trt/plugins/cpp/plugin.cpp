#include "plugin.h"

#include <cinttypes>
#include <cstring>
#include <exception>
#include <limits>
#include <new>

#include "messages.h"

namespace neurocompile {
namespace {

constexpr int32_t kFailed = 1;
constexpr std::size_t kTooMuch = std::numeric_limits<std::size_t>::max();  // no allocation of that succeeds

int32_t length_of(char const* text) noexcept { return static_cast<int32_t>(std::strlen(text)); }

}  // namespace

Plugin::Plugin(Image const& image) noexcept
    : image_(image), field_(kField, image.name, nvinfer1::PluginFieldType::kCHAR, length_of(image.name)) {
  fields_.nbFields = 1;
  fields_.fields = &field_;
}

nvinfer1::IPluginCapability* Plugin::getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept {
  switch (type) {
    case nvinfer1::PluginCapabilityType::kCORE: return static_cast<nvinfer1::IPluginV3OneCore*>(this);
    case nvinfer1::PluginCapabilityType::kBUILD: return static_cast<nvinfer1::IPluginV3OneBuildV2*>(this);
    case nvinfer1::PluginCapabilityType::kRUNTIME: return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
  }
  return nullptr;
}

nvinfer1::IPluginV3* Plugin::clone() noexcept {
  auto* const copy = new (std::nothrow) Plugin(image_);
  if (copy != nullptr) copy->kernels_ = kernels_;
  return copy;
}

nvinfer1::AsciiChar const* Plugin::getPluginName() const noexcept { return image_.name; }
nvinfer1::AsciiChar const* Plugin::getPluginVersion() const noexcept { return image_.version; }
nvinfer1::AsciiChar const* Plugin::getPluginNamespace() const noexcept { return image_.space; }

bool Plugin::counts(int32_t inputs, int32_t outputs) const noexcept {
  if (inputs == image_.input_count && outputs == image_.output_count) return true;
  complain("plugin %s has %d inputs and %d outputs, and was given %d and %d", image_.name, image_.input_count,
      image_.output_count, inputs, outputs);
  return false;
}

bool Plugin::takes(int32_t input, nvinfer1::Dims const& shape, nvinfer1::DataType type) const noexcept {
  Input const& wanted = image_.inputs[input];
  if (shape.nbDims != wanted.rank || type != wanted.type) {
    complain("plugin %s takes %s of rank %d and type %d, and was given rank %d and type %d", image_.name, wanted.name,
        wanted.rank, static_cast<int>(wanted.type), shape.nbDims, static_cast<int>(type));
    return false;
  }
  for (int32_t axis = 0; axis < wanted.rank; ++axis) {
    int64_t const length = shape.d[axis];
    // While a network is built a length that varies is -1.
    if (wanted.shape[axis] == kAnyLength || length == wanted.shape[axis] || length == -1) continue;
    complain("plugin %s was compiled for %s with length %" PRId64 " along axis %d, and was given %" PRId64, image_.name,
        wanted.name, wanted.shape[axis], axis, length);
    return false;
  }
  return true;
}

int32_t Plugin::configurePlugin(nvinfer1::DynamicPluginTensorDesc const* in, int32_t nbInputs,
    nvinfer1::DynamicPluginTensorDesc const*, int32_t nbOutputs) noexcept {
  if (!counts(nbInputs, nbOutputs)) return kFailed;
  for (int32_t i = 0; i < nbInputs; ++i) {
    if (!takes(i, in[i].desc.dims, in[i].desc.type)) return kFailed;
  }
  return 0;
}

int32_t Plugin::getOutputDataTypes(nvinfer1::DataType* outputTypes, int32_t nbOutputs, nvinfer1::DataType const*,
    int32_t nbInputs) const noexcept {
  if (!counts(nbInputs, nbOutputs)) return kFailed;
  for (int32_t i = 0; i < nbOutputs; ++i) outputTypes[i] = image_.outputs[i].type;
  return 0;
}

int32_t Plugin::getOutputShapes(nvinfer1::DimsExprs const* inputs, int32_t nbInputs, nvinfer1::DimsExprs const*,
    int32_t, nvinfer1::DimsExprs* outputs, int32_t nbOutputs, nvinfer1::IExprBuilder& exprBuilder) noexcept {
  if (!counts(nbInputs, nbOutputs)) return kFailed;
  for (int32_t i = 0; i < nbInputs; ++i) {
    if (inputs[i].nbDims == image_.inputs[i].rank) continue;
    complain("plugin %s takes %s of rank %d, and was given rank %d", image_.name, image_.inputs[i].name,
        image_.inputs[i].rank, inputs[i].nbDims);
    return kFailed;
  }
  for (int32_t i = 0; i < nbOutputs; ++i) {
    Made const& output = image_.outputs[i];
    outputs[i].nbDims = output.rank;
    for (int32_t axis = 0; axis < output.rank; ++axis) {
      outputs[i].d[axis] = express(output.shape[axis], inputs, exprBuilder);
      if (outputs[i].d[axis] == nullptr) return kFailed;
    }
  }
  return 0;
}

bool Plugin::supportsFormatCombination(
    int32_t pos, nvinfer1::DynamicPluginTensorDesc const* inOut, int32_t nbInputs, int32_t nbOutputs) noexcept {
  if (nbInputs != image_.input_count || nbOutputs != image_.output_count || pos < 0 || pos >= nbInputs + nbOutputs) {
    return false;
  }
  nvinfer1::PluginTensorDesc const& asked = inOut[pos].desc;
  nvinfer1::DataType const wanted = pos < nbInputs ? image_.inputs[pos].type : image_.outputs[pos - nbInputs].type;
  return asked.type == wanted && asked.format == nvinfer1::TensorFormat::kLINEAR;
}

int32_t Plugin::getNbOutputs() const noexcept { return image_.output_count; }

std::size_t Plugin::getWorkspaceSize(nvinfer1::DynamicPluginTensorDesc const* inputs, int32_t nbInputs,
    nvinfer1::DynamicPluginTensorDesc const*, int32_t nbOutputs) const noexcept {
  if (!counts(nbInputs, nbOutputs)) return kTooMuch;
  nvinfer1::Dims const* least[kMostInputs] = {};
  nvinfer1::Dims const* most[kMostInputs] = {};
  for (int32_t i = 0; i < nbInputs; ++i) {
    least[i] = &inputs[i].min;
    most[i] = &inputs[i].max;
  }
  std::size_t begins[kMostMade] = {};
  std::size_t end = 0;
  if (lay_out(image_, least, most, begins, end)) return end;
  complain("plugin %s cannot have memory for inputs of these shapes", image_.name);
  return kTooMuch;
}

char const* Plugin::getTimingCacheID() noexcept { return image_.name; }
char const* Plugin::getMetadataString() noexcept { return image_.name; }

int32_t Plugin::getAliasedInput(int32_t outputIndex) noexcept {
  return outputIndex >= 0 && outputIndex < image_.output_count ? image_.outputs[outputIndex].aliased : kNotAliased;
}

int32_t Plugin::onShapeChange(nvinfer1::PluginTensorDesc const* in, int32_t nbInputs,
    nvinfer1::PluginTensorDesc const*, int32_t nbOutputs) noexcept {
  if (!counts(nbInputs, nbOutputs)) return kFailed;
  for (int32_t i = 0; i < nbInputs; ++i) {
    if (!takes(i, in[i].dims, in[i].type)) return kFailed;
  }
  return 0;
}

bool Plugin::ready() noexcept {
  if (kernels_ == nullptr) {
    try {
      kernels_ = Kernels::load(image_);
    } catch (std::exception const& error) {
      complain("plugin %s: %s", image_.name, error.what());
    }
    return kernels_ != nullptr;
  }
  if (kernels_->current()) return true;
  complain("plugin %s was loaded in another CUDA context than the one it is to run in; use one device per context",
      image_.name);
  return false;
}

int32_t Plugin::enqueue(nvinfer1::PluginTensorDesc const* inputDesc, nvinfer1::PluginTensorDesc const*,
    void const* const* inputs, void* const* outputs, void* workspace, cudaStream_t stream) noexcept {
  if (!ready()) return kFailed;
  nvinfer1::Dims const* shapes[kMostInputs] = {};
  for (int32_t i = 0; i < image_.input_count; ++i) shapes[i] = &inputDesc[i].dims;
  Addresses addresses{};
  for (int32_t i = 0; i < image_.input_count; ++i) addresses.inputs[i] = inputs[i];
  for (int32_t i = 0; i < image_.output_count; ++i) addresses.outputs[i] = outputs[i];
  std::size_t begins[kMostMade] = {};
  std::size_t end = 0;
  if (!lay_out(image_, shapes, shapes, begins, end) || (end != 0 && workspace == nullptr)) {
    complain("plugin %s has no memory for inputs of these shapes", image_.name);
    return kFailed;
  }
  for (int32_t i = 0; i < image_.scratch_count; ++i) addresses.scratch[i] = static_cast<char*>(workspace) + begins[i];
  for (int32_t i = 0; i < image_.launch_count; ++i) {
    if (!kernels_->launch(i, shapes, addresses, stream)) return kFailed;
  }
  return 0;
}

nvinfer1::IPluginV3* Plugin::attachToContext(nvinfer1::IPluginResourceContext*) noexcept {
  auto* const copy = new (std::nothrow) Plugin(image_);
  // Loaded now if possible and not while something is measured or captured; `enqueue` makes up for it otherwise.
  if (copy != nullptr && Kernels::possible() && !copy->ready()) {
    delete copy;
    return nullptr;
  }
  return copy;
}

nvinfer1::PluginFieldCollection const* Plugin::getFieldsToSerialize() noexcept { return &fields_; }

}  // namespace neurocompile
