#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

#include "check.hpp"
#include "secateur/threads.hpp"

using secateur::parallel_for;
using secateur::set_num_threads;

namespace {

void every_task_runs_once() {
  for (const int threads : {1, 2, 3, 8}) {
    set_num_threads(threads);
    for (const std::size_t num_tasks : {0U, 1U, 2U, 7U, 1000U}) {
      std::vector<std::atomic<int>> runs(num_tasks);
      parallel_for(num_tasks, [&](std::size_t i) { ++runs[i]; });
      for (const auto& count : runs) CHECK(count == 1);
    }
  }
}

void nested_and_concurrent_calls_finish() {
  set_num_threads(4);
  std::atomic<int> total{0};
  parallel_for(8, [&](std::size_t) { parallel_for(8, [&](std::size_t) { ++total; }); });
  CHECK(total == 64);
  std::vector<std::thread> callers;
  for (int t = 0; t < 4; ++t) {
    callers.emplace_back([&] {
      for (int i = 0; i < 50; ++i) parallel_for(8, [&](std::size_t) { ++total; });
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(total == 64 + 4 * 50 * 8);
}

void exceptions_reach_the_caller() {
  bool caught = false;
  try {
    parallel_for(100, [](std::size_t i) {
      if (i == 5) throw std::runtime_error("five");
    });
  } catch (const std::runtime_error&) {
    caught = true;
  }
  CHECK(caught);
  std::atomic<int> total{0};
  parallel_for(10, [&](std::size_t) { ++total; });
  CHECK(total == 10);
}

void bad_counts_are_refused() {
  for (const int count : {0, -1, 1025}) {
    bool caught = false;
    try {
      set_num_threads(count);
    } catch (const std::invalid_argument&) {
      caught = true;
    }
    CHECK(caught);
  }
}

#if !defined( \
    __SANITIZE_THREAD__)  // TSan does not support threads started after a multi-threaded fork
void a_forked_child_has_a_pool_of_its_own() {
  set_num_threads(4);
  std::atomic<int> total{0};
  parallel_for(10, [&](std::size_t) { ++total; });
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    parallel_for(10, [&](std::size_t) { ++total; });
    _exit(total == 20 ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
#endif

}  // namespace

int main() {
  every_task_runs_once();
  nested_and_concurrent_calls_finish();
  exceptions_reach_the_caller();
  bad_counts_are_refused();
#if !defined(__SANITIZE_THREAD__)
  a_forked_child_has_a_pool_of_its_own();
#endif
  return 0;
}
