// Runs a plugin of a library on tensors that somebody else allocated, in TensorRT's order and without TensorRT.
#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <cstring>
#include <memory>
#include <vector>

using namespace nvinfer1;

extern "C" {

struct Tensor {
  int32_t type;
  int32_t rank;
  int64_t lengths[8];
  void* address;
};

}  // extern "C"

namespace {

PluginTensorDesc described(Tensor const& tensor) {
  PluginTensorDesc made{};
  made.type = static_cast<DataType>(tensor.type);
  made.dims.nbDims = tensor.rank;
  std::memcpy(made.dims.d, tensor.lengths, sizeof tensor.lengths);
  return made;
}

IPluginCreatorV3One* creator_of(char const* library, char const* name) {
  void* const handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return nullptr;
  auto* const creators = reinterpret_cast<IPluginCreatorInterface* const* (*)(int32_t&)>(dlsym(handle, "getCreators"));
  int32_t count = 0;
  IPluginCreatorInterface* const* const all = creators(count);
  for (int32_t i = 0; i < count; ++i) {
    auto* const creator = static_cast<IPluginCreatorV3One*>(all[i]);
    if (std::strcmp(creator->getPluginName(), name) == 0) return creator;
  }
  return nullptr;
}

}  // namespace

extern "C" {

// Bytes of the workspace that the plugin asks for, or -1.
int64_t workspace(char const* library, char const* name, int32_t nin, Tensor const* in, int32_t nout) {
  auto* const creator = creator_of(library, name);
  if (creator == nullptr) return -1;
  std::unique_ptr<IPluginV3> const plugin(creator->createPlugin("node", nullptr, TensorRTPhase::kBUILD));
  auto* const asked = static_cast<IPluginV3OneBuildV2*>(plugin->getCapabilityInterface(PluginCapabilityType::kBUILD));
  std::vector<DynamicPluginTensorDesc> inputs;
  for (int32_t i = 0; i < nin; ++i) {
    PluginTensorDesc const desc = described(in[i]);
    inputs.push_back({desc, desc.dims, desc.dims, desc.dims});
  }
  return static_cast<int64_t>(asked->getWorkspaceSize(inputs.data(), nin, nullptr, nout));
}

// 0 where all launches are on the stream.
int32_t run(char const* library, char const* name, int32_t nin, Tensor const* in, int32_t nout, Tensor const* out,
    void* memory, void* stream) {
  auto* const creator = creator_of(library, name);
  if (creator == nullptr) return -1;
  std::unique_ptr<IPluginV3> const plugin(creator->createPlugin("node", nullptr, TensorRTPhase::kBUILD));
  auto runtime_of = [](IPluginV3* of) {
    return static_cast<IPluginV3OneRuntime*>(of->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
  };
  // Kept for good: its kernels may still run when this returns, and go with the last plugin.
  static auto& kept = *new std::vector<std::unique_ptr<IPluginV3>>;
  kept.emplace_back(runtime_of(plugin.get())->attachToContext(nullptr));
  IPluginV3* const attached = kept.back().get();
  if (attached == nullptr) return -2;
  std::vector<PluginTensorDesc> inputs;
  std::vector<PluginTensorDesc> outputs;
  std::vector<void const*> sources;
  std::vector<void*> targets;
  for (int32_t i = 0; i < nin; ++i) {
    inputs.push_back(described(in[i]));
    sources.push_back(in[i].address);
  }
  for (int32_t j = 0; j < nout; ++j) {
    outputs.push_back(described(out[j]));
    targets.push_back(out[j].address);
  }
  IPluginV3OneRuntime* const asked = runtime_of(attached);
  if (int32_t const code = asked->onShapeChange(inputs.data(), nin, outputs.data(), nout)) return code;
  return asked->enqueue(inputs.data(), outputs.data(), sources.data(), targets.data(), memory,
      static_cast<cudaStream_t>(stream));
}

}  // extern "C"
