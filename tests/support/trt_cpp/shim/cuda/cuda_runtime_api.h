// The one name of the CUDA runtime's header that TensorRT's interfaces use.
#pragma once

typedef struct CUstream_st *cudaStream_t;
