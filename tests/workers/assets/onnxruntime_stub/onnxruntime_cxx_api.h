// As much of ONNX Runtime's C++ interface as the exported program uses. Prints to standard error what it is fed, and
// answers with five descending outputs.

#pragma once

#include <cctype>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <vector>

#define ORTCHAR_T char

enum OrtLoggingLevel { ORT_LOGGING_LEVEL_WARNING };
enum OrtAllocatorType { OrtArenaAllocator };
enum OrtMemType { OrtMemTypeDefault };

namespace Ort {

struct Env {
  Env(OrtLoggingLevel, const char*) {}
};

struct SessionOptions {};

struct RunOptions {
  explicit RunOptions(std::nullptr_t) {}
};

struct MemoryInfo {
  static MemoryInfo CreateCpu(OrtAllocatorType, OrtMemType) { return {}; }
};

struct ShapeInfo {
  std::size_t count;
  std::size_t GetElementCount() const { return count; }
};

struct Value {
  std::vector<float> data;

  template <typename T>
  static Value CreateTensor(const MemoryInfo&, T* data, std::size_t count, const std::int64_t*, std::size_t) {
    return {{data, data + count}};
  }
  template <typename T>
  const T* GetTensorData() const {
    return data.data();
  }
  ShapeInfo GetTensorTypeAndShapeInfo() const { return {data.size()}; }
};

struct Session {
  Session(Env&, const ORTCHAR_T*, const SessionOptions&) {}
  std::vector<Value> Run(const RunOptions&, const char* const*, const Value* fed, std::size_t, const char* const*,
                         std::size_t) {
    for (const float value : fed->data) std::fprintf(stderr, "%.9g ", value);
    return {Value{{5.0f, 4.0f, 3.0f, 2.0f, 1.0f}}};
  }
};

}  // namespace Ort
