// C interface to libtorch's process group on gloo and its store.
//
// Every function returns a success flag and writes the text of an exception to `error`, because an
// exception must not cross into Rust.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

namespace {

struct Group {
  c10::intrusive_ptr<c10d::ProcessGroupGloo> group;
};

struct ErrorText {
  char* text;
  size_t size;
};

void write_error(ErrorText error, const char* text) {
  if (error.size == 0) return;
  const size_t length = std::min(error.size - 1, std::strlen(text));
  std::memcpy(error.text, text, length);
  error.text[length] = '\0';
}

template <typename Work>
bool guarded(ErrorText error, Work work) {
  try {
    work();
    return true;
  } catch (const c10::Error& caught) {
    write_error(error, caught.what_without_backtrace());
  } catch (const std::exception& caught) {
    write_error(error, caught.what());
  } catch (...) {
    write_error(error, "unknown exception");
  }
  return false;
}

at::Tensor bytes(void* data, size_t size) {
  return at::from_blob(data, {static_cast<int64_t>(size)}, at::kByte);
}

}  // namespace

extern "C" {

// Connects to the other ranks. Rank 0 serves the store on the listening socket `listener`, which
// it takes over; the others pass -1, and so do all if a launcher serves the store. Keys of the
// store start with `prefix`. The ranks connect through the address `device`; if it is empty,
// through that of this machine's name.
Group* visage_ranks_connect(const char* host, const char* device, uint16_t port, int listener,
                            bool is_hosted, int rank, int world, const char* prefix,
                            int64_t timeout_ms, ErrorText error) {
  Group* connected = nullptr;
  guarded(error, [&] {
    const std::chrono::milliseconds timeout(timeout_ms);
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = listener >= 0;
    if (!is_hosted) options.numWorkers = world;
    options.timeout = timeout;
    if (listener >= 0) options.masterListenFd = listener;
    auto store = c10::make_intrusive<c10d::PrefixStore>(
        prefix, c10::make_intrusive<c10d::TCPStore>(host, options));
    auto group = c10d::ProcessGroupGloo::Options::create(timeout);
    group->devices.push_back(*device != '\0'
                                 ? c10d::ProcessGroupGloo::createDeviceForHostname(device)
                                 : c10d::ProcessGroupGloo::createDefaultDevice());
    connected = new Group{
        c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, world, group)};
  });
  return connected;
}

// Sends `count` floats of `input` to each rank, and receives as many from each into `output`.
bool visage_ranks_all_to_all(Group* group, float* input, float* output, size_t count,
                             ErrorText error) {
  return guarded(error, [&] {
    const int64_t all = static_cast<int64_t>(count) * group->group->getSize();
    auto in = at::from_blob(input, {all}, at::kFloat);
    auto out = at::from_blob(output, {all}, at::kFloat);
    std::vector<int64_t> equal;
    group->group->alltoall_base(out, in, equal, equal)->wait();
  });
}

// Receives `size` bytes of each rank, in their order.
bool visage_ranks_all_gather(Group* group, void* input, void* output, size_t size,
                             ErrorText error) {
  return guarded(error, [&] {
    auto in = bytes(input, size);
    auto out = bytes(output, size * group->group->getSize());
    group->group->_allgather_base(out, in)->wait();
  });
}

// Replaces `data` on all ranks by that of rank 0.
bool visage_ranks_broadcast(Group* group, void* data, size_t size, ErrorText error) {
  return guarded(error, [&] {
    std::vector<at::Tensor> tensors{bytes(data, size)};
    group->group->broadcast(tensors)->wait();
  });
}

void visage_ranks_free(Group* group) { delete group; }

}  // extern "C"
