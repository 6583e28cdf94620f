// What TensorRT does with a library of plugins, in its order, without TensorRT. Reads one request per line:
//
//   creators                                what the library offers
//   run NAME TYPE:1x2x3 ...                 build, serialise, deserialise, attach, run; prints what the plugin answered
//   memory NAME TYPE:1x2x3/4x5x6 ...        the workspace for shapes between these
//   context NUMBER                          another CUDA context becomes current, none for -1
//   moved NAME TYPE:1x2x3 ...               attach in context 0, run in context 1
//   kept NAME TEXT                          deserialise with that text where the image's name should be
//
// Tensors have made-up addresses: input i at (i + 1) << 20, output j at (j + 1) << 24, workspace at 1 << 30.
#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <deque>
#include <iostream>
#include <limits>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

using namespace nvinfer1;

namespace {

struct Expression final : IDimensionExpr {
  explicit Expression(int64_t number) : value(number) {}
  bool isConstant() const noexcept override { return true; }
  int64_t getConstantValue() const noexcept override { return value; }
  int64_t value;
};

struct Builder final : IExprBuilder {
  IDimensionExpr const* constant(int64_t value) noexcept override { return &all.emplace_back(value); }
  IDimensionExpr const* operation(
      DimensionOperation op, IDimensionExpr const& first, IDimensionExpr const& second) noexcept override {
    int64_t const a = first.getConstantValue();
    int64_t const b = second.getConstantValue();
    switch (op) {
      case DimensionOperation::kSUM: return constant(a + b);
      case DimensionOperation::kSUB: return constant(a - b);
      case DimensionOperation::kPROD: return constant(a * b);
      case DimensionOperation::kMAX: return constant(std::max(a, b));
      case DimensionOperation::kMIN: return constant(std::min(a, b));
      case DimensionOperation::kFLOOR_DIV: return constant(a / b);
      case DimensionOperation::kCEIL_DIV: return constant((a + b - 1) / b);
      default: return nullptr;
    }
  }
  std::deque<Expression> all;
};

struct Logger final : ILogger {
  void log(Severity, AsciiChar const* text) noexcept override { std::printf("{\"logged\": \"%s\"}\n", text); }
};
struct Finder final : ILoggerFinder {
  ILogger* findLogger() override { return &logger; }
  Logger logger;
};

std::map<std::string, DataType> const kTypes = {{"float32", DataType::kFLOAT}, {"float16", DataType::kHALF},
    {"bfloat16", DataType::kBF16}, {"int32", DataType::kINT32}};

PluginTensorDesc parse(std::string const& text) {
  PluginTensorDesc made{};
  std::size_t const colon = text.find(':');
  made.type = kTypes.at(text.substr(0, colon));
  std::istringstream lengths(text.substr(colon + 1));
  for (std::string length; std::getline(lengths, length, 'x');) made.dims.d[made.dims.nbDims++] = std::stoll(length);
  return made;
}

std::string list(std::vector<int64_t> const& numbers) {
  std::string text = "[";
  for (std::size_t i = 0; i < numbers.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(numbers[i]);
  return text + "]";
}

template <typename T>
T* part(IPluginV3* plugin, PluginCapabilityType type) {
  return static_cast<T*>(plugin->getCapabilityInterface(type));
}

using Plugin = std::unique_ptr<IPluginV3>;

struct Problem {
  std::vector<PluginTensorDesc> inputs;
  std::vector<PluginTensorDesc> outputs;
  std::vector<int64_t> workspace = std::vector<int64_t>(1, -1);
  int32_t count(bool in) const { return static_cast<int32_t>(in ? inputs.size() : outputs.size()); }
};

DynamicPluginTensorDesc dynamic(PluginTensorDesc const& desc) {
  return {desc, desc.dims, desc.dims, desc.dims};
}

// The build phase: types, shapes, formats, memory. False where the plugin refuses.
bool build(IPluginV3* plugin, Problem& problem) {
  auto* const asked = part<IPluginV3OneBuildV2>(plugin, PluginCapabilityType::kBUILD);
  int32_t const nin = problem.count(true);
  int32_t const nout = asked->getNbOutputs();
  std::vector<DataType> given;
  std::vector<DimsExprs> shapes(problem.inputs.size());
  Builder builder;
  for (std::size_t i = 0; i < problem.inputs.size(); ++i) {
    given.push_back(problem.inputs[i].type);
    shapes[i].nbDims = problem.inputs[i].dims.nbDims;
    for (int32_t a = 0; a < shapes[i].nbDims; ++a) shapes[i].d[a] = builder.constant(problem.inputs[i].dims.d[a]);
  }
  std::vector<DataType> types(static_cast<std::size_t>(nout));
  std::vector<DimsExprs> made(static_cast<std::size_t>(nout));
  if (asked->getOutputDataTypes(types.data(), nout, given.data(), nin) != 0) return false;
  if (asked->getOutputShapes(shapes.data(), nin, nullptr, 0, made.data(), nout, builder) != 0) return false;
  std::vector<DynamicPluginTensorDesc> in;
  std::vector<DynamicPluginTensorDesc> out;
  for (auto const& desc : problem.inputs) in.push_back(dynamic(desc));
  std::vector<int64_t> aliased;
  for (int32_t j = 0; j < nout; ++j) {
    PluginTensorDesc desc{};
    desc.type = types[static_cast<std::size_t>(j)];
    desc.dims.nbDims = made[static_cast<std::size_t>(j)].nbDims;
    for (int32_t a = 0; a < desc.dims.nbDims; ++a) {
      desc.dims.d[a] = made[static_cast<std::size_t>(j)].d[a]->getConstantValue();
    }
    problem.outputs.push_back(desc);
    out.push_back(dynamic(desc));
    aliased.push_back(asked->getAliasedInput(j));
    std::printf("{\"output\": %d, \"type\": %d, \"shape\": %s}\n", j, static_cast<int>(desc.type),
        list(std::vector<int64_t>(desc.dims.d, desc.dims.d + desc.dims.nbDims)).c_str());
  }
  std::vector<DynamicPluginTensorDesc> all(in);
  all.insert(all.end(), out.begin(), out.end());
  bool linear = true;
  bool other = false;
  for (int32_t p = 0; p < nin + nout; ++p) {
    linear = linear && asked->supportsFormatCombination(p, all.data(), nin, nout);
    auto changed = all;
    changed[static_cast<std::size_t>(p)].desc.format = TensorFormat::kCHW32;
    other = other || asked->supportsFormatCombination(p, changed.data(), nin, nout);
    changed = all;
    changed[static_cast<std::size_t>(p)].desc.type = DataType::kINT8;
    other = other || asked->supportsFormatCombination(p, changed.data(), nin, nout);
  }
  if (asked->configurePlugin(in.data(), nin, out.data(), nout) != 0) return false;
  problem.workspace[0] = static_cast<int64_t>(asked->getWorkspaceSize(in.data(), nin, out.data(), nout));
  std::printf("{\"workspace\": %lld, \"aliased\": %s, \"linear\": %s, \"other\": %s, \"beyond\": %d, \"id\": \"%s\"}\n",
      static_cast<long long>(problem.workspace[0]), list(aliased).c_str(), linear ? "true" : "false",
      other ? "true" : "false", asked->getAliasedInput(nout), asked->getTimingCacheID());
  return true;
}

int32_t enqueue(IPluginV3* plugin, Problem const& problem) {
  auto* const asked = part<IPluginV3OneRuntime>(plugin, PluginCapabilityType::kRUNTIME);
  if (int32_t const code = asked->onShapeChange(
          problem.inputs.data(), problem.count(true), problem.outputs.data(), problem.count(false))) {
    return code;
  }
  std::vector<void const*> inputs;
  std::vector<void*> outputs;
  for (uintptr_t i = 0; i < problem.inputs.size(); ++i) inputs.push_back(reinterpret_cast<void*>((i + 1) << 20));
  for (uintptr_t j = 0; j < problem.outputs.size(); ++j) outputs.push_back(reinterpret_cast<void*>((j + 1) << 24));
  void* const workspace = problem.workspace[0] != 0 ? reinterpret_cast<void*>(uintptr_t{1} << 30) : nullptr;
  return asked->enqueue(problem.inputs.data(), problem.outputs.data(), inputs.data(), outputs.data(), workspace,
      reinterpret_cast<cudaStream_t>(uintptr_t{7}));
}

}  // namespace

int main(int count, char** arguments) {
  void* const library = dlopen(arguments[count - 1], RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  auto* const creators = reinterpret_cast<IPluginCreatorInterface* const* (*)(int32_t&)>(dlsym(library, "getCreators"));
  auto* const finder = reinterpret_cast<void (*)(ILoggerFinder*)>(dlsym(library, "setLoggerFinder"));
  void* const driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  auto* const set_context = reinterpret_cast<void (*)(int)>(driver ? dlsym(driver, "fake_set_context") : nullptr);
  auto* const alive = reinterpret_cast<int (*)()>(driver ? dlsym(driver, "fake_alive") : nullptr);
  auto* const depth = reinterpret_cast<int (*)()>(driver ? dlsym(driver, "fake_depth") : nullptr);
  Finder logger;
  finder(&logger);
  int32_t number = 0;
  IPluginCreatorInterface* const* const list_of = creators(number);
  std::map<std::string, IPluginCreatorV3One*> found;
  for (int32_t i = 0; i < number; ++i) {
    auto* const creator = static_cast<IPluginCreatorV3One*>(list_of[i]);
    found[creator->getPluginName()] = creator;
  }
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string request;
    std::string name;
    words >> request;
    if (request == "creators") {
      for (auto const& [key, creator] : found) {
        std::printf("{\"name\": \"%s\", \"version\": \"%s\", \"namespace\": \"%s\", \"kind\": \"%s\", \"fields\": %d}\n",
            key.c_str(), creator->getPluginVersion(), creator->getPluginNamespace(), creator->getInterfaceInfo().kind,
            creator->getFieldNames()->nbFields);
      }
      continue;
    }
    words >> name;
    if (request == "context") {
      set_context(std::stoi(name));
      continue;
    }
    IPluginCreatorV3One* const creator = found.at(name);
    if (request == "kept") {
      std::string text;
      words >> text;
      PluginField const field("image", text.c_str(), PluginFieldType::kCHAR, static_cast<int32_t>(text.size()));
      PluginFieldCollection const fields{1, &field};
      Plugin const made(creator->createPlugin("node", &fields, TensorRTPhase::kRUNTIME));
      std::printf("{\"made\": %s}\n", made ? "true" : "false");
      continue;
    }
    if (request == "memory") {
      std::vector<DynamicPluginTensorDesc> in;
      for (std::string tensor; words >> tensor;) {
        std::size_t const cut = tensor.find('/');
        PluginTensorDesc const least = parse(tensor.substr(0, cut));
        PluginTensorDesc const most = parse(tensor.substr(0, tensor.find(':') + 1) + tensor.substr(cut + 1));
        in.push_back({least, least.dims, most.dims, most.dims});
      }
      Plugin const made(creator->createPlugin("node", nullptr, TensorRTPhase::kBUILD));
      auto* const asked = part<IPluginV3OneBuildV2>(made.get(), PluginCapabilityType::kBUILD);
      std::printf("{\"memory\": %zu}\n",
          asked->getWorkspaceSize(in.data(), static_cast<int32_t>(in.size()), nullptr, asked->getNbOutputs()));
      continue;
    }
    Problem problem;
    for (std::string tensor; words >> tensor;) problem.inputs.push_back(parse(tensor));
    PluginFieldCollection const none{};
    Plugin const first(creator->createPlugin("node", &none, TensorRTPhase::kBUILD));
    if (!build(first.get(), problem)) {
      std::printf("{\"built\": false}\n");
      continue;
    }
    auto const* const kept = part<IPluginV3OneRuntime>(first.get(), PluginCapabilityType::kRUNTIME)->getFieldsToSerialize();
    Plugin const second(creator->createPlugin("node", kept, TensorRTPhase::kRUNTIME));
    Plugin const copy(second->clone());
    auto* const runtime = part<IPluginV3OneRuntime>(copy.get(), PluginCapabilityType::kRUNTIME);
    Plugin const attached(runtime->attachToContext(nullptr));
    Plugin const other(runtime->attachToContext(nullptr));
    if (!attached || !other) {
      std::printf("{\"attached\": false}\n");
      continue;
    }
    auto const* const core = part<IPluginV3OneCore>(attached.get(), PluginCapabilityType::kCORE);
    if (request == "moved") set_context(1);
    int32_t const code = enqueue(attached.get(), problem);
    int32_t const again = request == "moved" ? 0 : enqueue(Plugin(other->clone()).get(), problem);
    std::printf("{\"code\": %d, \"again\": %d, \"name\": \"%s\", \"modules\": %d, \"depth\": %d}\n", code, again,
        core->getPluginName(), alive ? alive() : -1, depth ? depth() : -1);
    std::fflush(stdout);
  }
  std::printf("{\"left\": %d, \"depth\": %d}\n", alive ? alive() : -1, depth ? depth() : -1);
  return 0;
}
