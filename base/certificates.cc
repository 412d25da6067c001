#include "base/certificates.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace triptych::base {
namespace {

constexpr long kBackdateSeconds = 3600;
constexpr long kValidSeconds = 10L * 365 * 24 * 3600;

template <auto kFree>
struct Free {
  template <typename T>
  void operator()(T* pointer) const {
    kFree(pointer);
  }
};
using Bio = std::unique_ptr<BIO, Free<BIO_free_all>>;
using Key = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;
using Certificate = std::unique_ptr<X509, Free<X509_free>>;
using Extension = std::unique_ptr<X509_EXTENSION, Free<X509_EXTENSION_free>>;

std::string Contents(BIO* bio) {
  char* bytes = nullptr;
  const long size = BIO_get_mem_data(bio, &bytes);
  return std::string(bytes, static_cast<size_t>(size));
}

std::string PemOf(X509* certificate) {
  const Bio bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509(bio.get(), certificate);
  return Contents(bio.get());
}

std::string PemOf(EVP_PKEY* key) {
  const Bio bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr);
  return Contents(bio.get());
}

bool AddExtension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const Extension extension(X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str()));
  return extension != nullptr && X509_add_ext(certificate, extension.get(), -1) == 1;
}

bool SetRandomSerial(X509* certificate) {
  unsigned char bytes[16];
  if (RAND_bytes(bytes, sizeof(bytes)) != 1) return false;
  bytes[0] = static_cast<unsigned char>((bytes[0] & 0x7f) | 0x40);
  BIGNUM* number = BN_bin2bn(bytes, sizeof(bytes), nullptr);
  const bool set = BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate)) != nullptr;
  BN_free(number);
  return set;
}

// A certificate of `key` in the name of `name`, with all but extensions and signature; null when
// the library fails.
Certificate Begin(EVP_PKEY* key, const std::string& name) {
  Certificate made(X509_new());
  if (made == nullptr) return nullptr;
  X509_set_version(made.get(), X509_VERSION_3);
  X509_gmtime_adj(X509_getm_notBefore(made.get()), -kBackdateSeconds);
  X509_gmtime_adj(X509_getm_notAfter(made.get()), kValidSeconds);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(made.get()), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  if (!SetRandomSerial(made.get()) || X509_set_pubkey(made.get(), key) != 1) return nullptr;
  return made;
}

absl::StatusOr<std::string> Read(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  if (!in || text.empty()) return absl::InvalidArgumentError("cannot read " + path);
  return text;
}

absl::StatusOr<Certificate> ReadCertificate(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string pem, Read(path));
  const Bio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  Certificate certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  if (certificate == nullptr) return absl::InvalidArgumentError("no certificate in " + path);
  return certificate;
}

// Never readable by others, not even for a moment.
absl::Status WritePrivately(const std::string& path, const std::string& text) {
  unlink(path.c_str());
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) return absl::InternalError("cannot write " + path);
  const ssize_t written = write(file, text.data(), text.size());
  const bool closed = close(file) == 0;
  if (written != static_cast<ssize_t>(text.size()) || !closed) {
    return absl::InternalError("cannot write " + path);
  }
  return absl::OkStatus();
}

}  // namespace

const char* ToString(Role role) {
  switch (role) {
    case Role::kGateway:
      return "gateway";
    case Role::kScheduler:
      return "scheduler";
    case Role::kWorker:
      return "worker";
    case Role::kOperator:
      return "operator";
  }
  return "";
}

std::string RoleUri(Role role) { return absl::StrCat("spiffe://triptych/", ToString(role)); }

struct CertificateAuthority::Keys {
  Key key;
  Certificate certificate;
};

CertificateAuthority::CertificateAuthority(std::unique_ptr<Keys> keys)
    : keys_(std::move(keys)), certificate_(PemOf(keys_->certificate.get())) {}
CertificateAuthority::CertificateAuthority(CertificateAuthority&&) noexcept = default;
CertificateAuthority& CertificateAuthority::operator=(CertificateAuthority&&) noexcept = default;
CertificateAuthority::~CertificateAuthority() = default;

absl::StatusOr<CertificateAuthority> CertificateAuthority::Make() {
  auto keys = std::make_unique<Keys>();
  keys->key = Key(EVP_EC_gen("P-256"));
  if (keys->key != nullptr) keys->certificate = Begin(keys->key.get(), "triptych");
  X509* const made = keys->certificate.get();
  if (made == nullptr || X509_set_issuer_name(made, X509_get_subject_name(made)) != 1 ||
      !AddExtension(made, made, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") ||
      !AddExtension(made, made, NID_key_usage, "critical,keyCertSign,cRLSign") ||
      !AddExtension(made, made, NID_subject_key_identifier, "hash") ||
      X509_sign(made, keys->key.get(), EVP_sha256()) == 0) {
    return absl::InternalError("cannot make a certificate authority");
  }
  return CertificateAuthority(std::move(keys));
}

absl::StatusOr<Credentials> CertificateAuthority::Issue(Role role) const {
  X509* const issuer = keys_->certificate.get();
  const Key key(EVP_EC_gen("P-256"));
  Certificate made;
  if (key != nullptr) made = Begin(key.get(), ToString(role));
  if (made == nullptr || X509_set_issuer_name(made.get(), X509_get_subject_name(issuer)) != 1 ||
      !AddExtension(made.get(), issuer, NID_basic_constraints, "critical,CA:FALSE") ||
      !AddExtension(made.get(), issuer, NID_key_usage, "critical,digitalSignature") ||
      !AddExtension(made.get(), issuer, NID_ext_key_usage, "serverAuth,clientAuth") ||
      !AddExtension(made.get(), issuer, NID_subject_alt_name, "URI:" + RoleUri(role)) ||
      !AddExtension(made.get(), issuer, NID_authority_key_identifier, "keyid") ||
      X509_sign(made.get(), keys_->key.get(), EVP_sha256()) == 0) {
    return absl::InternalError("cannot issue a certificate");
  }
  return Credentials{PemOf(made.get()), PemOf(key.get())};
}

absl::Status CheckTlsFiles(const TlsFiles& files) {
  RETURN_IF_ERROR(ReadCertificate(files.ca).status());
  ASSIGN_OR_RETURN(const Certificate certificate, ReadCertificate(files.cert));
  ASSIGN_OR_RETURN(const std::string pem, Read(files.key));
  const Bio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  const Key key(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
  if (key == nullptr || X509_check_private_key(certificate.get(), key.get()) != 1) {
    return absl::InvalidArgumentError(absl::StrCat("no key of ", files.cert, " in ", files.key));
  }
  return absl::OkStatus();
}

TlsFiles TlsFilesIn(const std::string& folder, Role role) {
  return {.ca = folder + "/ca.pem",
          .cert = absl::StrCat(folder, "/", ToString(role), ".pem"),
          .key = absl::StrCat(folder, "/", ToString(role), ".key")};
}

absl::Status WriteTlsFolder(const CertificateAuthority& authority, const std::string& folder) {
  if (mkdir(folder.c_str(), 0700) != 0 && chmod(folder.c_str(), 0700) != 0) {
    return absl::InternalError("cannot make " + folder);
  }
  for (const Role role : kRoles) {
    const TlsFiles files = TlsFilesIn(folder, role);
    ASSIGN_OR_RETURN(const Credentials issued, authority.Issue(role));
    RETURN_IF_ERROR(WritePrivately(files.ca, authority.certificate()));
    RETURN_IF_ERROR(WritePrivately(files.cert, issued.certificate));
    RETURN_IF_ERROR(WritePrivately(files.key, issued.key));
  }
  return absl::OkStatus();
}

}  // namespace triptych::base
