#include "driver.h"

#include <dlfcn.h>

#include "messages.h"

namespace neurocompile {
namespace {

template <typename Function>
bool find(void* library, char const* name, Function& function) noexcept {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

// Names as the library has them; the header maps some to their second version.
bool find_all(void* library, Driver& driver) noexcept {
  return find(library, "cuGetErrorName", driver.error_name) &&
         find(library, "cuCtxGetCurrent", driver.get_context) &&
         find(library, "cuCtxPushCurrent_v2", driver.push_context) &&
         find(library, "cuCtxPopCurrent_v2", driver.pop_context) &&
         find(library, "cuCtxGetDevice", driver.get_device) &&
         find(library, "cuDeviceGetAttribute", driver.get_attribute) &&
         find(library, "cuModuleLoadDataEx", driver.load_module) &&
         find(library, "cuModuleUnload", driver.unload_module) &&
         find(library, "cuModuleGetFunction", driver.get_function) &&
         find(library, "cuLaunchKernel", driver.launch);
}

struct Opened {
  Driver driver{};
  bool usable = false;

  Opened() noexcept {
    void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    usable = library != nullptr && find_all(library, driver);
  }
};

}  // namespace

Driver const* Driver::open() noexcept {
  static Opened const opened;
  if (!opened.usable) complain("the CUDA driver library libcuda.so.1 cannot be used here; install NVIDIA's driver");
  return opened.usable ? &opened.driver : nullptr;
}

bool Driver::succeeded(CUresult result, char const* plugin, char const* what) const noexcept {
  if (result == CUDA_SUCCESS) return true;
  char const* name = nullptr;
  if (error_name(result, &name) != CUDA_SUCCESS || name == nullptr) name = "unknown error";
  complain("plugin %s: %s failed: %s", plugin, what, name);
  return false;
}

}  // namespace neurocompile
