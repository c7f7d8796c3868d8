// Made by go generate from the declarations of shim.h and cuda_shim.h.
#define TV_ABI_HASH 0x1dd60aa7ecafade9ULL
