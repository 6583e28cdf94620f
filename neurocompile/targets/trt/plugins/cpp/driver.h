// The functions of the CUDA driver that are needed. It is opened when a kernel is, so that the library can be loaded,
// and its creators listed, where there is none.
#pragma once

#include <cuda.h>

namespace neurocompile {

struct Driver {
  decltype(&cuGetErrorName) error_name;
  decltype(&cuCtxGetCurrent) get_context;
  decltype(&cuCtxPushCurrent) push_context;
  decltype(&cuCtxPopCurrent) pop_context;
  decltype(&cuCtxGetDevice) get_device;
  decltype(&cuDeviceGetAttribute) get_attribute;
  decltype(&cuModuleLoadDataEx) load_module;
  decltype(&cuModuleUnload) unload_module;
  decltype(&cuModuleGetFunction) get_function;
  decltype(&cuLaunchKernel) launch;

  // The driver of this process, or null, which has then been complained about.
  static Driver const* open() noexcept;

  // Whether a call succeeded; complains where it did not.
  bool succeeded(CUresult result, char const* plugin, char const* what) const noexcept;
};

}  // namespace neurocompile
