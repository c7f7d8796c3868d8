// Made by go generate from the declarations of shim.h and cuda_shim.h.
#define TV_ABI_HASH 0xabd245e5c31b4a55ULL
