// TorchScript values to nodes and back.
#pragma once

#include <vector>

#include <ATen/core/ivalue.h>
#include <ATen/core/jit_type.h>

#include "guard.h"

// Nodes, their text, and the tensors in them until the reader takes them.
struct tv_values : tv::Counted<tv::kValues> {
  ~tv_values();
  std::vector<tv_node> nodes;
  std::string text;
  bool taken = false;
};

namespace tv {

// Reads values from nodes, checking that they are well formed.
class Reader {
 public:
  Reader(const tv_node* nodes, int32_t count, const char* text, int64_t text_len)
      : nodes_(nodes), count_(count), text_(text), text_len_(text_len) {}

  bool done() const { return at_ == count_; }

  // The next value as one of that type. False where it does not fit, with the reason in *why unless it
  // is NULL; cost grows with every step away from the type (an int for a float, a value for an
  // optional), so that overloads can be ranked.
  bool read(const c10::TypePtr& type, c10::IValue* out, int* cost, std::string* why, int depth = 0);
  // The next value with the type that its nodes suggest.
  c10::IValue infer(int depth = 0);
  std::string read_string();
  // A list of tensors, in which None is an undefined one.
  std::vector<at::Tensor> read_tensors();
  int32_t peek_kind() const;
  // Says that the next value is not of that type.
  std::string misfit(const c10::TypePtr& type) const;

 private:
  const tv_node& next();
  std::string string_of(const tv_node& n) const;
  c10::TypePtr type_at(int32_t at, int32_t* end) const;

  const tv_node* nodes_;
  int32_t count_;
  const char* text_;
  int64_t text_len_;
  int32_t at_ = 0;
};

// Writes a value as nodes. Throws an error that names a kind that has no place in Go.
void write(const c10::IValue& v, tv_values* out, int depth = 0);

// The result of a call: one plain node in *out, or more in *more.
void write_result(const c10::IValue& v, tv_node* out, tv_values** more);

// A node that owns a handle to t.
tv_node tensor_node(at::Tensor t);
tv_node* add_node(tv_values* out, int32_t kind, int64_t count = 0);
// Text is made valid UTF-8; bytes stay as they are.
void add_string(tv_values* out, const std::string& s);
void add_bytes(tv_values* out, const std::string& s);

}  // namespace tv
