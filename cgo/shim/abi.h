// Made by go generate from the declarations of shim.h and cuda_shim.h.
#define TV_ABI_HASH 0xbb2d403454812a4cULL
