#include "kernels.h"

#include <map>
#include <mutex>
#include <utility>

#include "messages.h"

namespace neurocompile {
namespace {

// What the driver takes along x, y and z.
constexpr int64_t kMostBlocks[3] = {2147483647, 65535, 65535};

using Key = std::pair<Image const*, CUcontext>;

struct Loaded {
  std::mutex mutex;
  std::map<Key, std::weak_ptr<Kernels const>> kernels;
};

// Never destroyed: plugins may be deleted after static objects are.
Loaded& loaded() {
  static Loaded* const all = new Loaded;
  return *all;
}

}  // namespace

bool Kernels::possible() noexcept {
  Driver const* const driver = Driver::open();
  CUcontext context = nullptr;
  return driver != nullptr && driver->get_context(&context) == CUDA_SUCCESS && context != nullptr;
}

std::shared_ptr<Kernels const> Kernels::load(Image const& image) {
  Driver const* const driver = Driver::open();
  if (driver == nullptr) return nullptr;
  CUcontext context = nullptr;
  if (!driver->succeeded(driver->get_context(&context), image.name, "asking for the CUDA context")) return nullptr;
  if (context == nullptr) {
    complain("plugin %s: no CUDA context is current in the thread that TensorRT calls from", image.name);
    return nullptr;
  }
  Loaded& all = loaded();
  std::lock_guard<std::mutex> const lock(all.mutex);
  std::weak_ptr<Kernels const>& place = all.kernels[{&image, context}];
  if (auto found = place.lock()) return found;
  std::shared_ptr<Kernels> made(new Kernels(image, *driver, context));
  if (!made->fits() || !made->load_all()) return nullptr;
  place = made;
  return made;
}

Kernels::Kernels(Image const& image, Driver const& driver, CUcontext context) noexcept
    : image_(image), driver_(driver), context_(context) {}

Kernels::~Kernels() {
  // A context that is gone has taken its modules along; nothing can be done about any other failure here.
  if (driver_.push_context(context_) != CUDA_SUCCESS) return;
  for (CUmodule const module : modules_) {
    if (module != nullptr) driver_.unload_module(module);
  }
  CUcontext popped = nullptr;
  driver_.pop_context(&popped);
}

bool Kernels::current() const noexcept {
  CUcontext context = nullptr;
  return driver_.get_context(&context) == CUDA_SUCCESS && context == context_;
}

bool Kernels::fits() const noexcept {
  CUdevice device = 0;
  int major = 0;
  int minor = 0;
  char const* const asking = "asking for the GPU's compute capability";
  if (!driver_.succeeded(driver_.get_device(&device), image_.name, asking) ||
      !driver_.succeeded(driver_.get_attribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device),
          image_.name, asking) ||
      !driver_.succeeded(driver_.get_attribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device),
          image_.name, asking)) {
    return false;
  }
  if (major * 10 + minor == image_.capability) return true;
  complain("plugin %s was compiled for sm_%d and the GPU here is sm_%d; export the model for this one", image_.name,
      image_.capability, major * 10 + minor);
  return false;
}

bool Kernels::load_all() noexcept {
  for (int32_t i = 0; i < image_.launch_count; ++i) {
    Launch const& launch = image_.launches[i];
    char said[512] = "";
    CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void* settings[] = {said, reinterpret_cast<void*>(sizeof said - 1)};
    // PTX and not machine code: that of a newer toolkit than the driver's is refused, its PTX version is chosen to fit.
    if (!driver_.succeeded(driver_.load_module(&modules_[i], launch.ptx, 2, options, settings), image_.name,
            "loading its kernels")) {
      if (said[0] != '\0') complain("plugin %s: the driver says: %s", image_.name, said);
      return false;
    }
    if (!driver_.succeeded(driver_.get_function(&functions_[i], modules_[i], launch.entry), image_.name,
            "finding a kernel")) {
      return false;
    }
  }
  return true;
}

bool Kernels::refuse(char const* entry) const noexcept {
  complain("plugin %s cannot launch %s for inputs of these shapes", image_.name, entry);
  return false;
}

bool Kernels::launch(int32_t number, Shapes inputs, Addresses const& addresses, CUstream stream) const noexcept {
  Launch const& launch = image_.launches[number];
  uint32_t grid[3] = {};
  for (int32_t i = 0; i < 3; ++i) {
    int64_t blocks = 0;
    if (!evaluate(launch.grid[i], inputs, blocks) || blocks < 0 || blocks > kMostBlocks[i]) return refuse(launch.entry);
    if (blocks == 0) return true;
    grid[i] = static_cast<uint32_t>(blocks);
  }
  union {
    void const* pointer;
    int32_t integer;
  } values[kMostArguments];
  void* places[kMostArguments] = {};
  for (int32_t i = 0; i < launch.count; ++i) {
    Argument const& argument = launch.arguments[i];
    places[i] = &values[i];
    switch (argument.kind) {
      case Kind::kInput: values[i].pointer = addresses.inputs[argument.index]; break;
      case Kind::kOutput: values[i].pointer = addresses.outputs[argument.index]; break;
      case Kind::kScratch: values[i].pointer = addresses.scratch[argument.index]; break;
      case Kind::kInteger:
        int64_t number_of = 0;
        if (!evaluate(argument.value, inputs, number_of) || number_of != static_cast<int32_t>(number_of)) {
          return refuse(launch.entry);
        }
        values[i].integer = static_cast<int32_t>(number_of);
        break;
    }
  }
  return driver_.succeeded(driver_.launch(functions_[number], grid[0], grid[1], grid[2], launch.threads, 1, 1,
                               launch.shared, stream, places, nullptr),
      image_.name, "launching a kernel");
}

}  // namespace neurocompile
