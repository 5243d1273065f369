// The part of ONNX Runtime's C ABI that this library uses, and the program that deployed bundles have in C++.
//
// Source: the public C API, whose function table and OrtCustomOp struct are append-only: a position never changes. The
// positions were taken from API version 29 and hold from version 18 on. custom_ops/tests/abi.cpp compares them with the
// official header where there is one.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

struct OrtAllocator;
struct OrtApi;  // a table of function pointers, reached through pconv::abi
struct OrtCustomOpDomain;
struct OrtEnv;
struct OrtKernelContext;
struct OrtKernelInfo;
struct OrtMemoryInfo;
struct OrtOpAttr;
struct OrtRunOptions;
struct OrtSession;
struct OrtSessionOptions;
struct OrtShapeInferContext;
struct OrtStatus;
struct OrtTensorTypeAndShapeInfo;
struct OrtValue;

struct OrtApiBase {
  const OrtApi* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

/// Read by onnxruntime up to the members that `version` promises; the rest stays null.
struct OrtCustomOp {
  uint32_t version;
  void* (*CreateKernel)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*);
  const char* (*GetName)(const OrtCustomOp*);
  const char* (*GetExecutionProviderType)(const OrtCustomOp*);
  int (*GetInputType)(const OrtCustomOp*, size_t index);
  size_t (*GetInputTypeCount)(const OrtCustomOp*);
  int (*GetOutputType)(const OrtCustomOp*, size_t index);
  size_t (*GetOutputTypeCount)(const OrtCustomOp*);
  void (*KernelCompute)(void* kernel, OrtKernelContext*);
  void (*KernelDestroy)(void* kernel);
  int (*GetInputCharacteristic)(const OrtCustomOp*, size_t index);
  int (*GetOutputCharacteristic)(const OrtCustomOp*, size_t index);
  int (*GetInputMemoryType)(const OrtCustomOp*, size_t index);
  int (*GetVariadicInputMinArity)(const OrtCustomOp*);
  int (*GetVariadicInputHomogeneity)(const OrtCustomOp*);
  int (*GetVariadicOutputMinArity)(const OrtCustomOp*);
  int (*GetVariadicOutputHomogeneity)(const OrtCustomOp*);
  OrtStatus* (*CreateKernelV2)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*, void** kernel);
  OrtStatus* (*KernelComputeV2)(void* kernel, OrtKernelContext*);
  OrtStatus* (*InferOutputShapeFn)(const OrtCustomOp*, OrtShapeInferContext*);
  int (*GetStartVersion)(const OrtCustomOp*);
  int (*GetEndVersion)(const OrtCustomOp*);
  size_t (*GetMayInplace)(int** input, int** output);
  void (*ReleaseMayInplace)(int* input, int* output);
  size_t (*GetAliasMap)(int** input, int** output);
  void (*ReleaseAliasMap)(int* input, int* output);
};

}  // extern "C"

static_assert(sizeof(void*) == 8, "the positions are those of 64-bit platforms");
static_assert(offsetof(OrtCustomOp, CreateKernel) == 8);
static_assert(offsetof(OrtCustomOp, KernelCompute) == 64);
static_assert(offsetof(OrtCustomOp, GetInputMemoryType) == 96);
static_assert(offsetof(OrtCustomOp, CreateKernelV2) == 136);
static_assert(offsetof(OrtCustomOp, InferOutputShapeFn) == 152);
static_assert(offsetof(OrtCustomOp, GetEndVersion) == 168);
static_assert(offsetof(OrtCustomOp, GetMayInplace) == 176);
static_assert(offsetof(OrtCustomOp, ReleaseAliasMap) == 200);
static_assert(sizeof(OrtCustomOp) == 208);

namespace pconv::abi {

/// What paths are made of: onnxruntime hands them to the system as they are.
#ifdef _WIN32
using PathChar = wchar_t;
#else
using PathChar = char;
#endif

/// The version whose OrtCustomOp members and functions this library needs: the first with outputs in place of inputs.
inline constexpr uint32_t kVersion = 18;

enum ErrorCode : int { kFail = 1, kInvalidArgument = 2 };
enum ElementType : int { kFloat = 1, kUint8 = 2, kInt8 = 3, kInt32 = 6, kFloat16 = 10, kBFloat16 = 16 };
enum AttributeType : int { kInt = 1, kInts = 2 };
enum Characteristic : int { kRequired = 0 };
enum MemoryType : int { kOfProvider = 0 };
enum AllocatorType : int { kArenaAllocator = 1 };
enum LoggingLevel : int { kFatal = 4 };

template <std::size_t Index, class Signature>
struct Slot;

/// The function at one position of the OrtApi table.
template <std::size_t Index, class Result, class... Args>
struct Slot<Index, Result(Args...)> {
  using Function = Result (*)(Args...);

  Result operator()(const OrtApi* api, Args... args) const {
    return reinterpret_cast<const Function*>(api)[Index](args...);
  }
};

inline constexpr Slot<0, OrtStatus*(int code, const char* message)> CreateStatus;
inline constexpr Slot<2, const char*(const OrtStatus*)> GetErrorMessage;
inline constexpr Slot<3, OrtStatus*(int level, const char* log_id, OrtEnv**)> CreateEnv;
inline constexpr Slot<7, OrtStatus*(const OrtEnv*, const PathChar* path, const OrtSessionOptions*, OrtSession**)>
    CreateSession;
inline constexpr Slot<9, OrtStatus*(OrtSession*, const OrtRunOptions*, const char* const* input_names,
                                    const OrtValue* const* inputs, size_t input_count, const char* const* output_names,
                                    size_t output_count, OrtValue** outputs)>
    Run;
inline constexpr Slot<10, OrtStatus*(OrtSessionOptions**)> CreateSessionOptions;
inline constexpr Slot<26, OrtStatus*(const char* name, OrtCustomOpDomain**)> CreateCustomOpDomain;
inline constexpr Slot<27, OrtStatus*(OrtCustomOpDomain*, const OrtCustomOp*)> CustomOpDomain_Add;
inline constexpr Slot<28, OrtStatus*(OrtSessionOptions*, OrtCustomOpDomain*)> AddCustomOpDomain;
inline constexpr Slot<30, OrtStatus*(const OrtSession*, size_t* count)> SessionGetInputCount;
inline constexpr Slot<31, OrtStatus*(const OrtSession*, size_t* count)> SessionGetOutputCount;
inline constexpr Slot<36, OrtStatus*(const OrtSession*, size_t index, OrtAllocator*, char** name)> SessionGetInputName;
inline constexpr Slot<37, OrtStatus*(const OrtSession*, size_t index, OrtAllocator*, char** name)> SessionGetOutputName;
inline constexpr Slot<49, OrtStatus*(const OrtMemoryInfo*, void* data, size_t bytes, const int64_t* dims, size_t rank,
                                     int type, OrtValue**)>
    CreateTensorWithDataAsOrtValue;
inline constexpr Slot<51, OrtStatus*(OrtValue*, void** data)> GetTensorMutableData;
inline constexpr Slot<57, OrtStatus*(OrtTensorTypeAndShapeInfo**)> CreateTensorTypeAndShapeInfo;
inline constexpr Slot<58, OrtStatus*(OrtTensorTypeAndShapeInfo*, int type)> SetTensorElementType;
inline constexpr Slot<59, OrtStatus*(OrtTensorTypeAndShapeInfo*, const int64_t* dims, size_t rank)> SetDimensions;
inline constexpr Slot<60, OrtStatus*(const OrtTensorTypeAndShapeInfo*, int* type)> GetTensorElementType;
inline constexpr Slot<61, OrtStatus*(const OrtTensorTypeAndShapeInfo*, size_t* rank)> GetDimensionsCount;
inline constexpr Slot<62, OrtStatus*(const OrtTensorTypeAndShapeInfo*, int64_t* dims, size_t rank)> GetDimensions;
inline constexpr Slot<63, OrtStatus*(const OrtTensorTypeAndShapeInfo*, const char** names, size_t rank)>
    GetSymbolicDimensions;
inline constexpr Slot<65, OrtStatus*(const OrtValue*, OrtTensorTypeAndShapeInfo**)> GetTensorTypeAndShape;
inline constexpr Slot<69, OrtStatus*(int allocator_type, int memory_type, OrtMemoryInfo**)> CreateCpuMemoryInfo;
inline constexpr Slot<76, OrtStatus*(OrtAllocator*, void*)> AllocatorFree;
inline constexpr Slot<78, OrtStatus*(OrtAllocator**)> GetAllocatorWithDefaultOptions;
inline constexpr Slot<86, OrtStatus*(const OrtKernelInfo*, const char* name, int64_t*)> KernelInfoGetAttribute_int64;
inline constexpr Slot<90, OrtStatus*(const OrtKernelContext*, size_t index, const OrtValue**)> KernelContext_GetInput;
inline constexpr Slot<91, OrtStatus*(OrtKernelContext*, size_t index, const int64_t* dims, size_t rank, OrtValue**)>
    KernelContext_GetOutput;
inline constexpr Slot<92, void(OrtEnv*)> ReleaseEnv;
inline constexpr Slot<93, void(OrtStatus*)> ReleaseStatus;
inline constexpr Slot<94, void(OrtMemoryInfo*)> ReleaseMemoryInfo;
inline constexpr Slot<95, void(OrtSession*)> ReleaseSession;
inline constexpr Slot<96, void(OrtValue*)> ReleaseValue;
inline constexpr Slot<99, void(OrtTensorTypeAndShapeInfo*)> ReleaseTensorTypeAndShapeInfo;
inline constexpr Slot<100, void(OrtSessionOptions*)> ReleaseSessionOptions;
inline constexpr Slot<163, OrtStatus*(const OrtKernelInfo*, const char* name, int64_t* values, size_t* size)>
    KernelInfoGetAttributeArray_int64;
inline constexpr Slot<193, OrtStatus*(const OrtKernelContext*, void** stream)> KernelContext_GetGPUComputeStream;
inline constexpr Slot<228, OrtStatus*(OrtSessionOptions*, const PathChar* path)> RegisterCustomOpsLibrary_V2;
inline constexpr Slot<249, OrtStatus*(const OrtKernelInfo*, size_t index, int* is_constant, const OrtValue**)>
    KernelInfoGetConstantInput_tensor;
inline constexpr Slot<268, OrtStatus*(const OrtShapeInferContext*, size_t index, OrtTensorTypeAndShapeInfo** borrowed)>
    ShapeInferContext_GetInputTypeShape;
inline constexpr Slot<269, OrtStatus*(const OrtShapeInferContext*, const char* name, const OrtOpAttr**)>
    ShapeInferContext_GetAttribute;
inline constexpr Slot<270, OrtStatus*(const OrtShapeInferContext*, size_t index, const OrtTensorTypeAndShapeInfo*)>
    ShapeInferContext_SetOutputTypeShape;
inline constexpr Slot<271, OrtStatus*(OrtTensorTypeAndShapeInfo*, const char** names, size_t rank)>
    SetSymbolicDimensions;
inline constexpr Slot<272, OrtStatus*(const OrtOpAttr*, int type, void* data, size_t capacity, size_t* size)>
    ReadOpAttr;
inline constexpr Slot<274, OrtStatus*(const OrtKernelContext*, void (*task)(void* data, size_t index), size_t total,
                                      size_t batches, void* data)>
    KernelContext_ParallelFor;

}  // namespace pconv::abi
