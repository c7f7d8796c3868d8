// TorchScript values to nodes and back.
#include "value.h"

#include <memory>

namespace tv {
namespace {

constexpr int kMaxDepth = 64;

const char* kind_name(int32_t kind) {
  static const char* names[] = {"none", "Tensor", "bool", "int", "float", "str", "tuple", "list", "dict"};
  return kind >= 0 && kind <= TV_DICT ? names[kind] : "unknown";
}

int32_t element_kind(const c10::TypePtr& type) {
  switch (type->kind()) {
    case c10::TypeKind::TensorType:
      return TV_TENSOR;
    case c10::TypeKind::BoolType:
      return TV_BOOL;
    case c10::TypeKind::IntType:
      return TV_INT;
    case c10::TypeKind::FloatType:
      return TV_FLOAT;
    case c10::TypeKind::StringType:
      return TV_STRING;
    default:
      return -1;
  }
}

void check_depth(int depth) {
  if (depth > kMaxDepth) throw Error(TV_VALUE, "value: got more than 64 levels of nesting");
}

}  // namespace

const tv_node& Reader::next() {
  if (at_ >= count_) throw Error(TV_INVALID_ARGUMENT, "value: got fewer nodes than their counts say");
  const tv_node& n = nodes_[at_++];
  if (n.count < 0) throw Error(TV_INVALID_ARGUMENT, "value: got a negative count");
  return n;
}

std::string Reader::string_of(const tv_node& n) const {
  if (n.i < 0 || n.i + n.count > text_len_) throw Error(TV_INVALID_ARGUMENT, "value: got a string outside the text");
  return text(text_ + n.i, n.count);
}

std::string Reader::read_string() {
  const tv_node& n = next();
  if (n.kind != TV_STRING)
    throw Error(TV_INVALID_ARGUMENT, std::string("value: got ") + kind_name(n.kind) + ", want str");
  return string_of(n);
}

std::vector<at::Tensor> Reader::read_tensors() {
  const tv_node& list = next();
  if (list.kind != TV_LIST)
    throw Error(TV_INVALID_ARGUMENT, std::string("value: got ") + kind_name(list.kind) + ", want a list of tensors");
  if (list.count > count_ - at_) throw Error(TV_INVALID_ARGUMENT, "value: got fewer nodes than their counts say");
  std::vector<at::Tensor> out;
  out.reserve(static_cast<size_t>(list.count));
  for (int32_t k = 0; k < list.count; k++) {
    const tv_node& n = next();
    if (n.kind != TV_NONE && (n.kind != TV_TENSOR || n.tensor == nullptr))
      throw Error(TV_INVALID_ARGUMENT, std::string("value: got ") + kind_name(n.kind) + ", want Tensor");
    out.push_back(n.kind == TV_NONE ? at::Tensor() : n.tensor->t);
  }
  return out;
}

int32_t Reader::peek_kind() const {
  if (at_ >= count_) throw Error(TV_INVALID_ARGUMENT, "value: got fewer nodes than their counts say");
  const int32_t kind = nodes_[at_].kind;
  if (kind < TV_NONE || kind > TV_DICT) throw Error(TV_INVALID_ARGUMENT, "value: got an unknown kind of node");
  return kind;
}

std::string Reader::misfit(const c10::TypePtr& type) const {
  return std::string("got ") + kind_name(peek_kind()) + ", want " + type->str();
}

bool Reader::read(const c10::TypePtr& type, c10::IValue* out, int* cost, std::string* why, int depth) {
  check_depth(depth);
  if (at_ >= count_) throw Error(TV_INVALID_ARGUMENT, "value: got fewer nodes than their counts say");
  const tv_node& peek = nodes_[at_];
  auto refuse = [&] {
    if (why != nullptr) *why = std::string("got ") + kind_name(peek.kind) + ", want " + type->str();
    return false;
  };
  switch (type->kind()) {
    case c10::TypeKind::OptionalType:
      if (peek.kind == TV_NONE) {
        next();
        *out = c10::IValue();
        return true;
      }
      ++*cost;
      return read(type->expectRef<c10::OptionalType>().getElementType(), out, cost, why, depth + 1);
    case c10::TypeKind::NoneType:
      if (peek.kind != TV_NONE) return refuse();
      next();
      *out = c10::IValue();
      return true;
    case c10::TypeKind::TensorType:
      if (peek.kind != TV_TENSOR || peek.tensor == nullptr) return refuse();
      *out = next().tensor->t;
      return true;
    case c10::TypeKind::BoolType:
      if (peek.kind != TV_BOOL) return refuse();
      *out = next().i != 0;
      return true;
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType:
      if (peek.kind != TV_INT) return refuse();
      *out = next().i;
      return true;
    case c10::TypeKind::FloatType:
    case c10::TypeKind::SymFloatType:
      if (peek.kind == TV_INT) {
        *cost += 4;
        *out = static_cast<double>(next().i);
        return true;
      }
      if (peek.kind != TV_FLOAT) return refuse();
      *out = next().f;
      return true;
    case c10::TypeKind::NumberType:
      *cost += 2;
      if (peek.kind == TV_INT)
        *out = next().i;
      else if (peek.kind == TV_FLOAT)
        *out = next().f;
      else if (peek.kind == TV_BOOL)
        *out = next().i != 0;
      else
        return refuse();
      return true;
    case c10::TypeKind::StringType:
      if (peek.kind != TV_STRING) return refuse();
      *out = string_of(next());
      return true;
    case c10::TypeKind::DeviceObjType:
      if (peek.kind != TV_STRING) return refuse();
      try {
        *out = c10::Device(string_of(peek));
      } catch (const c10::Error&) {
        if (why != nullptr) *why = "got \"" + string_of(peek) + "\", want a device such as cpu or cuda:0";
        return false;
      }
      next();
      return true;
    case c10::TypeKind::ListType: {
      const auto& element = type->expectRef<c10::ListType>().getElementType();
      if (peek.kind != TV_LIST && peek.kind != TV_TUPLE) return refuse();
      const int32_t n = next().count;
      c10::impl::GenericList list(element->kind() == c10::TypeKind::SymIntType ? c10::IntType::get() : element);
      for (int32_t k = 0; k < n; k++) {
        c10::IValue v;
        if (!read(element, &v, cost, why, depth + 1)) return false;
        list.push_back(std::move(v));
      }
      *out = std::move(list);
      return true;
    }
    case c10::TypeKind::TupleType: {
      const auto elements = type->expectRef<c10::TupleType>().elements();
      if ((peek.kind != TV_TUPLE && peek.kind != TV_LIST) || static_cast<size_t>(peek.count) != elements.size())
        return refuse();
      next();
      std::vector<c10::IValue> items(elements.size());
      for (size_t k = 0; k < elements.size(); k++)
        if (!read(elements[k], &items[k], cost, why, depth + 1)) return false;
      *out = c10::ivalue::Tuple::create(std::move(items));
      return true;
    }
    case c10::TypeKind::DictType: {
      const auto& dict_type = type->expectRef<c10::DictType>();
      if (peek.kind != TV_DICT) return refuse();
      const int32_t n = next().count;
      c10::impl::GenericDict dict(dict_type.getKeyType(), dict_type.getValueType());
      for (int32_t k = 0; k < n; k++) {
        c10::IValue key, value;
        if (!read(dict_type.getKeyType(), &key, cost, why, depth + 1)) return false;
        if (!read(dict_type.getValueType(), &value, cost, why, depth + 1)) return false;
        dict.insert(std::move(key), std::move(value));
      }
      *out = std::move(dict);
      return true;
    }
    case c10::TypeKind::UnionType:
      for (const auto& one : type->expectRef<c10::UnionType>().containedTypes()) {
        const int32_t start = at_;
        if (read(one, out, cost, why, depth + 1)) return true;
        at_ = start;
      }
      return refuse();
    case c10::TypeKind::AnyType:
      *out = infer(depth + 1);
      return true;
    default:
      return refuse();
  }
}

c10::TypePtr Reader::type_at(int32_t at, int32_t* end) const {
  if (at >= count_) throw Error(TV_INVALID_ARGUMENT, "value: got fewer nodes than their counts say");
  const tv_node& n = nodes_[at++];
  c10::TypePtr type;
  switch (n.kind) {
    case TV_TENSOR:
      type = c10::TensorType::get();
      break;
    case TV_BOOL:
      type = c10::BoolType::get();
      break;
    case TV_INT:
      type = c10::IntType::get();
      break;
    case TV_FLOAT:
      type = c10::FloatType::get();
      break;
    case TV_STRING:
      type = c10::StringType::get();
      break;
    case TV_TUPLE:
    case TV_LIST:
    case TV_DICT: {
      std::vector<c10::TypePtr> types;
      const int64_t children = n.kind == TV_DICT ? 2 * static_cast<int64_t>(n.count) : n.count;
      for (int64_t k = 0; k < children; k++) types.push_back(type_at(at, &at));
      auto common = [&](size_t from, size_t step) -> c10::TypePtr {
        if (types.size() <= from) return nullptr;
        for (size_t k = from; k < types.size(); k += step)
          if (*types[k] != *types[from]) return c10::AnyType::get();
        return types[from];
      };
      if (n.kind == TV_TUPLE) {
        type = c10::TupleType::create(types);
      } else if (n.kind == TV_LIST) {
        const auto element = common(0, 1);
        type = c10::ListType::create(element ? element : c10::TensorType::get());
      } else {
        const auto key = common(0, 2), value = common(1, 2);
        type = c10::DictType::create(key ? key : c10::StringType::get(), value ? value : c10::TensorType::get());
      }
      break;
    }
    default:
      type = c10::NoneType::get();
  }
  *end = at;
  return type;
}

c10::IValue Reader::infer(int depth) {
  check_depth(depth);
  int32_t end = 0;
  const auto type = type_at(at_, &end);
  c10::IValue v;
  int cost = 0;
  std::string why;
  if (!read(type, &v, &cost, &why, depth + 1)) throw Error(TV_VALUE, "value: " + why);
  return v;
}

tv_node tensor_node(at::Tensor t) {
  const int64_t numel = t.numel();
  return tv_node{TV_TENSOR, 0, numel, 0, new tv_tensor(std::move(t))};
}

tv_node* add_node(tv_values* out, int32_t kind, int64_t count) {
  if (count > INT32_MAX) throw Error(TV_VALUE, "value: got more than 2^31 elements");
  out->nodes.push_back(tv_node{kind, static_cast<int32_t>(count), 0, 0, nullptr});
  return &out->nodes.back();
}

void add_string(tv_values* out, const std::string& s) { add_bytes(out, valid_utf8(s)); }

void add_bytes(tv_values* out, const std::string& s) {
  add_node(out, TV_STRING, static_cast<int64_t>(s.size()))->i = static_cast<int64_t>(out->text.size());
  out->text += s;
}

void write(const c10::IValue& v, tv_values* out, int depth) {
  check_depth(depth);  // a list of Any can hold itself
  if (v.isTensor()) {
    if (v.toTensor().defined())
      *add_node(out, TV_TENSOR) = tensor_node(v.toTensor());
    else
      add_node(out, TV_NONE);
  } else if (v.isNone()) {
    add_node(out, TV_NONE);
  } else if (v.isBool()) {
    add_node(out, TV_BOOL)->i = v.toBool();
  } else if (v.isInt()) {
    add_node(out, TV_INT)->i = v.toInt();
  } else if (v.isDouble()) {
    add_node(out, TV_FLOAT)->f = v.toDouble();
  } else if (v.isString()) {
    add_string(out, v.toStringRef());
  } else if (v.isTuple()) {
    const auto& items = v.toTupleRef().elements();
    add_node(out, TV_TUPLE, static_cast<int64_t>(items.size()));
    for (const c10::IValue& item : items) write(item, out, depth + 1);
  } else if (v.isList()) {
    const auto list = v.toListRef();
    add_node(out, TV_LIST, static_cast<int64_t>(list.size()))->i = element_kind(v.toList().elementType());
    for (const auto& item : list) write(item, out, depth + 1);
  } else if (v.isGenericDict()) {
    const auto dict = v.toGenericDict();
    add_node(out, TV_DICT, static_cast<int64_t>(dict.size()));
    for (const auto& entry : dict) {
      if (!entry.key().isString() && !entry.key().isInt())
        throw Error(TV_VALUE, "value: got a dict with keys of kind " + entry.key().tagKind() + ", want str or int");
      write(entry.key(), out, depth + 1);
      write(entry.value(), out, depth + 1);
    }
  } else {
    throw Error(TV_VALUE, "value: got a value of kind " + v.tagKind() +
                              ", want Tensor, bool, int, float, str, None, tuple, list or dict");
  }
}

void write_result(const c10::IValue& v, tv_node* out, tv_values** more) {
  *more = nullptr;
  if (v.isTensor() && v.toTensor().defined()) {
    *out = tensor_node(v.toTensor());
    return;
  }
  auto values = std::make_unique<tv_values>();
  write(v, values.get());
  if (values->nodes.size() == 1 && values->nodes[0].kind <= TV_FLOAT) {
    *out = values->nodes[0];
    values->taken = true;
    return;
  }
  *more = values.release();
}

}  // namespace tv

tv_values::~tv_values() {
  if (taken) return;
  for (const auto& n : nodes) delete n.tensor;
}

extern "C" {

void tv_values_read(tv_values* v, const tv_node** nodes, int64_t* count, const char** text, int64_t* text_len) {
  tv::quiet([&] {
    *nodes = v->nodes.data();
    *count = static_cast<int64_t>(v->nodes.size());
    *text = v->text.data();
    *text_len = static_cast<int64_t>(v->text.size());
    v->taken = true;
  });
}

void tv_values_free(tv_values* v) {
  tv::quiet([&] { delete v; });
}

}  // extern "C"
