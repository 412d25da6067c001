#include "base/tls_server.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace triptych::base {
namespace {

constexpr Duration kLookEvery = std::chrono::seconds(2);

// The one protocol that is spoken, if the client names it; one that names others alone is refused.
int ChooseProtocol(SSL*, const unsigned char** chosen, unsigned char* chosen_size,
                   const unsigned char* offered, unsigned int offered_size, void* ours) {
  const auto* protocol = static_cast<const std::string*>(ours);
  unsigned char* found = nullptr;
  const int result = SSL_select_next_proto(
      &found, chosen_size, reinterpret_cast<const unsigned char*>(protocol->data()),
      static_cast<unsigned int>(protocol->size()), offered, offered_size);
  if (result != OPENSSL_NPN_NEGOTIATED) return SSL_TLSEXT_ERR_ALERT_FATAL;
  *chosen = found;
  return SSL_TLSEXT_ERR_OK;
}

int64_t Written(const std::string& path) {
  struct stat found = {};
  if (stat(path.c_str(), &found) != 0) return 0;
  return found.st_mtim.tv_sec * int64_t{1'000'000'000} + found.st_mtim.tv_nsec;
}

}  // namespace

TlsConnection::~TlsConnection() { SSL_free(ssl_); }

ssize_t TlsConnection::Read(char* bytes, size_t size) {
  ERR_clear_error();
  return Result(SSL_read(ssl_, bytes, static_cast<int>(std::min<size_t>(size, INT_MAX))));
}

ssize_t TlsConnection::Write(const char* bytes, size_t size) {
  ERR_clear_error();
  return Result(SSL_write(ssl_, bytes, static_cast<int>(std::min<size_t>(size, INT_MAX))));
}

ssize_t TlsConnection::Result(int result) {
  if (result > 0) return result;
  const int error = SSL_get_error(ssl_, result);
  if (error == SSL_ERROR_ZERO_RETURN) return 0;
  const bool again = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
  wants_write_ = error == SSL_ERROR_WANT_WRITE;
  errno = again ? EAGAIN : EPROTO;
  return -1;
}

void TlsConnection::Finish() {
  ERR_clear_error();
  if (SSL_is_init_finished(ssl_)) SSL_shutdown(ssl_);
}

TlsServer::TlsServer(Files files, std::string protocol, const Clock& clock)
    : files_(std::move(files)),
      protocol_(absl::StrCat(std::string(1, static_cast<char>(protocol.size())), protocol)),
      clock_(clock) {}
TlsServer::~TlsServer() = default;

absl::StatusOr<std::unique_ptr<TlsServer>> TlsServer::Load(Files files, std::string protocol,
                                                           const Clock& clock) {
  std::unique_ptr<TlsServer> server(new TlsServer(std::move(files), std::move(protocol), clock));
  MutexLock lock(&server->mutex_);
  server->changed_ = server->ChangedAt();
  ASSIGN_OR_RETURN(server->context_, server->Read());
  server->next_look_ = clock.Now() + kLookEvery;
  return server;
}

int64_t TlsServer::ChangedAt() const { return std::max(Written(files_.cert), Written(files_.key)); }

absl::StatusOr<TlsServer::Context> TlsServer::Read() const {
  ERR_clear_error();
  Context context(SSL_CTX_new(TLS_server_method()), SSL_CTX_free);
  SSL_CTX* const raw = context.get();
  if (raw == nullptr) return absl::InternalError("cannot begin with TLS");
  SSL_CTX_set_min_proto_version(raw, TLS1_2_VERSION);
  // A client that negotiates again and again would cost a signature each time.
  SSL_CTX_set_options(raw, SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_mode(raw, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                            SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_session_cache_mode(raw, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_alpn_select_cb(raw, ChooseProtocol, const_cast<std::string*>(&protocol_));
  if (SSL_CTX_use_certificate_chain_file(raw, files_.cert.c_str()) != 1) {
    return absl::InvalidArgumentError(absl::StrCat(files_.cert, ": not a certificate as PEM"));
  }
  if (SSL_CTX_use_PrivateKey_file(raw, files_.key.c_str(), SSL_FILETYPE_PEM) != 1 ||
      SSL_CTX_check_private_key(raw) != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(files_.key, ": not the private key of ", files_.cert));
  }
  return context;
}

void TlsServer::LookAgain() {
  const TimePoint now = clock_.Now();
  if (now < next_look_) return;
  next_look_ = now + kLookEvery;
  const int64_t changed = ChangedAt();
  if (changed == changed_) return;
  // The two files change one after the other: what does not fit now is tried again.
  absl::StatusOr<Context> read = Read();
  if (!read.ok()) return;
  changed_ = changed;
  context_ = *std::move(read);
}

std::unique_ptr<TlsConnection> TlsServer::Accept(int descriptor) {
  MutexLock lock(&mutex_);
  LookAgain();
  // The connection holds a reference to its context, as OpenSSL counts them.
  SSL* const ssl = SSL_new(context_.get());
  if (ssl == nullptr) return nullptr;
  auto connection = std::make_unique<TlsConnection>(ssl);
  if (SSL_set_fd(ssl, descriptor) != 1) return nullptr;
  SSL_set_accept_state(ssl);
  return connection;
}

}  // namespace triptych::base
