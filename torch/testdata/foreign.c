// A library of another maker, as far as libtorch is concerned: it offers tensors through DLPack. When it
// is loaded it writes the addresses of a DLManagedTensor, of its data, of the count of deleter calls, and
// of a DLManagedTensor with an unknown dtype to the file that TORCHVIT_TEST_FOREIGN names.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {
  void* data;
  struct {
    int32_t type, id;
  } device;
  int32_t ndim;
  struct {
    uint8_t code, bits;
    uint16_t lanes;
  } dtype;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
} DLTensor;

typedef struct DLManagedTensor {
  DLTensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(struct DLManagedTensor* self);
} DLManagedTensor;

static _Alignas(64) float data[6] = {1, 2, 3, 4, 5, 6};
static int64_t shape[2] = {2, 3};
static int32_t deleted;

static void deleter(DLManagedTensor* self) {
  deleted++;
  free(self);
}

static DLManagedTensor* make(uint8_t code, uint8_t bits) {
  DLManagedTensor* m = calloc(1, sizeof *m);
  m->dl_tensor.data = data;
  m->dl_tensor.device.type = 1;  // kDLCPU
  m->dl_tensor.ndim = 2;
  m->dl_tensor.dtype.code = code;
  m->dl_tensor.dtype.bits = bits;
  m->dl_tensor.dtype.lanes = 1;
  m->dl_tensor.shape = shape;  // no strides: row-major
  m->deleter = deleter;
  return m;
}

__attribute__((constructor)) static void offer(void) {
  const char* path = getenv("TORCHVIT_TEST_FOREIGN");
  FILE* f = path != NULL ? fopen(path, "w") : NULL;
  if (f == NULL) return;
  fprintf(f, "%p\n%p\n%p\n%p\n", (void*)make(2, 32), (void*)data, (void*)&deleted, (void*)make(200, 7));
  fclose(f);
}
