// What goes wrong is said once, in one sentence, to TensorRT's logger; calls then return an error code.
#pragma once

#include <NvInferRuntime.h>

namespace neurocompile {

// Where to ask for a logger from now on; null for standard error.
void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept;

void complain(char const* format, ...) noexcept __attribute__((format(printf, 1, 2)));

}  // namespace neurocompile
