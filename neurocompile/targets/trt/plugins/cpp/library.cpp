// What TensorRT finds when it loads the library: one creator per image.
#include <cstring>
#include <deque>
#include <exception>
#include <new>
#include <vector>

#include "messages.h"
#include "plugin.h"

namespace neurocompile {
namespace {

class Creator final : public nvinfer1::IPluginCreatorV3One {
 public:
  explicit Creator(Image const& image) noexcept : image_(image) {}

  nvinfer1::AsciiChar const* getPluginName() const noexcept override { return image_.name; }
  nvinfer1::AsciiChar const* getPluginVersion() const noexcept override { return image_.version; }
  nvinfer1::AsciiChar const* getPluginNamespace() const noexcept override { return image_.space; }

  // A node has nothing to set: all numbers are in the kernels.
  nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override { return &none_; }

  nvinfer1::IPluginV3* createPlugin(nvinfer1::AsciiChar const*, nvinfer1::PluginFieldCollection const* fc,
      nvinfer1::TensorRTPhase phase) noexcept override {
    if (phase == nvinfer1::TensorRTPhase::kRUNTIME && !kept(fc)) {
      complain("an engine wants a plugin that is not %s; build its engines again", image_.name);
      return nullptr;
    }
    return new (std::nothrow) Plugin(image_);
  }

 private:
  // Whether an engine kept this image's name.
  bool kept(nvinfer1::PluginFieldCollection const* fields) const noexcept {
    std::size_t const length = std::strlen(image_.name);
    for (int32_t i = 0; fields != nullptr && i < fields->nbFields; ++i) {
      nvinfer1::PluginField const& field = fields->fields[i];
      if (std::strcmp(field.name, kField) != 0) continue;
      return field.data != nullptr && static_cast<std::size_t>(field.length) == length &&
             std::memcmp(field.data, image_.name, length) == 0;
    }
    return false;
  }

  Image const& image_;
  nvinfer1::PluginFieldCollection none_{};
};

struct Creators {
  std::deque<Creator> all;
  std::vector<nvinfer1::IPluginCreatorInterface*> pointers;

  Creators() {
    for (int32_t i = 0; i < kImageCount; ++i) pointers.push_back(&all.emplace_back(kImages[i]));
  }
};

}  // namespace
}  // namespace neurocompile

#define NEUROCOMPILE_EXPORTED extern "C" __attribute__((visibility("default")))

NEUROCOMPILE_EXPORTED nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
  count = 0;
  try {
    static neurocompile::Creators creators;
    count = static_cast<int32_t>(creators.pointers.size());
    return creators.pointers.data();
  } catch (std::exception const& error) {
    neurocompile::complain("the plugins cannot be listed: %s", error.what());
    return nullptr;
  }
}

NEUROCOMPILE_EXPORTED void setLoggerFinder(nvinfer1::ILoggerFinder* finder) {
  neurocompile::set_logger_finder(finder);
}
