#include "services/runtime/accept_loop.h"

#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <chrono>
#include <future>
#include <utility>

#include "services/runtime/listener.h"

namespace triptych::services {
namespace {

namespace asio = boost::asio;
using Tcp = asio::ip::tcp;
using Error = boost::system::error_code;

// When the process is out of descriptors, accepting again at once would only burn a core.
constexpr auto kAcceptPause = std::chrono::milliseconds(50);

}  // namespace

AcceptLoop::AcceptLoop(int threads, OnAccepted on_accepted)
    : num_threads_(threads),
      on_accepted_(std::move(on_accepted)),
      context_(threads),
      acceptor_(asio::make_strand(context_)),
      pause_(acceptor_.get_executor()) {}

AcceptLoop::~AcceptLoop() {
  context_.stop();
  for (std::thread& thread : threads_) thread.join();
}

absl::StatusOr<std::string> AcceptLoop::Listen(const std::string& address, int backlog) {
  absl::StatusOr<std::string> bound = services::Listen(address, backlog, &acceptor_);
  if (!bound.ok()) return bound;
  Accept();
  for (int i = 0; i < num_threads_; ++i) threads_.emplace_back([this] { context_.run(); });
  return bound;
}

void AcceptLoop::StopAccepting() {
  std::promise<void> stopped;
  asio::post(acceptor_.get_executor(), [this, &stopped] {
    Error ignored;
    pause_.cancel();
    acceptor_.close(ignored);
    stopped.set_value();
  });
  stopped.get_future().wait();
}

void AcceptLoop::Accept() {
  acceptor_.async_accept(asio::make_strand(context_), [this](Error error, Tcp::socket socket) {
    if (error == asio::error::operation_aborted || !acceptor_.is_open()) return;
    if (!error) {
      on_accepted_(std::move(socket));
      return Accept();
    }
    pause_.expires_after(kAcceptPause);
    pause_.async_wait([this](Error stopped) {
      if (!stopped) Accept();
    });
  });
}

}  // namespace triptych::services
