// The one symbol that this library exports: it adds every kernel of the domain to a session's options.
#include <memory>
#include <mutex>
#include <vector>

#include "cpu/custom_op.h"
#ifdef PCONV_CUDA
#include "cuda/custom_op.h"
#endif
#include "ort/guard.h"
#include "ort/operator.h"

#ifdef _WIN32
#define PCONV_EXPORT __declspec(dllexport)
#else
#define PCONV_EXPORT __attribute__((visibility("default")))
#endif

namespace pconv::ort {
namespace {

std::vector<Operator> operators(const OrtApi* api) {
  std::vector<Operator> ops = cpu::operators(api);
#ifdef PCONV_CUDA
  for (const Operator& op : cuda::operators(api)) ops.push_back(op);
#endif
  return ops;
}

/// The domain and its operators, which sessions refer to for as long as the library is loaded.
class Domain {
 public:
  explicit Domain(const OrtApi* api) : api_(api), ops_(operators(api)) {
    check(abi::CreateCustomOpDomain(api, "pconv", &domain_));
    for (const auto& op : ops_) check(abi::CustomOpDomain_Add(api, domain_, &op));
  }
  Domain(const Domain&) = delete;
  Domain& operator=(const Domain&) = delete;

  const OrtApi* api() const { return api_; }
  void add_to(OrtSessionOptions* options) const { check(abi::AddCustomOpDomain(api_, options, domain_)); }

 private:
  const OrtApi* api_;
  const std::vector<Operator> ops_;
  OrtCustomOpDomain* domain_ = nullptr;
};

/// One domain per runtime: a process may hold two copies of onnxruntime, each with a table of its own. Domains are
/// never freed: a session that ends with the process, after the destructors of this library, still reaches its kernels
/// through them.
const Domain& domain_of(const OrtApi* api) {
  static std::mutex mutex;
  static auto& domains = *new std::vector<std::unique_ptr<const Domain>>;
  const std::lock_guard<std::mutex> lock(mutex);
  for (const auto& domain : domains) {
    if (domain->api() == api) return *domain;
  }
  domains.push_back(std::make_unique<const Domain>(api));
  return *domains.back();
}

}  // namespace
}  // namespace pconv::ort

extern "C" PCONV_EXPORT OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  const OrtApi* api = base->GetApi(pconv::abi::kVersion);
  if (api == nullptr) {
    return pconv::abi::CreateStatus(base->GetApi(1), pconv::abi::kFail, "pconv: onnxruntime 1.18 or newer is needed");
  }
  return pconv::ort::guard(api, [&] { pconv::ort::domain_of(api).add_to(options); });
}
