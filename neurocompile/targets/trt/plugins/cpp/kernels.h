// The kernels of an image in one CUDA context: loaded once, shared by all plugins there, unloaded with the last.
#pragma once

#include <memory>

#include "driver.h"
#include "sizes.h"

namespace neurocompile {

// Where the tensors of one call are.
struct Addresses {
  void const* inputs[kMostInputs];
  void* outputs[kMostMade];
  void* scratch[kMostMade];
};

class Kernels {
 public:
  // Whether a context is current in this thread, without which nothing can be loaded.
  static bool possible() noexcept;

  // Those for the context that is current in this thread, or null, which has then been complained about.
  // May throw `std::bad_alloc`.
  static std::shared_ptr<Kernels const> load(Image const& image);

  ~Kernels();
  Kernels(Kernels const&) = delete;
  Kernels& operator=(Kernels const&) = delete;

  // Whether they are those of the context that is current in this thread.
  bool current() const noexcept;

  // Puts one launch on a stream; one of which a grid length is 0 is left out.
  bool launch(int32_t number, Shapes inputs, Addresses const& addresses, CUstream stream) const noexcept;

 private:
  Kernels(Image const& image, Driver const& driver, CUcontext context) noexcept;
  bool fits() const noexcept;
  bool load_all() noexcept;
  bool refuse(char const* entry) const noexcept;

  Image const& image_;
  Driver const& driver_;
  CUcontext const context_;
  CUmodule modules_[kMostLaunches] = {};
  CUfunction functions_[kMostLaunches] = {};
};

}  // namespace neurocompile
