// libcuda.so.1 for tests: loads PTX by reading its entries, launches by writing down what it was given, one JSON object
// per line, to $FAKE_CUDA_LOG. Parameters are read as the PTX declares them, so a wrong argument array shows.
// `fake_set_launch` names a function that computes what a launch would.
// $FAKE_CUDA_CAPABILITY names the GPU, $FAKE_CUDA_FAIL a function that fails.
#include <cuda.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

struct CUctx_st {};
struct CUfunc_st {
  std::string name;
  std::vector<std::string> types;
};
struct CUmod_st {
  std::map<std::string, CUfunc_st> entries;
};

namespace {

CUctx_st g_contexts[3];
std::vector<CUcontext> g_stack = {&g_contexts[0]};
int g_alive = 0;
void (*g_compute)(char const* entry, unsigned int blocks, void** parameters) = nullptr;

bool fails(char const* function) {
  char const* const named = std::getenv("FAKE_CUDA_FAIL");
  return named != nullptr && std::strcmp(named, function) == 0;
}

void note(std::string const& line) {
  std::FILE* const file = std::fopen(std::getenv("FAKE_CUDA_LOG"), "a");
  std::fprintf(file, "%s\n", line.c_str());
  std::fclose(file);
}

// `.entry NAME( .param .TYPE ... , ... )`
std::map<std::string, CUfunc_st> entries_of(std::string const& ptx) {
  std::map<std::string, CUfunc_st> found;
  for (std::size_t at = ptx.find(".entry "); at != std::string::npos; at = ptx.find(".entry ", at + 1)) {
    std::size_t const open = ptx.find('(', at);
    std::size_t const close = ptx.find(')', open);
    std::string name = ptx.substr(at + 7, open - at - 7);
    while (!name.empty() && std::isspace(static_cast<unsigned char>(name.back()))) name.pop_back();
    CUfunc_st function{name, {}};
    std::string const list = ptx.substr(open, close - open);
    for (std::size_t p = list.find(".param ."); p != std::string::npos; p = list.find(".param .", p + 1)) {
      function.types.push_back(list.substr(p + 8, list.find_first_of(" \t", p + 8) - p - 8));
    }
    found[name] = function;
  }
  return found;
}

std::string value_of(std::string const& type, void const* place) {
  if (type == "u64" || type == "b64") return std::to_string(*static_cast<uint64_t const*>(place));
  if (type == "u32" || type == "b32" || type == "s32") return std::to_string(*static_cast<int32_t const*>(place));
  return "\"" + type + "\"";
}

}  // namespace

extern "C" {

void fake_set_context(int number) { g_stack.back() = number < 0 ? nullptr : &g_contexts[number]; }
void fake_set_launch(void (*compute)(char const*, unsigned int, void**)) { g_compute = compute; }
int fake_alive() { return g_alive; }
int fake_depth() { return static_cast<int>(g_stack.size()); }

CUresult cuGetErrorName(CUresult error, char const** text) {
  *text = error == CUDA_ERROR_INVALID_PTX ? "CUDA_ERROR_INVALID_PTX" : "CUDA_ERROR_UNKNOWN";
  return CUDA_SUCCESS;
}
CUresult cuCtxGetCurrent(CUcontext* context) {
  *context = g_stack.back();
  return CUDA_SUCCESS;
}
CUresult cuCtxPushCurrent_v2(CUcontext context) {
  g_stack.push_back(context);
  return CUDA_SUCCESS;
}
CUresult cuCtxPopCurrent_v2(CUcontext* context) {
  *context = g_stack.back();
  g_stack.pop_back();
  return CUDA_SUCCESS;
}
CUresult cuCtxGetDevice(CUdevice* device) {
  *device = 0;
  return fails("cuCtxGetDevice") ? CUDA_ERROR_UNKNOWN : CUDA_SUCCESS;
}
CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
  int const capability = std::atoi(std::getenv("FAKE_CUDA_CAPABILITY"));
  *value = attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR ? capability / 10 : capability % 10;
  return CUDA_SUCCESS;
}
CUresult cuModuleLoadDataEx(CUmodule* module, void const* image, unsigned int count, CUjit_option* options, void** values) {
  if (fails("cuModuleLoadDataEx")) {
    for (unsigned int i = 0; i < count; ++i) {
      if (options[i] == CU_JIT_ERROR_LOG_BUFFER) std::strcpy(static_cast<char*>(values[i]), "unsupported .version 9.9");
    }
    return CUDA_ERROR_INVALID_PTX;
  }
  *module = new CUmod_st{entries_of(static_cast<char const*>(image))};
  ++g_alive;
  note("{\"call\": \"load\", \"bytes\": " + std::to_string(std::strlen(static_cast<char const*>(image))) + "}");
  return CUDA_SUCCESS;
}
CUresult cuModuleUnload(CUmodule module) {
  delete module;
  --g_alive;
  note("{\"call\": \"unload\"}");
  return CUDA_SUCCESS;
}
CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, char const* name) {
  auto const found = module->entries.find(name);
  if (found == module->entries.end() || fails("cuModuleGetFunction")) return CUDA_ERROR_INVALID_VALUE;
  *function = &found->second;
  return CUDA_SUCCESS;
}
CUresult cuLaunchKernel(CUfunction function, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx,
    unsigned int by, unsigned int bz, unsigned int shared, CUstream stream, void** parameters, void** extra) {
  if (fails("cuLaunchKernel") || extra != nullptr) return CUDA_ERROR_UNKNOWN;
  std::string line = "{\"call\": \"launch\", \"entry\": \"" + function->name + "\", \"grid\": [" + std::to_string(gx) +
                     ", " + std::to_string(gy) + ", " + std::to_string(gz) + "], \"block\": [" + std::to_string(bx) +
                     ", " + std::to_string(by) + ", " + std::to_string(bz) + "], \"shared\": " +
                     std::to_string(shared) + ", \"stream\": " +
                     std::to_string(reinterpret_cast<uintptr_t>(stream)) + ", \"arguments\": [";
  for (std::size_t i = 0; i < function->types.size(); ++i) {
    line += (i == 0 ? "" : ", ") + value_of(function->types[i], parameters[i]);
  }
  note(line + "]}");
  if (g_compute != nullptr) g_compute(function->name.c_str(), gx, parameters);
  return CUDA_SUCCESS;
}

}  // extern "C"
