#include "ort/domain.h"

#include <memory>
#include <mutex>
#include <utility>

#include "ort/guard.h"

namespace pconv::ort {
namespace {

/// The domain and its operators, which sessions refer to for as long as the library is loaded.
class Domain {
 public:
  Domain(const OrtApi* api, const char* name, std::vector<Operator> operators) : api_(api), ops_(std::move(operators)) {
    check(abi::CreateCustomOpDomain(api, name, &domain_));
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
const Domain& domain_of(const OrtApi* api, const char* name, std::vector<Operator> (*operators)(const OrtApi*)) {
  static std::mutex mutex;
  static auto& domains = *new std::vector<std::unique_ptr<const Domain>>;
  const std::lock_guard<std::mutex> lock(mutex);
  for (const auto& domain : domains) {
    if (domain->api() == api) return *domain;
  }
  domains.push_back(std::make_unique<const Domain>(api, name, operators(api)));
  return *domains.back();
}

}  // namespace

OrtStatus* add_domain(OrtSessionOptions* options, const OrtApiBase* base, const char* name,
                      std::vector<Operator> (*operators)(const OrtApi*)) {
  const OrtApi* api = base->GetApi(abi::kVersion);
  if (api == nullptr) {
    return abi::CreateStatus(base->GetApi(1), abi::kFail, "pconv: onnxruntime 1.18 or newer is needed");
  }
  return guard(api, [&] { domain_of(api, name, operators).add_to(options); });
}

}  // namespace pconv::ort
