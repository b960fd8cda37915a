#include "secateur/threads.hpp"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "secateur/simd.hpp"

namespace secateur {
namespace {

constexpr int kMaxThreads = 1024;

int check_count(long count, const std::string& what) {
  if (count < 1 || count > kMaxThreads) {
    throw std::invalid_argument(what + " must be between 1 and " + std::to_string(kMaxThreads) +
                                ", got " + std::to_string(count));
  }
  return static_cast<int>(count);
}

int usable_cpus() noexcept {
#if defined(__linux__)
  cpu_set_t cpus;
  if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0) {
    const int count = CPU_COUNT(&cpus);
    if (count > 0) return count < kMaxThreads ? count : kMaxThreads;
  }
#endif
  const unsigned count = std::thread::hardware_concurrency();
  return count > 0 ? static_cast<int>(count) : 1;
}

int initial_count() {
  const char* text = std::getenv("SECATEUR_NUM_THREADS");
  if (text == nullptr || *text == '\0') return usable_cpus();
  char* end = nullptr;
  const long count = std::strtol(text, &end, 10);
  if (*end != '\0') {
    throw std::invalid_argument(std::string("SECATEUR_NUM_THREADS must be a whole number, got '") +
                                text + "'");
  }
  return check_count(count, "SECATEUR_NUM_THREADS");
}

// One parallel_for call in flight. Workers and caller draw task numbers from `next`.
struct Job {
  const std::function<void(std::size_t)>& task;
  std::size_t num_tasks;
  std::atomic<std::size_t> next{0};
  std::mutex error_mutex;
  std::exception_ptr error;

  void run() noexcept {
    for (std::size_t i = next.fetch_add(1); i < num_tasks; i = next.fetch_add(1)) {
      try {
        task(i);
      } catch (...) {
        const std::lock_guard<std::mutex> lock(error_mutex);
        if (!error) error = std::current_exception();
        next.store(num_tasks);
      }
    }
  }
};

// Waking a sleeping thread takes some 5 to 50 microseconds, as long as a small layer of a network
// takes to compute, and calls come in quick succession. So whoever waits looks for a moment first.
template <class Ready>
void wait_briefly(const Ready& ready) noexcept {
  constexpr int kLooks = 1000;
  for (int look = 0; look < kLooks && !ready(); ++look) {
#if SECATEUR_X86
    __builtin_ia32_pause();
#endif
  }
}

class Pool {
 public:
  explicit Pool(int num_workers) {
    for (int i = 0; i < num_workers; ++i) workers_.emplace_back([this] { work(); });
  }

  ~Pool() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  std::size_t num_workers() const noexcept { return workers_.size(); }

  void run(Job& job) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      job_ = &job;
      ++generation_;
    }
    wake_.notify_all();
    job.run();
    wait_briefly([this] { return active_.load() == 0; });
    std::unique_lock<std::mutex> lock(mutex_);
    job_ = nullptr;  // a worker that wakes only now finds nothing to do
    idle_.wait(lock, [this] { return active_ == 0; });
  }

 private:
  void work() {
    std::size_t seen = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      lock.unlock();
      wait_briefly([&] { return stop_.load() || generation_.load() != seen; });
      lock.lock();
      wake_.wait(lock, [&] { return stop_ || generation_ != seen; });
      if (stop_) return;
      seen = generation_;
      Job* job = job_;
      if (job == nullptr) continue;
      ++active_;
      lock.unlock();
      job->run();
      lock.lock();
      if (--active_ == 0) idle_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable idle_;
  std::vector<std::thread> workers_;
  Job* job_ = nullptr;
  // Written under the mutex; atomic, as wait_briefly reads them without it.
  std::atomic<std::size_t> generation_{0};
  std::atomic<std::size_t> active_{0};
  std::atomic<bool> stop_{false};
};

// `busy` is held for as long as a parallel_for uses the pool. Everything is reached through one
// pointer so that a forked child, which inherits locked mutexes and no threads, can start afresh.
struct State {
  std::mutex busy;
  Pool* pool = nullptr;
  std::atomic<int> count;
  explicit State(int threads) : count(threads) {}
};

State* make_state(int threads) {
  auto* state = new State(threads);  // never freed: workers may outlive static destructors
  return state;
}

State*& state_slot() {
  static State* state = [] {
    State* first = make_state(initial_count());
    pthread_atfork(nullptr, nullptr, [] { state_slot() = make_state(state_slot()->count.load()); });
    return first;
  }();
  return state;
}

void run_here(std::size_t num_tasks, const std::function<void(std::size_t)>& task) {
  for (std::size_t i = 0; i < num_tasks; ++i) task(i);
}

}  // namespace

int num_threads() { return state_slot()->count.load(); }

void set_num_threads(int count) {
  state_slot()->count.store(check_count(count, "the number of threads"));
}

void parallel_for(std::size_t num_tasks, const std::function<void(std::size_t)>& task) {
  State& state = *state_slot();
  const int threads = state.count.load();
  if (threads == 1 || num_tasks <= 1) return run_here(num_tasks, task);
  const std::unique_lock<std::mutex> busy(state.busy, std::try_to_lock);
  if (!busy.owns_lock()) return run_here(num_tasks, task);
  const auto workers = static_cast<std::size_t>(threads - 1);
  if (state.pool == nullptr || state.pool->num_workers() != workers) {
    delete state.pool;
    state.pool = nullptr;
    state.pool = new Pool(static_cast<int>(workers));
  }
  Job job{task, num_tasks, {}, {}, {}};
  state.pool->run(job);
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace secateur
