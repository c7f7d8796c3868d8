// What the Go files include: the shim's interface and the functions that resolve it.
#ifndef TORCHVIT_CALLS_H
#define TORCHVIT_CALLS_H

#include "shim/abi.h"
#include "shim/cuda_shim.h"
#include "shim/shim.h"

// Resolve every function in the opened library; gives the name of the first one that is missing.
const char* tvgo_resolve(void* library);
const char* tvgo_resolve_cuda(void* library);

#endif
