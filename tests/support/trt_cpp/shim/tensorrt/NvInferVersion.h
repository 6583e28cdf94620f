// Which TensorRT the declarations stand for: -DSHIM_TENSORRT=1003 (10.3, the default) or 1100 (11.0).
#pragma once

#ifndef SHIM_TENSORRT
#define SHIM_TENSORRT 1003
#endif

#if SHIM_TENSORRT == 1003
#define NV_TENSORRT_MAJOR 10
#define NV_TENSORRT_MINOR 3
#elif SHIM_TENSORRT == 1100
#define NV_TENSORRT_MAJOR 11
#define NV_TENSORRT_MINOR 0
#else
#error "these declarations stand for TensorRT 10.3 and 11.0"
#endif
#define NV_TENSORRT_PATCH 0
