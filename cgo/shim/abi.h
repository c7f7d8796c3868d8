// Made by go generate from the declarations of shim.h and cuda_shim.h.
#define TV_ABI_HASH 0x32b1f2b9f6e8fec1ULL
