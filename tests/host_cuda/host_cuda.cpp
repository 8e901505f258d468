// Threads of a block as fibers of one CPU thread. A fiber runs until it waits at a barrier or ends; then the next one runs, warp by
// warp, in the order of STRUCTOPS_HOST_CUDA_ORDER: ascending, descending, or a number that seeds a shuffle. A result that depends on
// the order has a race.
#include "host_cuda.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#ifndef __x86_64__
#error "STRUCTOPS_CUDA=HOST switches fibers in x86-64 assembly"
#endif

// Saves what the callee must keep, and the stack, of the one; goes on with the other.
extern "C" void host_cuda_switch(void** from, void* to);
asm(R"(
.text
.globl host_cuda_switch
.hidden host_cuda_switch
.type host_cuda_switch, @function
host_cuda_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size host_cuda_switch, .-host_cuda_switch
)");

namespace host_cuda {

Place place;

namespace {

constexpr size_t kStack = 256 << 10, kDynamic = 232448;
constexpr int kMostThreads = 1024;
constexpr uint64_t kPoison = 0x7ff8dead7fc0deadull;  // NaN as float and as double

enum class State { runs, at_warp, at_block, ended };
enum class Kind { sync, exchange, vote };

struct Lane {
  void* stack = nullptr;  // pointer to go on with
  State state = State::ended;
  Kind kind;
  Vote vote;
  unsigned mask;
  uint64_t value;
  int source;
  uint3 at;
};

alignas(128) unsigned char dynamic[kDynamic];
Lane lanes[kMostThreads];
void* scheduler;
int current, count;
int block_or, block_result;
const std::function<void()>* body;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "CUDA on the host: block (%u, %u), thread %d: %s\n", place.block.x, place.block.y, current, what.c_str());
  std::abort();
}

char* stack_of(int i) {
  static char* const all = [] {
    void* p = mmap(nullptr, kStack * kMostThreads, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) fail("no memory for stacks");
    for (int k = 0; k < kMostThreads; ++k) mprotect(static_cast<char*>(p) + k * kStack, 4096, PROT_NONE);
    return static_cast<char*>(p);
  }();
  return all + i * kStack;
}

void wait() { host_cuda_switch(&lanes[current].stack, scheduler); }

void enter() {
  (*body)();
  lanes[current].state = State::ended;
  wait();
  __builtin_unreachable();
}

void start(int i) {
  void** top = reinterpret_cast<void**>(stack_of(i) + kStack);
  *--top = nullptr;  // keeps the stack as after a call: 16 bytes aligned, less 8
  *--top = reinterpret_cast<void*>(&enter);
  for (int k = 0; k < 6; ++k) *--top = nullptr;
  lanes[i].stack = top;
  lanes[i].state = State::runs;
}

void resume(int i) {
  current = i;
  place.thread = lanes[i].at;
  host_cuda_switch(&scheduler, lanes[i].stack);
}

// Lets the lanes of a warp that wait for each other go on, if all of them are there.
bool release(int first, int size) {
  unsigned waiting = 0, live = 0;
  for (int l = 0; l < size; ++l) {
    waiting |= unsigned(lanes[first + l].state == State::at_warp) << l;
    live |= unsigned(lanes[first + l].state != State::ended) << l;
  }
  bool released = false;
  while (waiting) {
    const int head = __builtin_ctz(waiting);
    const Lane& h = lanes[first + head];
    const unsigned group = h.mask & live;
    if (!(h.mask >> head & 1)) fail("a lane waits at a barrier whose mask leaves it out");
    if (group & ~waiting) {  // others are on their way, or wait for the whole block
      waiting &= ~group;
      continue;
    }
    unsigned ballot = 0, largest = 0;
    uint64_t values[32];
    for (int l = 0; l < 32; ++l) values[l] = kPoison;
    for (int l = 0; l < size; ++l) {
      if (!(group >> l & 1)) continue;
      const Lane& x = lanes[first + l];
      if (x.kind != h.kind || x.mask != h.mask || (x.kind == Kind::vote && x.vote != h.vote)) fail("lanes of a warp wait at different barriers");
      values[l] = x.value;
      ballot |= unsigned(x.value != 0) << l;
      largest = std::max(largest, unsigned(x.value));
    }
    for (int l = 0; l < size; ++l) {
      if (!(group >> l & 1)) continue;
      Lane& x = lanes[first + l];
      if (x.kind == Kind::exchange && x.source >= 0 && x.source < 32) x.value = values[x.source];
      if (x.kind == Kind::vote)
        x.value = x.vote == Vote::ballot ? ballot : x.vote == Vote::any ? ballot != 0 : x.vote == Vote::all ? ballot == group : largest;
      x.state = State::runs;
    }
    waiting &= ~group;
    released = true;
  }
  return released;
}

std::vector<int> order_of(int n, uint64_t salt) {
  static const char* const how = std::getenv("STRUCTOPS_HOST_CUDA_ORDER");
  std::vector<int> order(n);
  std::iota(order.begin(), order.end(), 0);
  if (!how || !std::strcmp(how, "ascending")) return order;
  if (!std::strcmp(how, "descending")) std::reverse(order.begin(), order.end());
  else std::shuffle(order.begin(), order.end(), std::mt19937_64(std::strtoull(how, nullptr, 10) + salt));
  return order;
}

void run_block() {
  const int warps = (count + 31) / 32;
  for (int i = 0; i < count; ++i) {
    const unsigned u = unsigned(i);
    lanes[i].at = {u % place.threads.x, u / place.threads.x % place.threads.y, u / place.threads.x / place.threads.y};
    start(i);
  }
  block_or = 0;
  const std::vector<int> warp_order = order_of(warps, 1), lane_order = order_of(32, 2);
  while (true) {
    for (const int w : warp_order) {
      const int first = 32 * w, size = std::min(32, count - first);
      do {
        for (const int l : lane_order)
          if (l < size && lanes[first + l].state == State::runs) resume(first + l);
      } while (release(first, size));
    }
    bool live = false;
    for (int i = 0; i < count; ++i) {
      current = i;
      if (lanes[i].state == State::at_warp) fail("waits for lanes of its warp that wait for the block or never come");
      live |= lanes[i].state != State::ended;
    }
    if (!live) return;
    block_result = block_or;
    block_or = 0;
    for (int i = 0; i < count; ++i)
      if (lanes[i].state == State::at_block) lanes[i].state = State::runs;
  }
}

uint64_t wait_for_warp(Kind kind, Vote vote, unsigned mask, uint64_t value, int source) {
  Lane& l = lanes[current];
  l.kind = kind;
  l.vote = vote;
  l.mask = mask;
  l.value = value;
  l.source = source;
  l.state = State::at_warp;
  const int me = current;
  wait();
  return lanes[me].value;
}

}  // namespace

unsigned char* dynamic_shared() { return dynamic; }
uint64_t exchange(unsigned mask, uint64_t value, int source) { return wait_for_warp(Kind::exchange, Vote::none, mask, value, source); }
unsigned vote(Vote kind, unsigned mask, unsigned value) { return unsigned(wait_for_warp(Kind::vote, kind, mask, value, 0)); }
void sync_warp(unsigned mask) { wait_for_warp(Kind::sync, Vote::none, mask, 0, 0); }
int sync_block(int value) {
  block_or |= value;
  lanes[current].state = State::at_block;
  wait();
  return block_result;
}

void run(dim3 blocks, dim3 threads, size_t dynamic_bytes, const std::function<void()>& thread) {
  static std::mutex one;
  const std::lock_guard<std::mutex> lock(one);
  count = int(threads.x * threads.y * threads.z);
  if (count < 1 || count > kMostThreads) fail("a block of " + std::to_string(count) + " threads");
  if (dynamic_bytes > kDynamic) fail("too much shared memory");
  if (blocks.y > 65535 || blocks.z > 65535 || blocks.x > 2147483647u) fail("the grid is too large");
  body = &thread;
  place.threads = threads;
  place.blocks = blocks;
  const int64_t total = int64_t(blocks.x) * blocks.y * blocks.z;
  const bool backwards = order_of(2, 3)[0] == 1;
  for (int64_t i = 0; i < total; ++i) {
    const uint64_t b = uint64_t(backwards ? total - 1 - i : i);
    place.block = {unsigned(b % blocks.x), unsigned(b / blocks.x % blocks.y), unsigned(b / blocks.x / blocks.y)};
    std::memset(dynamic, 0xff, dynamic_bytes);
    run_block();
  }
}

}  // namespace host_cuda

// ---- the runtime functions that launchers call --------------------------------------------------------------------
extern "C" {
cudaError_t cudaMemsetAsync(void* p, int value, size_t n, cudaStream_t) {
  std::memset(p, value, n);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t n, cudaMemcpyKind, cudaStream_t) {
  std::memmove(to, from, n);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
const char* cudaGetErrorString(cudaError_t) { return "none"; }
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr what, int) {
  *value = what == cudaDevAttrMaxSharedMemoryPerBlockOptin ? int(host_cuda::kDynamic) : 2;  // few processors: blocks take turns
  return cudaSuccess;
}
}
