#pragma once

// A blocking TLS client on a socket of its own, whose certificates it does not check: what is
// tested is the server. One thread.

#include <netinet/in.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"

namespace triptych::testing {

class TlsClient {
 public:
  struct Options {
    std::string protocol;  // of ALPN; empty: names none
    int newest = TLS1_3_VERSION;
  };
  // Takes a connected socket.
  TlsClient(int descriptor, const Options& options) : descriptor_(descriptor) {
    timeval patience{.tv_sec = 20, .tv_usec = 0};
    setsockopt(descriptor_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    SSL_CTX_set_max_proto_version(context_.get(), options.newest);
    SSL_CTX_set_min_proto_version(context_.get(), TLS1_VERSION);
    SSL_CTX_set_security_level(context_.get(), 0);
    ssl_.reset(SSL_new(context_.get()));
    if (!options.protocol.empty()) {
      const std::string list =
          std::string(1, static_cast<char>(options.protocol.size())) + options.protocol;
      SSL_set_alpn_protos(ssl_.get(), reinterpret_cast<const unsigned char*>(list.data()),
                          static_cast<unsigned>(list.size()));
    }
    SSL_set_fd(ssl_.get(), descriptor_);
  }
  ~TlsClient() { close(descriptor_); }
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;

  bool Handshake() { return SSL_connect(ssl_.get()) == 1; }
  bool Send(absl::string_view bytes) {
    return SSL_write(ssl_.get(), bytes.data(), static_cast<int>(bytes.size())) ==
           static_cast<int>(bytes.size());
  }
  // Until `text` has come, or the end.
  std::string ReadUntil(const std::string& text) {
    char bytes[4096];
    while (text.empty() || received_.find(text) == std::string::npos) {
      const int got = SSL_read(ssl_.get(), bytes, sizeof(bytes));
      if (got <= 0) break;
      received_.append(bytes, static_cast<size_t>(got));
    }
    return received_;
  }
  void CloseSending() {
    SSL_shutdown(ssl_.get());
    shutdown(descriptor_, SHUT_WR);
  }
  // Of the server's certificate.
  std::string Serial() const {
    X509* const certificate = SSL_get1_peer_certificate(ssl_.get());
    if (certificate == nullptr) return "";
    BIGNUM* const number = ASN1_INTEGER_to_BN(X509_get_serialNumber(certificate), nullptr);
    char* const text = BN_bn2hex(number);
    std::string serial = text;
    OPENSSL_free(text);
    BN_free(number);
    X509_free(certificate);
    return serial;
  }

 private:
  const int descriptor_;
  std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)> context_{SSL_CTX_new(TLS_client_method()),
                                                        SSL_CTX_free};
  std::unique_ptr<SSL, void (*)(SSL*)> ssl_{nullptr, SSL_free};
  std::string received_;
};

}  // namespace triptych::testing
