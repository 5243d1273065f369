// Compiles only where pconv/ort_abi.h agrees with onnxruntime's own header, which the library itself is built without.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>

// Both headers declare the same names. What the official one includes of the standard library is already here, so that
// only onnxruntime's declarations come into the namespace.
namespace official {
#include "onnxruntime_c_api.h"
}

#include "pconv/ort_abi.h"

namespace abi = pconv::abi;

/// Whether it leads to wide characters, as paths do on Windows, and there alone.
template <class A>
constexpr bool kWide = std::is_same_v<std::remove_cv_t<std::remove_pointer_t<A>>, wchar_t>;

/// Whether values of both types are passed in the same way: as pointers, whose targets have two names, or in one size.
template <class A, class B>
constexpr bool passed_alike() {
  if constexpr (std::is_void_v<A> || std::is_void_v<B>) {
    return std::is_same_v<A, B>;
  } else {
    return std::is_pointer_v<A> == std::is_pointer_v<B> && sizeof(A) == sizeof(B) && kWide<A> == kWide<B>;
  }
}

template <class Ours, class... OurArgs, class Theirs, class... TheirArgs>
constexpr bool called_alike(Ours (*)(OurArgs...), Theirs (*)(TheirArgs...)) {
  if constexpr (sizeof...(OurArgs) == sizeof...(TheirArgs)) {
    return passed_alike<Ours, Theirs>() && (passed_alike<OurArgs, TheirArgs>() && ...);
  } else {
    return false;
  }
}

/// The position of a slot in the table, and the functions without the table that Slot::operator() takes.
template <std::size_t Index, class Signature>
constexpr std::size_t offset_of(abi::Slot<Index, Signature>) {
  return Index * sizeof(void*);
}
template <std::size_t Index, class Signature>
constexpr Signature* function_of(abi::Slot<Index, Signature>) {
  return nullptr;
}

#define CHECK_SLOT(NAME)                                                  \
  static_assert(offset_of(abi::NAME) == offsetof(official::OrtApi, NAME)); \
  static_assert(called_alike(function_of(abi::NAME), decltype(official::OrtApi::NAME){}))

#define CHECK_MEMBER(STRUCT, NAME)                                           \
  static_assert(offsetof(STRUCT, NAME) == offsetof(official::STRUCT, NAME)); \
  static_assert(called_alike(decltype(STRUCT::NAME){}, decltype(official::STRUCT::NAME){}))

#define CHECK_ENUM(OURS, THEIRS) static_assert(static_cast<int>(abi::OURS) == static_cast<int>(official::THEIRS))

CHECK_SLOT(CreateStatus);
CHECK_SLOT(GetErrorMessage);
CHECK_SLOT(CreateEnv);
CHECK_SLOT(CreateSession);
CHECK_SLOT(Run);
CHECK_SLOT(CreateSessionOptions);
CHECK_SLOT(CreateCustomOpDomain);
CHECK_SLOT(CustomOpDomain_Add);
CHECK_SLOT(AddCustomOpDomain);
CHECK_SLOT(SessionGetInputCount);
CHECK_SLOT(SessionGetOutputCount);
CHECK_SLOT(SessionGetInputName);
CHECK_SLOT(SessionGetOutputName);
CHECK_SLOT(CreateTensorWithDataAsOrtValue);
CHECK_SLOT(GetTensorMutableData);
CHECK_SLOT(CreateTensorTypeAndShapeInfo);
CHECK_SLOT(SetTensorElementType);
CHECK_SLOT(SetDimensions);
CHECK_SLOT(GetTensorElementType);
CHECK_SLOT(GetDimensionsCount);
CHECK_SLOT(GetDimensions);
CHECK_SLOT(GetSymbolicDimensions);
CHECK_SLOT(GetTensorTypeAndShape);
CHECK_SLOT(CreateCpuMemoryInfo);
CHECK_SLOT(AllocatorFree);
CHECK_SLOT(GetAllocatorWithDefaultOptions);
CHECK_SLOT(KernelInfoGetAttribute_int64);
CHECK_SLOT(KernelContext_GetInput);
CHECK_SLOT(KernelContext_GetOutput);
CHECK_SLOT(ReleaseEnv);
CHECK_SLOT(ReleaseStatus);
CHECK_SLOT(ReleaseMemoryInfo);
CHECK_SLOT(ReleaseSession);
CHECK_SLOT(ReleaseValue);
CHECK_SLOT(ReleaseTensorTypeAndShapeInfo);
CHECK_SLOT(ReleaseSessionOptions);
CHECK_SLOT(KernelInfoGetAttributeArray_int64);
CHECK_SLOT(KernelContext_GetGPUComputeStream);
CHECK_SLOT(RegisterCustomOpsLibrary_V2);
CHECK_SLOT(KernelInfoGetConstantInput_tensor);
CHECK_SLOT(ShapeInferContext_GetInputTypeShape);
CHECK_SLOT(ShapeInferContext_GetAttribute);
CHECK_SLOT(ShapeInferContext_SetOutputTypeShape);
CHECK_SLOT(SetSymbolicDimensions);
CHECK_SLOT(ReadOpAttr);
CHECK_SLOT(KernelContext_ParallelFor);

CHECK_MEMBER(OrtApiBase, GetApi);
CHECK_MEMBER(OrtApiBase, GetVersionString);

static_assert(offsetof(OrtCustomOp, version) == offsetof(official::OrtCustomOp, version));
CHECK_MEMBER(OrtCustomOp, CreateKernel);
CHECK_MEMBER(OrtCustomOp, GetName);
CHECK_MEMBER(OrtCustomOp, GetExecutionProviderType);
CHECK_MEMBER(OrtCustomOp, GetInputType);
CHECK_MEMBER(OrtCustomOp, GetInputTypeCount);
CHECK_MEMBER(OrtCustomOp, GetOutputType);
CHECK_MEMBER(OrtCustomOp, GetOutputTypeCount);
CHECK_MEMBER(OrtCustomOp, KernelCompute);
CHECK_MEMBER(OrtCustomOp, KernelDestroy);
CHECK_MEMBER(OrtCustomOp, GetInputCharacteristic);
CHECK_MEMBER(OrtCustomOp, GetOutputCharacteristic);
CHECK_MEMBER(OrtCustomOp, GetInputMemoryType);
CHECK_MEMBER(OrtCustomOp, GetVariadicInputMinArity);
CHECK_MEMBER(OrtCustomOp, GetVariadicInputHomogeneity);
CHECK_MEMBER(OrtCustomOp, GetVariadicOutputMinArity);
CHECK_MEMBER(OrtCustomOp, GetVariadicOutputHomogeneity);
CHECK_MEMBER(OrtCustomOp, CreateKernelV2);
CHECK_MEMBER(OrtCustomOp, KernelComputeV2);
CHECK_MEMBER(OrtCustomOp, InferOutputShapeFn);
CHECK_MEMBER(OrtCustomOp, GetStartVersion);
CHECK_MEMBER(OrtCustomOp, GetEndVersion);
CHECK_MEMBER(OrtCustomOp, GetMayInplace);
CHECK_MEMBER(OrtCustomOp, ReleaseMayInplace);
CHECK_MEMBER(OrtCustomOp, GetAliasMap);
CHECK_MEMBER(OrtCustomOp, ReleaseAliasMap);
static_assert(sizeof(OrtCustomOp) <= sizeof(official::OrtCustomOp), "the official struct is append-only");

static_assert(abi::kVersion <= ORT_API_VERSION);
CHECK_ENUM(kFail, ORT_FAIL);
CHECK_ENUM(kInvalidArgument, ORT_INVALID_ARGUMENT);
CHECK_ENUM(kFloat, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
CHECK_ENUM(kUint8, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8);
CHECK_ENUM(kInt8, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8);
CHECK_ENUM(kInt32, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32);
CHECK_ENUM(kFloat16, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16);
CHECK_ENUM(kBFloat16, ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16);
CHECK_ENUM(kInt, ORT_OP_ATTR_INT);
CHECK_ENUM(kInts, ORT_OP_ATTR_INTS);
CHECK_ENUM(kRequired, INPUT_OUTPUT_REQUIRED);
CHECK_ENUM(kOfProvider, OrtMemTypeDefault);
CHECK_ENUM(kArenaAllocator, OrtArenaAllocator);
CHECK_ENUM(kFatal, ORT_LOGGING_LEVEL_FATAL);
