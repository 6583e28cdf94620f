// Which TensorRT the declarations stand for: -DSHIM_TENSORRT=1003 (10.3, the default) or 1100 (11.0).
#pragma once

#ifndef SHIM_TENSORRT
#define SHIM_TENSORRT 1003
#endif

#define NV_TENSORRT_MAJOR (SHIM_TENSORRT / 100)
#define NV_TENSORRT_MINOR (SHIM_TENSORRT % 100)
#define NV_TENSORRT_PATCH 0
