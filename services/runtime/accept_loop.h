#pragma once

// Accepts connections of one port and runs what they do: the listener, its threads, and the pause
// where no descriptor is free, in one place for every server that speaks over Asio.

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"

namespace triptych::services {

class AcceptLoop {
 public:
  // Called for one connection at a time, from a thread of the loop's. The socket's executor is a
  // strand of its own.
  using OnAccepted = std::function<void(boost::asio::ip::tcp::socket)>;

  AcceptLoop(int threads, OnAccepted on_accepted);
  // Stops: what has not run yet is dropped, with what it holds. So an owner declares this after
  // whatever its connections use.
  ~AcceptLoop();
  AcceptLoop(const AcceptLoop&) = delete;
  AcceptLoop& operator=(const AcceptLoop&) = delete;

  // As services::Listen(); accepts from then on. Once.
  absl::StatusOr<std::string> Listen(const std::string& address, int backlog);
  // Closes the port; connections go on. Blocks until it is closed; not from the loop's threads.
  void StopAccepting();

 private:
  void Accept();

  const int num_threads_;
  const OnAccepted on_accepted_;
  boost::asio::io_context context_;
  boost::asio::ip::tcp::acceptor acceptor_;
  boost::asio::steady_timer pause_;
  std::vector<std::thread> threads_;
};

}  // namespace triptych::services
