// Made by go generate from the declarations of shim.h and cuda_shim.h.
#define TV_ABI_HASH 0xa652114eb0e10694ULL
