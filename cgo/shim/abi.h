// Made by go generate from the declarations of shim.h and cuda_shim.h.
#define TV_ABI_HASH 0x740ed249a71f1339ULL
