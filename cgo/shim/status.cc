// Exceptions to statuses.
#include "guard.h"

#include <memory>
#include <new>

#include <torch/csrc/jit/runtime/jit_exception.h>

namespace tv {

std::atomic<int64_t> live[kKinds];

std::string valid_utf8(const std::string& s) {
  std::string out;
  out.reserve(s.size());
  const auto* p = reinterpret_cast<const unsigned char*>(s.data());
  const size_t n = s.size();
  for (size_t i = 0; i < n;) {
    const unsigned char c = p[i];
    size_t len = c < 0x80 ? 1 : (c >> 5) == 6 ? 2 : (c >> 4) == 14 ? 3 : (c >> 3) == 30 ? 4 : 0;
    bool ok = len > 0 && i + len <= n && c != 0xC0 && c != 0xC1 && c < 0xF5;
    for (size_t k = 1; ok && k < len; k++) ok = (p[i + k] >> 6) == 2;
    if (ok && len == 3) ok = !(c == 0xE0 && p[i + 1] < 0xA0) && !(c == 0xED && p[i + 1] > 0x9F);
    if (ok && len == 4) ok = !(c == 0xF0 && p[i + 1] < 0x90) && !(c == 0xF4 && p[i + 1] > 0x8F);
    if (ok) {
      out.append(s, i, len);
      i += len;
    } else {
      out += "\xEF\xBF\xBD";
      i++;
    }
  }
  return out;
}

std::string json_escape(const std::string& raw) {
  static const char* hex = "0123456789abcdef";
  std::string out;
  for (const char c : valid_utf8(raw)) {
    const auto u = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (u < 0x20) {
      out += "\\u00";
      out += hex[u >> 4];
      out += hex[u & 15];
    } else {
      out += c;
    }
  }
  return out;
}

namespace {

// What went wrong, without the stack: libtorch wraps errors inside TorchScript into a traceback, with
// excerpts of the code, whose last lines hold the cause.
std::string cause(const std::string& what) {
  static const char* interpreter = "The following operation failed in the TorchScript interpreter";
  if (what.rfind(interpreter, 0) == 0) {
    size_t end = what.size();
    while (end > 0) {
      const size_t start = what.rfind('\n', end - 1);
      const size_t from = start == std::string::npos ? 0 : start + 1;
      const std::string line = what.substr(from, end - from);
      if (line.find("Error: ") != std::string::npos || line.find("Exception: ") != std::string::npos)
        return what.substr(from);
      end = start == std::string::npos ? 0 : start;
    }
  }
  const size_t from = what.find_first_not_of(" \t\r\n");
  return from == std::string::npos ? what : what.substr(from);
}

std::string one_line(const std::string& cause) {
  std::string line = cause.substr(0, cause.find('\n'));
  constexpr size_t kMax = 400;
  if (line.size() > kMax) {
    size_t end = kMax;
    while ((static_cast<unsigned char>(line[end]) >> 6) == 2) end--;  // not inside a character
    line = line.substr(0, end) + "...";
  }
  return line;
}

bool has(const std::string& s, const char* part) { return s.find(part) != std::string::npos; }

// libtorch throws one type for nearly everything, so the code is read from the text of the cause.
int32_t code_of(const std::string& what) {
  if (has(what, "out of memory") || has(what, "DefaultCPUAllocator: can't allocate") ||
      has(what, "DefaultCPUAllocator: not enough memory"))
    return TV_OUT_OF_MEMORY;
  if (has(what, "Unknown builtin op")) return TV_NOT_FOUND;
  if (has(what, "does not require grad") || has(what, "backward through the graph a second time") ||
      has(what, "nference tensor") || has(what, "leaf variables") || has(what, "leaf Variable") ||
      has(what, "needed for gradient computation") || has(what, "not have been used in the graph"))
    return TV_AUTOGRAD;
  if (has(what, "only for scalar outputs")) return TV_SHAPE;
  if (has(what, "scalar type") || has(what, "dtype") || has(what, "did not match")) return TV_DTYPE;
  if (has(what, "must match the size") || has(what, "shapes cannot be multiplied") || has(what, "size mismatch") ||
      has(what, "invalid for input of size") || has(what, "but got input of size") || has(what, "Sizes of tensors") ||
      has(what, "dimensional") || has(what, "Dimension out of range") || has(what, "to have 3 channels") ||
      has(what, "channels") || has(what, "shape") || has(what, "cannot be converted to Scalar") || has(what, "0-dim"))
    return TV_SHAPE;
  if (has(what, "out of range") || has(what, "out of bounds")) return TV_INVALID_ARGUMENT;
  if (has(what, "same device") || has(what, "CUDA") || has(what, "device type")) return TV_DEVICE;
  if (has(what, "Expected at most") || has(what, "missing value for argument") || has(what, "Expected a value of type"))
    return TV_INVALID_ARGUMENT;
  return TV_RUNTIME;
}

// code 0: by the text.
tv_status* make(int32_t code, const std::string& what) {
  auto s = std::make_unique<tv_status>();
  s->detail = valid_utf8(what);
  const std::string why = cause(s->detail);
  s->code = code != 0 ? code : code_of(why);
  s->message = one_line(why);
  return s.release();
}

// Stands in where there is no memory for a status; freeing it does nothing.
tv_status* fallback() {
  static tv_status* s = [] {
    auto* p = new tv_status();
    p->code = TV_OUT_OF_MEMORY;
    p->message = p->detail = "out of memory while reporting an error";
    live[kStatus].fetch_sub(1);
    return p;
  }();
  return s;
}
// Made at load, when there is memory.
tv_status* const kFallback = fallback();

}  // namespace

tv_status* current_exception_status() noexcept {
  try {
    try {
      throw;
    } catch (const Failed& f) {
      return f.status;
    } catch (const Error& e) {
      return make(e.code, e.what());
    } catch (const torch::jit::JITException& e) {
      return make(TV_SCRIPT, e.what());
    } catch (const c10::OutOfMemoryError& e) {
      return make(TV_OUT_OF_MEMORY, e.what_without_backtrace());
    } catch (const c10::NotImplementedError& e) {
      return make(TV_UNSUPPORTED, e.what_without_backtrace());
    } catch (const c10::Error& e) {
      return make(0, e.what_without_backtrace());
    } catch (const std::bad_alloc&) {
      return make(TV_OUT_OF_MEMORY, "out of memory");
    } catch (const std::invalid_argument& e) {
      return make(TV_INVALID_ARGUMENT, e.what());
    } catch (const std::exception& e) {
      return make(0, e.what());
    } catch (...) {
      return make(TV_RUNTIME, "unknown C++ exception");
    }
  } catch (...) {
    return kFallback;
  }
}

}  // namespace tv

extern "C" {

void tv_status_read(const tv_status* s, int32_t* code, const char** message, int64_t* message_len, const char** detail,
                    int64_t* detail_len) {
  tv::quiet([&] {
    *code = s->code;
    *message = s->message.data();
    *message_len = static_cast<int64_t>(s->message.size());
    *detail = s->detail.data();
    *detail_len = static_cast<int64_t>(s->detail.size());
  });
}

void tv_status_free(tv_status* s) {
  tv::quiet([&] {
    if (s != tv::kFallback) delete s;
  });
}

void tv_buffer_read(const tv_buffer* b, const void** data, int64_t* len) {
  tv::quiet([&] {
    *data = b->bytes.data();
    *len = static_cast<int64_t>(b->bytes.size());
  });
}

void tv_buffer_free(tv_buffer* b) {
  tv::quiet([&] { delete b; });
}

}  // extern "C"
